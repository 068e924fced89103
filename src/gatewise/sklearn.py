"""Estimators of scikit-learn (the extra `sklearn`): classes and numbers of sequences.

They take texts, arrays (n, T, channels), arrays (n, T) of one channel, and lists of (T, channels) arrays of
unequal lengths; NaN is a missing value, and steps without any value at the end of a row of an array are
behind its end.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gatewise.checkpoint import RunFolder, load_checkpoint
from gatewise.errors import DataError, OptionError
from gatewise.mappings.config import MAX_SIZE
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.labelled import said_of
from gatewise.mappings.seq_to_vec import VectorOptions
from gatewise.tasks.labelled import Examples
from gatewise.tasks.names import split_rows
from gatewise.text.ragged import Ragged
from gatewise.train import TrainOptions, train
from gatewise.train.labelled import ReadingOptions, vector_learner

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data
except ImportError:  # pragma: no cover
    raise OptionError(
        "gatewise.sklearn needs scikit-learn 1.6 or later, which is not installed: run "
        "pip install 'gatewise[sklearn]'"
    ) from None

__all__ = ["SequenceClassifier", "SequenceRegressor"]

_WEIGHTS = {None: "none", "balanced": "balanced", "root": "root"}


class _SequenceEstimator(BaseEstimator):  # type: ignore[misc]
    """What both have in common."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags

    def _examples(self, X: Any, *, reset: bool) -> Examples:
        """X as texts or series; a fitted estimator takes what it was fitted on."""
        if isinstance(X, str):
            raise DataError("expected several texts, found one: put it in a list")
        if not hasattr(X, "__len__"):
            X = np.asarray(X)
        several = isinstance(X, (list, tuple)) or getattr(X, "dtype", None) == np.dtype(object)
        if len(X) and _is_text(X):
            return Examples([str(one) for one in X])
        if several and len(X) and all(np.ndim(one) == 2 or _is_series(one) for one in X):
            return _ragged(X)
        if getattr(X, "ndim", 2) == 3:
            x = check_array(X, allow_nd=True, ensure_all_finite="allow-nan", dtype=np.float32)
        else:
            x = validate_data(
                self, X, reset=reset, ensure_all_finite="allow-nan", dtype=np.float32
            )[..., None]
        known = ~np.isnan(x).all(axis=2)
        ends = np.where(known.any(1), x.shape[1] - known[:, ::-1].argmax(1), 0)
        return _of(
            Ragged.of([one[:end] for one, end in zip(x, ends, strict=True)], np.float32), x.shape[2]
        )

    def _fit(
        self,
        examples: Examples,
        smoothing: float = 0.0,
        weights: str = "none",
        factors: list[float] | None = None,
    ) -> None:
        """Train in a folder that is thrown away."""
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(1 << 31)
        parts = self._parts(examples, int(seed))
        reading, model, training = self._options(parts, int(seed), smoothing, weights)
        with torch.random.fork_rng(), tempfile.TemporaryDirectory() as place:
            learner, _ = vector_learner(
                parts,
                reading,
                model,
                BatchOptions(batch_size=self.batch_size),
                training,
                class_weights=factors,
                engine=self.engine,
            )
            with RunFolder.create(Path(place) / "run") as folder:
                result = train(learner, folder, training)
                if "valid" in parts:
                    best = load_checkpoint(folder.path, "best").tensors
                    learner.model.load_state_dict({n: t.clone() for n, t in best.items()})
        self.model_, self.reader_ = learner.model.eval(), learner.reader
        self.n_iter_ = math.ceil(result.epochs)

    def _parts(self, examples: Examples, seed: int) -> dict[str, Examples]:
        """What is trained on, and what the weights are chosen on."""
        if not self.validation_fraction:
            if self.patience is not None:
                raise OptionError(
                    f"patience: expected None or a validation_fraction above 0, found {self.patience} "
                    "and nothing to measure on"
                )
            return {"train": examples}
        rows = split_rows(examples.keys, examples.outcomes, self.validation_fraction, seed)
        first, second = (examples.take(side) for side in rows)
        return {"train": first, "valid": second} if len(second) else {"train": first}

    def _options(
        self, parts: dict[str, Examples], seed: int, smoothing: float, weights: str
    ) -> tuple[ReadingOptions, VectorOptions, TrainOptions]:
        """The parameters as options."""
        steps = math.ceil(len(parts["train"]) / self.batch_size) * self.epochs
        reading = ReadingOptions(
            tokenizer=self.tokenizer,
            lowercase=self.lowercase,
            max_length=MAX_SIZE,  # nobody would see that something was cut
            class_weights=weights,
            jitter=self.jitter,
            unknown_rate=self.unknown_rate,
        )
        model = VectorOptions(
            cell=self.cell,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            readout=self.readout,
            embedding_size=self.embedding_size,
            dropout=self.dropout,
            smoothing=smoothing,
        )
        training = TrainOptions(
            epochs=float(self.epochs),
            lr=self.lr,
            weight_decay=self.weight_decay,
            schedule="cosine",
            warmup=min(50, steps // 10),
            patience=self.patience if "valid" in parts else None,
            checkpoint_seconds=0,
            keep=1,
            seed=seed,
            device=self.device,
        )
        return reading, model, training

    def _said(self, X: Any) -> Any:
        check_is_fitted(self, "model_")
        inputs = self.reader_.inputs(self._examples(X, reset=False))
        return said_of(self.model_, inputs, engine=self.engine)


class SequenceClassifier(ClassifierMixin, _SequenceEstimator):  # type: ignore[misc]
    """A recurrent classifier of texts and series.

    Args:
        cell, hidden_size, num_layers, bidirectional, readout, embedding_size, dropout, smoothing: the
            model, as `VectorOptions` has them.
        tokenizer, lowercase, unknown_rate: of texts; jitter: of series; as `ReadingOptions` has them.
        class_weight: None, "balanced", "root" of that, or a mapping from classes to factors.
        epochs, batch_size, lr, weight_decay: of training; the rate falls along a cosine.
        validation_fraction: share that the weights are chosen on; 0: the last ones are kept.
        patience: stop after so many epochs that are no better on it.
        random_state: seed of the weights, of all noise and of the validation part.
        device, engine: where and how it runs.
    Attributes:
        classes_: labels, in the order of the probabilities.
        model_: the `SequenceToVector`.
        n_iter_: epochs.
    """

    def __init__(
        self,
        *,
        cell: str = "lstm",
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = True,
        readout: str = "mean",
        embedding_size: int = 64,
        dropout: float = 0.1,
        smoothing: float = 0.0,
        tokenizer: str = "char",
        lowercase: bool = False,
        unknown_rate: float = 0.0,
        jitter: float = 0.0,
        class_weight: str | dict[Any, float] | None = None,
        epochs: int = 30,
        batch_size: int = 32,
        lr: float = 4e-3,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        random_state: Any = None,
        device: str = "cpu",
        engine: str = "auto",
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.readout = readout
        self.embedding_size = embedding_size
        self.dropout = dropout
        self.smoothing = smoothing
        self.tokenizer = tokenizer
        self.lowercase = lowercase
        self.unknown_rate = unknown_rate
        self.jitter = jitter
        self.class_weight = class_weight
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.device = device
        self.engine = engine

    def fit(self, X: Any, y: Any) -> SequenceClassifier:
        """Train on sequences and their classes."""
        examples = self._examples(X, reset=True)
        y = _outcomes(y, len(examples))
        if y.dtype.kind == "f":
            check_array(y, ensure_2d=False, dtype=None, input_name="y")
        check_classification_targets(y)
        self.classes_, places = np.unique(y, return_inverse=True)
        labels = [f"{place:09d}" for place in places]  # names that sort as the classes do
        known = Examples(examples.texts, examples.series, examples.channels, labels)
        self._fit(known, self.smoothing, *self._weights())
        return self

    def _weights(self) -> tuple[str, list[float] | None]:
        """The name of the weights, and those of a mapping."""
        asked = self.class_weight
        if isinstance(asked, dict):
            return "none", [float(asked.get(label, 1.0)) for label in self.classes_.tolist()]
        if asked not in _WEIGHTS:
            raise OptionError(
                "class_weight: expected None, 'balanced', 'root' or a mapping from classes to "
                f"numbers, found {asked!r}"
            )
        return _WEIGHTS[asked], None

    def predict_proba(self, X: Any) -> Any:
        """(n, K): the probability of each class."""
        return self._said(X)

    def predict(self, X: Any) -> Any:
        """The most probable class of each."""
        said = self._said(X)
        return self.classes_[said.argmax(1)]


class SequenceRegressor(RegressorMixin, _SequenceEstimator):  # type: ignore[misc]
    """A recurrent regressor of texts and series; see `SequenceClassifier`."""

    def __init__(
        self,
        *,
        cell: str = "lstm",
        hidden_size: int = 64,
        num_layers: int = 1,
        bidirectional: bool = True,
        readout: str = "mean",
        embedding_size: int = 64,
        dropout: float = 0.1,
        tokenizer: str = "char",
        lowercase: bool = False,
        unknown_rate: float = 0.0,
        jitter: float = 0.0,
        epochs: int = 30,
        batch_size: int = 32,
        lr: float = 4e-3,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        random_state: Any = None,
        device: str = "cpu",
        engine: str = "auto",
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.readout = readout
        self.embedding_size = embedding_size
        self.dropout = dropout
        self.tokenizer = tokenizer
        self.lowercase = lowercase
        self.unknown_rate = unknown_rate
        self.jitter = jitter
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.device = device
        self.engine = engine

    def fit(self, X: Any, y: Any) -> SequenceRegressor:
        """Train on sequences and their numbers."""
        examples = self._examples(X, reset=True)
        targets = check_array(
            _outcomes(y, len(examples)), ensure_2d=False, dtype=np.float64, input_name="y"
        )
        known = Examples(examples.texts, examples.series, examples.channels, None, targets)
        self._fit(known)
        return self

    def predict(self, X: Any) -> Any:
        """The number of each."""
        return self._said(X)[:, 0]


def _outcomes(y: Any, count: int) -> Any:
    """y (n,), one for each sequence."""
    if y is None:
        raise DataError("requires y to be passed, but the target y is None")
    found = column_or_1d(y, warn=True)
    if len(found) != count:
        raise DataError(f"expected as many y as sequences, {count}, found {len(found)}")
    return found


def _is_text(X: Any) -> bool:
    if getattr(X, "ndim", 1) != 1:
        return False
    return all(isinstance(one, str) for one in X)


def _is_series(one: Any) -> bool:
    return isinstance(one, np.ndarray) and one.ndim == 1 and one.dtype != object


def _ragged(X: Any) -> Examples:
    """Arrays (T, channels), or (T,), of unequal lengths."""
    series = [np.asarray(one, np.float32) for one in X]
    series = [one[:, None] if one.ndim == 1 else one for one in series]
    widths = sorted({one.shape[1] for one in series})
    if len(widths) > 1:
        raise DataError(f"expected series of one number of channels, found {widths}")
    if any(np.isinf(one).any() for one in series):
        raise DataError("expected finite numbers, NaN where one is missing, found infinity")
    return _of(Ragged.of(series, np.float32), widths[0])


def _of(series: Ragged, width: int) -> Examples:
    return Examples(None, series, [f"channel_{k}" for k in range(width)])
