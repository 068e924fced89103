"""How good predicted classes are: accuracy, F1, the confusion matrix, and whether sureness is earned.

Knows probabilities and the numbers of the true classes. All sums add up across batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from gatewise.errors import DataError, ShapeError

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

UNKNOWN = -1
"""The number of a label that the model has no class for: always an error, counted apart."""

_ROUNDING = 1e-3  # what a row of probabilities may miss 1 by: bfloat16 has 8 bits


class ClassTally:
    """Predictions of classes, summed up.

    >>> tally = ClassTally(["cat", "dog"])
    >>> tally.add(np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]), np.array([0, 1, 1]))
    >>> tally.accuracy, round(tally.macro_f1, 4)
    (0.6666666666666666, 0.6667)
    >>> tally.confusion.tolist()
    [[1, 0], [1, 1]]

    Args:
        labels: the names of the classes, in the order of the probabilities.
        bins: intervals of equal width that the calibration error sorts certainties into.
    Attributes:
        confusion: examples by (true class, predicted class), (C, C) int64.
        unknown: examples whose label is none of the classes.
    """

    def __init__(self, labels: Sequence[str], bins: int = 15) -> None:
        if not labels or bins < 1:
            raise DataError(f"expected classes and bins, found {len(labels)} and {bins}")
        self.labels = tuple(labels)
        self.confusion = np.zeros((len(labels), len(labels)), np.int64)
        self.nats = 0.0
        self.unknown = 0
        # by bin: examples, sum of certainties, right answers
        self._bins = np.zeros((bins, 3))

    def add(self, probabilities: Any, targets: Any) -> None:
        """Add a batch.

        Args:
            probabilities: (B, C), each row of sum 1; of a tensor its values on the CPU.
            targets: the true classes, (B,) integers; `UNKNOWN` where the label has no class.
        Raises:
            ShapeError: if the shapes do not fit.
            DataError: if a probability is not one, or a target is no class.
        """
        chances, truth = _checked(probabilities, targets, len(self.labels))
        if not len(truth):
            return
        known = truth != UNKNOWN
        guesses = chances.argmax(1)
        np.add.at(self.confusion, (truth[known], guesses[known]), 1)
        self.unknown += int((~known).sum())
        with np.errstate(divide="ignore"):
            self.nats -= float(np.log(chances[known, truth[known]]).sum())
        self._sort(chances.max(1), guesses == truth)

    def _sort(self, certainties: Array, right: Array) -> None:
        """Put certainties into bins (a, b], as Guo et al. 2017 do; 0 into the first."""
        bins = len(self._bins)
        places = np.clip(np.ceil(certainties * bins).astype(int) - 1, 0, bins - 1)
        for column, values in enumerate((np.ones_like(certainties), certainties, right)):
            self._bins[:, column] += np.bincount(places, values.astype(float), bins)

    def merge(self, other: ClassTally) -> ClassTally:
        """The tally of both; neither is changed.

        Raises:
            DataError: if their classes differ.
        """
        if other.labels != self.labels or other._bins.shape != self._bins.shape:
            raise DataError("expected tallies of the same classes and bins, found two kinds")
        both = ClassTally(self.labels, len(self._bins))
        both.confusion = self.confusion + other.confusion
        both.nats = self.nats + other.nats
        both.unknown = self.unknown + other.unknown
        both._bins = self._bins + other._bins
        return both

    @property
    def examples(self) -> int:
        """How many, those with an unknown label among them."""
        return int(self.confusion.sum()) + self.unknown

    @property
    def cost(self) -> float:
        """Mean cross-entropy in nats over the examples of known classes; NaN without any."""
        known = self.examples - self.unknown
        return self.nats / known if known else math.nan

    @property
    def accuracy(self) -> float:
        """Share of right answers; an unknown label counts as a wrong one. NaN without examples."""
        return float(np.trace(self.confusion)) / self.examples if self.examples else math.nan

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur, as a truth or as an answer."""
        return macro_f1(self.confusion)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, sum over bins of n_b / n |right_b - certainty_b|.

        Guo et al. 2017, "On calibration of modern neural networks", eq. 3.
        """
        total = self._bins[:, 0].sum()
        gaps = np.abs(self._bins[:, 2] - self._bins[:, 1])
        return float(gaps.sum() / total) if total else math.nan

    def reliability(self) -> list[dict[str, float | int]]:
        """What a reliability diagram draws: for each bin that is not empty its figures."""
        width = 1 / len(self._bins)
        return [
            {
                "above": k * width,
                "to": (k + 1) * width,
                "examples": int(n),
                "certainty": float(sure / n),
                "accuracy": float(right / n),
            }
            for k, (n, sure, right) in enumerate(self._bins)
            if n
        ]

    def summary(self) -> dict[str, Any]:
        """All figures by name as JSON values; None where one is not a finite number."""
        figures = {
            "nats_per_example": self.cost,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
        }
        finite = {k: v if math.isfinite(v) else None for k, v in figures.items()}
        rows = per_class(self.confusion)
        classes = dict(zip(self.labels, rows, strict=True))
        counts = {"examples": self.examples, "unknown_labels": self.unknown}
        return {**counts, **finite, "classes": classes, "confusion": self.confusion.tolist()}


def confusion_matrix(targets: Any, answers: Any, classes: int) -> Array:
    """Examples by (true class, predicted class), (C, C) int64."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (np.asarray(targets), np.asarray(answers)), 1)
    return matrix


def per_class(confusion: Array) -> list[dict[str, float | int]]:
    """Precision, recall, F1 and number of examples of each class; 0 where a ratio is 0 / 0."""
    hits = np.diag(confusion).astype(float)
    answered, true = confusion.sum(0), confusion.sum(1)
    columns = (_ratio(hits, answered), _ratio(hits, true), _ratio(2 * hits, answered + true), true)
    return [
        {"precision": float(p), "recall": float(r), "f1": float(f), "examples": int(n)}
        for p, r, f, n in zip(*columns, strict=True)
    ]


def macro_f1(confusion: Array) -> float:
    """Mean F1 of the classes that occur, as a truth or as an answer; NaN if none does.

    A class that nobody has and nobody answers has no F1; scikit-learn's f1_score leaves it out too.
    """
    occurs = (confusion.sum(0) + confusion.sum(1)) > 0
    scores = [row["f1"] for row, here in zip(per_class(confusion), occurs, strict=True) if here]
    return float(np.mean(scores)) if scores else math.nan


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _checked(probabilities: Any, targets: Any, classes: int) -> tuple[Array, Array]:
    chances = _array(probabilities).astype(float)
    truth = _array(targets)
    if chances.shape != (len(truth), classes) or truth.ndim != 1:
        raise ShapeError(
            f"expected probabilities (B, {classes}) and targets (B,), found {chances.shape} and "
            f"{truth.shape}"
        )
    if truth.size and not np.issubdtype(truth.dtype, np.integer):
        raise ShapeError(f"expected targets as integers, found {truth.dtype}")
    sums = chances.sum(1)
    if chances.size and not (chances.min() >= 0 and np.abs(sums - 1).max() <= _ROUNDING):
        raise DataError("expected probabilities of 0 or more with sum 1: apply a softmax first")
    if truth.size and not (truth.min() >= UNKNOWN and truth.max() < classes):
        found = f"{int(truth.min())} to {int(truth.max())}"
        raise DataError(f"expected targets from 0 to {classes - 1}, found {found}")
    return chances, truth


def _array(values: Any) -> Array:
    """The values of a tensor of any device and dtype, or of anything numpy takes."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)
