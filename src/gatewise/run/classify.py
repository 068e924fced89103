"""A trained classifier or regressor, ready to read texts and series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.checkpoint import Checkpoint
from gatewise.errors import CheckpointError, DataError, GatewiseError
from gatewise.mappings.labelled import VectorTally, said_of
from gatewise.mappings.seq_to_vec import SequenceToVector, VectorConfig
from gatewise.modes import evaluating
from gatewise.probe import Control, Record, Records
from gatewise.run.base import Run, fill
from gatewise.tasks.labelled import Examples
from gatewise.text.ragged import Ragged, lengths_of
from gatewise.train.labelled import Reader

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_NAMED = 8


@dataclass(frozen=True)
class Prediction:
    """What the model says of one text or series.

    Args:
        label: the most probable class; of a regressor "".
        probabilities: class -> its probability, the most probable first; of a regressor empty.
        value: the number; of a classifier its probability of `label`.
    """

    label: str
    probabilities: dict[str, float]
    value: float

    @property
    def answer(self) -> str | float:
        """The class, or the number."""
        return self.label or self.value


@dataclass(frozen=True)
class VectorReading:
    """A text or series as the model reads it, step by step.

    Args:
        tokens: what is read at each step: tokens, or the numbers of the steps.
        scores: what is said after each step, (T, K): probabilities of the classes, or numbers.
        prediction: what is said in the end.
        weights: (T,) of the attention readout, or None.
        record: what was recorded (batch 1), or None.
        notes: what to tell about the input, a line each.
    """

    tokens: list[str]
    scores: Tensor
    prediction: Prediction
    weights: Tensor | None
    record: Records | None
    notes: list[str]


class ClassifyRun(Run):
    """A run of `gatewise train classify`.

    Attributes:
        model: a `SequenceToVector`.
        reader: tokenizer, channels, classes.
    """

    mapping = "classify"
    verbs = ("classify", "probabilities", "read", "evaluate")
    model: SequenceToVector

    def __init__(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        super().__init__(checkpoint, model)
        values = checkpoint.config.get("reader")
        try:
            if not isinstance(values, dict):
                raise DataError("expected how it reads, found none")
            self.reader = Reader.from_dict(values, checkpoint.tokenizer_json)
        except (CheckpointError, DataError) as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        config, reader = self.model.config, self.reader
        tokens = 0 if reader.tokenizer is None else reader.tokenizer.vocab_size
        classes = config.outputs if config.target == "class" else 0
        expected = (config.vocab_size, config.channels, classes)
        if expected != (tokens, len(reader.channels), len(reader.classes)):
            raise CheckpointError(
                f"{self.path}: expected {expected[0]} tokens, {expected[1]} channels and {expected[2]} "
                f"classes, found {tokens}, {len(reader.channels)} and {len(reader.classes)}: model and "
                "reader do not belong together"
            )

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the model's scores; none of a regressor."""
        return list(self.reader.classes)

    def classify(self, x: Any, *, control: Control | None = None, engine: str = "auto") -> Any:
        """What the model says of one text or series (`Prediction`), or of several (a list).

        Args:
            x: a text, or an array (T, channels) or (T,), NaN where a value is missing; or a list of them.
            control: what to set in the gates.
            engine: of the recurrent layers.
        Raises:
            DataError: if it is not what the model reads.
        """
        one = isinstance(x, str) or (hasattr(x, "ndim") and x.ndim < 3)
        examples = self.examples([x] if one else list(x))
        found = self.predict(examples, control=control, engine=engine)
        return found[0] if one else found

    def predict(
        self, examples: Examples, *, control: Control | None = None, engine: str = "auto"
    ) -> list[Prediction]:
        """What the model says of each example."""
        scores = self.probabilities(examples, control=control, engine=engine)
        return [self.prediction(row) for row in scores]

    def probabilities(
        self, examples: Examples, *, control: Control | None = None, engine: str = "auto"
    ) -> Array:
        """(n, K) float64: probabilities of the classes, or numbers."""
        inputs = self.reader.inputs(examples)
        return said_of(self.model, inputs, engine=engine, control=control)

    def read(
        self,
        x: Any,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> VectorReading:
        """One text or series through the model, and what it says after each step.

        Args:
            x: as of `classify`.
            record: names such as ``layers.0.f``.
            control: what to set, by the same names.
            engine: of the recurrent layers.
        """
        inputs = self.reader.inputs(self.examples([x]))
        batch, lengths = self._batch(inputs, np.array([0]))
        with evaluating(self.model), torch.inference_mode(), self._acting(control):
            out = self.model(batch, lengths, engine=engine, record=record)
            steps = self.model.over_time(batch, engine=engine)
        scores = self._chances(steps[:, 0]).cpu()
        weights = None if out.weights is None else out.weights[:, 0].float().cpu()
        return VectorReading(
            self._tokens(inputs[0]),
            scores,
            self.prediction(self._chances(out.scores)[0].cpu().numpy()),
            weights,
            out.record,
            self.notes_of(x),
        )

    def evaluate(self, examples: Examples, *, engine: str = "auto") -> VectorTally:
        """Figures of what the model says of examples whose classes or numbers are known.

        Raises:
            DataError: if there is no example, or nothing is known of them.
        """
        if not len(examples):
            raise DataError("expected at least one example, found none")
        targets = self.reader.targets(examples)
        tally = self.reader.tally()
        tally.add(torch.from_numpy(self.probabilities(examples, engine=engine)), targets)  # type: ignore[arg-type]
        return tally

    def examples(self, several: Sequence[Any]) -> Examples:
        """Texts, or arrays (T, channels) or (T,), as examples.

        Raises:
            DataError: if one is not what the model reads.
        """
        if self.reader.tokenizer is not None:
            for one in several:
                if not isinstance(one, str):
                    raise DataError(f"expected a text, as the model reads, found {_kind(one)}")
            return Examples(list(several))
        width = len(self.reader.channels)
        return Examples(
            None,
            Ragged.of([_series(one, width) for one in several], np.float32),
            list(self.reader.channels),
        )

    def notes_of(self, x: Any) -> list[str]:
        """What to tell about a text or series: what the model does not know of it, or leaves out."""
        notes, most = [], self.reader.max_length
        tokenizer = self.reader.tokenizer
        if tokenizer is not None:
            text = x.lower() if self.reader.lowercase else x
            unknown, size = tokenizer.unknowns(text), len(tokenizer.encode(text))
            if unknown:
                more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
                notes.append(f"not in the vocabulary: {', '.join(unknown[:_NAMED])}{more}")
        else:
            values = np.asarray(x, np.float32)
            size, missing = len(values), int(np.isnan(values).sum())
            if missing and not self.model.config.marks:
                notes.append(
                    f"{missing:,} values missing, read as the mean: none was missing in training"
                )
        if size > most:
            notes.append(f"only the first {most:,} of {size:,} steps are read")
        if not size:
            notes.append("there is nothing in it")
        return notes

    def _acting(self, control: Control | None) -> Any:
        return self.controlled(control or Control())

    def _batch(self, inputs: Ragged, rows: Array) -> tuple[Tensor, Tensor]:
        return inputs.padded(rows).to(self.device), lengths_of(inputs, rows).to(self.device)

    def _chances(self, scores: Tensor) -> Tensor:
        return scores.double().softmax(-1) if self.reader.classes else scores.double()

    def prediction(self, row: Array) -> Prediction:
        """A row of `probabilities` by name."""
        if not self.reader.classes:
            return Prediction("", {}, float(row[0]))
        order = np.argsort(-row, kind="stable")
        chances = {self.reader.classes[k]: float(row[k]) for k in order}
        label = self.reader.classes[order[0]]
        return Prediction(label, chances, chances[label])

    def _tokens(self, steps: Array) -> list[str]:
        if self.reader.tokenizer is not None:
            return [self.reader.tokenizer.tokens[int(k)] for k in steps]
        return [" ".join(f"{value:.4g}" for value in row) for row in steps]


def _series(one: Any, width: int) -> Array:
    """(T, channels) float32.

    Raises:
        DataError: if it is not.
    """
    try:
        values: Array = np.asarray(one, np.float32)
    except (TypeError, ValueError):
        values = np.empty(())
    if values.ndim == 1 and width == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] != width:
        raise DataError(
            f"expected a series (steps, {width}), as the model reads, found {_kind(one)}"
        )
    if np.isinf(values).any():
        raise DataError("expected finite numbers, NaN where one is missing, found infinity")
    return values


def _kind(one: Any) -> str:
    shape = getattr(one, "shape", None)
    return f"{type(one).__name__}" + ("" if shape is None else f" {tuple(shape)}")


def build(checkpoint: Checkpoint) -> tuple[type[ClassifyRun], nn.Module]:
    """The model of a checkpoint of mapping "classify", with its weights."""
    try:
        config = VectorConfig.from_dict(checkpoint.config.get("model") or {})
        with torch.device("meta"):
            model = SequenceToVector(config)
    except GatewiseError as error:
        raise CheckpointError(f"{checkpoint.path}: not a classifier: {error}") from None
    fill(model, checkpoint)
    return ClassifyRun, model
