"""Linear probes: what all units together say of each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gatewise.errors import DataError, OptionError, ShapeError

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier of states, and how good it is on steps that it was not fitted on.

    Args:
        classes: the labels, K of them.
        weights: (units, K), on units of mean 0 and deviation 1.
        bias: (K,).
        mean, scale: (units,), of the steps that it was fitted on.
        accuracy: share of the held-out steps that it is right on.
        most_frequent: the same for always saying the label that is most frequent where it was fitted.
        balanced: mean of the shares by label (recall), of those that the held-out part has.
    """

    classes: Array
    weights: Array
    bias: Array
    mean: Array
    scale: Array
    accuracy: float
    most_frequent: float
    balanced: float

    def predict(self, values: Array) -> Array:
        """The label of each step, (N,), of values (N, units)."""
        scores = (values - self.mean) / self.scale @ self.weights + self.bias
        found: Array = self.classes[scores.argmax(1)]
        return found


def probe(values: Array, labels: Any, *, share: float = 0.5, ridge: float = 1e-2) -> Probe:
    """A linear probe for an annotation of the steps (Alain & Bengio 2016), by ridge regression on its classes.

    It is fitted on the first part of the steps and measured on the rest, so that neighbours do not tell each other.

    Args:
        values: (N, units), of states or gates.
        labels: (N,), of any kind: yes or no, a number of open brackets, a part of speech.
        share: of the steps that it is fitted on.
        ridge: weight of the penalty, in units of the steps.
    Raises:
        ShapeError: there are not as many labels as steps.
        DataError: the first part has one label only, or there is no second part.
        OptionError: share or ridge is outside its range.
    """
    given = np.asarray(labels)
    if values.ndim != 2 or given.shape != values.shape[:1]:
        raise ShapeError(
            f"expected values (N, units) and labels (N,), found {values.shape} and {given.shape}"
        )
    if not 0 < share < 1 or not ridge > 0:
        raise OptionError(
            f"expected a share between 0 and 1 and a ridge above 0, found {share} and {ridge}"
        )
    cut = int(len(values) * share)
    classes, known = np.unique(given[:cut], return_inverse=True)
    if len(classes) < 2 or cut >= len(values):
        raise DataError(
            f"expected at least two labels in the first {cut:,} steps, found {len(classes)}: choose a longer text "
            "or another annotation"
        )
    fitted = values[:cut].astype(np.float64)
    mean, scale = fitted.mean(0), np.maximum(fitted.std(0), 1e-6)
    fitted = (fitted - mean) / scale
    targets = np.eye(len(classes))[known.reshape(-1)]
    bias = targets.mean(0)
    gram = fitted.T @ fitted + ridge * cut * np.eye(fitted.shape[1])
    weights = np.linalg.solve(gram, fitted.T @ (targets - bias))
    frequent = classes[targets.sum(0).argmax()]
    found = Probe(classes, weights, bias, mean, scale, 0.0, 0.0, 0.0)
    said, true = found.predict(values[cut:]), given[cut:]
    recalls = [float((said[true == one] == one).mean()) for one in np.unique(true)]
    return Probe(
        classes,
        weights,
        bias,
        mean,
        scale,
        accuracy=float((said == true).mean()),
        most_frequent=float((true == frequent).mean()),
        balanced=float(np.mean(recalls)),
    )
