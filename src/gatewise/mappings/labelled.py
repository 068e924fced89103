"""A sequence -> vector model and its labelled sequences: what the training loop sees, and evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError
from gatewise.mappings.examples import BatchOptions, in_order
from gatewise.mappings.learner import Batch, Figures, Loss
from gatewise.mappings.learning import Array, ExampleLearner
from gatewise.mappings.seq_to_vec import SequenceToVector
from gatewise.modes import evaluating
from gatewise.probe import Control
from gatewise.text.ragged import Ragged, lengths_of
from gatewise.types import State


@dataclass(frozen=True, eq=False)
class Labelled:
    """Sequences and what is to be said of each: one part of a data set.

    Args:
        inputs: ids, or numbers (T_k, channels) with NaN where one is missing.
        targets: classes (n,) int64, or numbers (n, K) float32, NaN where one is not known.
    Raises:
        DataError: if there are not as many of one as of the other.
    """

    inputs: Ragged
    targets: Array

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise DataError(
                f"expected a target for each sequence, found {len(self.inputs)} sequences and "
                f"{len(self.targets)} targets"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def sizes(self) -> Array:
        """What batches are sorted by: the sequence's length."""
        return self.inputs.lengths


class VectorTally(Figures, Protocol):
    """Adds up what a model says of sequences: `metrics.classes.ClassTally`, `metrics.numbers.NumberTally`."""

    def add(self, said: Tensor, targets: Tensor, /) -> None:
        """Probabilities of classes, or numbers, (B, K), and the targets of a batch."""


class VectorLearner(ExampleLearner[Labelled, VectorTally]):
    """Trains a SequenceToVector; implements `mappings.Learner`.

    Args:
        model, parts, options, kind, seed, engine: as of `ExampleLearner`.
        tally: makes what an evaluation adds up in.
        class_weights: factor of each class in the cost; None: all 1.

    Attributes:
        tokenizer: its JSON, or None.
    """

    noun = "examples"

    def __init__(
        self,
        model: SequenceToVector,
        parts: Mapping[str, Labelled],
        options: BatchOptions | None = None,
        *,
        tally: Callable[[], VectorTally],
        class_weights: Sequence[float] | None = None,
        kind: str = "classify",
        seed: int = 1,
        engine: str = "auto",
    ) -> None:
        super().__init__(model, parts, options, kind=kind, seed=seed, engine=engine)
        self.model = model
        self.tokenizer: str | None = None
        self._tally = tally
        self._weights = None if class_weights is None else torch.tensor(class_weights)

    @property
    def uniform_nats(self) -> float | None:
        """ln K of K classes."""
        config = self.model.config
        return math.log(config.outputs) if config.target == "class" else None

    def collate(self, part: Labelled, rows: Array) -> tuple[Tensor, ...]:
        """x (T, B, ...), lengths (B,) and targets: where the model is."""
        device = self.model.decoder.weight.device
        x = part.inputs.padded(rows)
        x = x if x.is_floating_point() else x.long()
        targets = torch.from_numpy(part.targets[rows])
        return x.to(device), lengths_of(part.inputs, rows).to(device), targets.to(device)

    def count(self, inputs: tuple[Tensor, ...]) -> int:
        """Examples."""
        return len(inputs[-1])

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean cost of the batch's targets."""
        x, lengths, targets = batch.inputs
        loss, out = self.model.loss(x, lengths, targets, self._weights, engine=self.engine)
        return Loss(loss, loss.detach(), None, out.engine)

    def tally(self) -> VectorTally:
        """A new one, as asked for."""
        return self._tally()

    def measure(self, tally: VectorTally, part: Labelled, rows: Array) -> None:
        """What the model says of those sequences, beside their targets."""
        x, lengths, targets = self.collate(part, rows)
        scores = self.model(x, lengths, engine=self.engine).scores
        # classes are told by probabilities, which is what a tally of classes adds up
        tally.add(scores.softmax(-1) if self.model.config.target == "class" else scores, targets)

    def model_config(self) -> dict[str, Any]:
        """The classifier's."""
        return self.model.config.to_dict()

    def tokenizer_json(self) -> str | None:
        """The tokenizer of texts."""
        return self.tokenizer


@torch.inference_mode()
def said_of(
    model: SequenceToVector,
    inputs: Ragged,
    *,
    engine: str = "auto",
    control: Control | None = None,
    batch_size: int = 128,
) -> Array:
    """What a model says of sequences, (n, K) float64: probabilities of classes, or numbers.

    Args:
        model: on the device where it is to run.
        inputs: ids or numbers.
        engine: of the recurrent layers.
        control: what to set in the gates.
        batch_size: sequences at once; changes speed and memory only.
    """
    found = np.empty((len(inputs), model.config.outputs))
    device = model.decoder.weight.device
    with evaluating(model):
        for rows in in_order(inputs.lengths, batch_size) if len(inputs) else ():
            x = inputs.padded(rows).to(device)
            x = x if x.is_floating_point() else x.long()
            out = model(x, lengths_of(inputs, rows).to(device), engine=engine, control=control)
            scores = out.scores.double()
            chances = scores.softmax(-1) if model.config.target == "class" else scores
            found[rows] = chances.cpu().numpy()
    return found


def balanced(targets: Array, classes: int) -> list[float]:
    """Factors that let each class count alike: n / (K n_k), 0 for a class that is not there."""
    counts = np.bincount(targets, minlength=classes)
    present = counts > 0
    weights = np.where(present, len(targets) / np.maximum(present.sum() * counts, 1), 0.0)
    found: list[float] = weights.tolist()
    return found


def scales(inputs: Ragged) -> tuple[Tensor, Tensor, bool]:
    """Mean and deviation of each channel, and whether any number is missing: of the training part.

    A channel that never changes, or has no number at all, gets the deviation 1.
    """
    values = inputs.values.astype(np.float64).reshape(len(inputs.values), -1)
    known = np.isfinite(values)
    count = np.maximum(known.sum(0), 1)
    mean = np.where(known, values, 0).sum(0) / count
    spread = np.sqrt((np.where(known, values - mean, 0) ** 2).sum(0) / count)
    spread = np.where(spread > 0, spread, 1.0)
    return (
        torch.from_numpy(mean).float(),
        torch.from_numpy(spread).float(),
        not bool(known.all()),
    )
