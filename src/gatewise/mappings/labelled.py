"""A sequence -> vector model and its labelled sequences: what the training loop sees, and evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError
from gatewise.mappings.examples import BatchOptions, Order, in_order
from gatewise.mappings.learner import Batch, Figures, Loss
from gatewise.mappings.seq_to_vec import SequenceToVector
from gatewise.modes import evaluating
from gatewise.text.ragged import Ragged, lengths_of
from gatewise.types import State

Array = np.ndarray[Any, np.dtype[Any]]


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


class VectorTally(Figures, Protocol):
    """Adds up what a model says of sequences; `metrics.classes.ClassTally` is one."""

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Scores (B, K) of a batch, and its targets."""


class VectorLearner:
    """Trains a SequenceToVector; implements `mappings.Learner`.

    Args:
        model: on the device where it is to be trained.
        parts: "train", and perhaps "valid" and "test".
        options: batches.
        tally: makes what an evaluation adds up in.
        class_weights: factor of each class in the cost; None: all 1.
        kind: the mapping's name on the command line.
        seed: of the order of the examples.
        engine: name of an engine, or "auto".

    Attributes:
        extra: what else a checkpoint should say of the run, by name; JSON-able.
        tokenizer: its JSON, or None.

    Raises:
        OptionError: if an option is outside its range.
        DataError: if there is nothing to train on.
    """

    unit = "examples"

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
        self.model, self.parts, self.kind, self.engine = model, parts, kind, engine
        self.options = options or BatchOptions()
        self.options.validate()
        self.extra: dict[str, Any] = {}
        self.tokenizer: str | None = None
        self._tally = tally
        self._weights = None if class_weights is None else torch.tensor(class_weights)
        if "train" not in parts or not len(parts["train"]):
            raise DataError("expected at least one sequence to train on, found none")
        lengths = parts["train"].inputs.lengths
        self._order = Order(lengths, self.options.batch_size, self.options.bucket, seed)

    @property
    def positions(self) -> int:
        """Examples of an epoch."""
        return len(self._order)

    @property
    def uniform_nats(self) -> float | None:
        """ln K of K classes."""
        config = self.model.config
        return math.log(config.outputs) if config.target == "class" else None

    def batch(self, epoch: int, position: int) -> Batch:
        """The examples of the batch that begins at `position`."""
        rows = self._order.rows(epoch, position)
        stop = position + len(rows)
        name = f"examples {position} to {stop} of epoch {epoch + 1}"
        return Batch(self.collate(self.parts["train"], rows), stop, 0, len(rows), name=name)

    def collate(self, part: Labelled, rows: Array) -> tuple[Tensor, ...]:
        """x (T, B, ...), lengths (B,) and targets: where the model is."""
        device = self.model.decoder.weight.device
        x = part.inputs.padded(rows)
        x = x if x.is_floating_point() else x.long()
        targets = torch.from_numpy(part.targets[rows])
        return x.to(device), lengths_of(part.inputs, rows).to(device), targets.to(device)

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean cost of the batch's targets; no state is carried."""
        x, lengths, targets = batch.inputs
        loss, out = self.model.loss(x, lengths, targets, self._weights, engine=self.engine)
        return Loss(loss, loss.detach(), None, out.engine)

    def has_part(self, part: str) -> bool:
        """Whether there is an example in `part`."""
        return part in self.parts and len(self.parts[part]) > 0

    @torch.no_grad()
    def evaluate(self, part: str, stopped: Callable[[], bool] = lambda: False) -> Figures | None:
        """What the model says of `part`, beside its targets."""
        if not self.has_part(part):
            raise DataError(f"expected examples in the {part!r} part, found none")
        found, tally = self.parts[part], self._tally()
        with evaluating(self.model):
            for rows in in_order(found.inputs.lengths, self.options.eval_batch_size):
                if stopped():
                    return None
                x, lengths, targets = self.collate(found, rows)
                tally.add(self.model(x, lengths, engine=self.engine).scores, targets)
        return tally

    def config(self) -> dict[str, Any]:
        """Model and data, as a checkpoint keeps them."""
        return self.extra | {
            "mapping": self.kind,
            "model": self.model.config.to_dict(),
            "batches": dataclasses.asdict(self.options),
            "data": {"examples": {name: len(part) for name, part in self.parts.items()}},
        }

    def tokenizer_json(self) -> str | None:
        """The tokenizer of texts."""
        return self.tokenizer


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
