"""What the learners of examples have in common: batches in an order, an evaluation, what a checkpoint says.

A learner says what its parts, batches and figures are (`mappings.Learner` is what the training loop sees).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.errors import DataError
from gatewise.mappings.examples import BatchOptions, Order, in_order
from gatewise.mappings.learner import Batch, Figures, Loss
from gatewise.metrics import Tally
from gatewise.modes import evaluating
from gatewise.text.batches import PADDING
from gatewise.types import State

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


class Part(Protocol):
    """One part of a data set."""

    def __len__(self) -> int: ...

    @property
    def sizes(self) -> Array:
        """What batches are sorted by, (n,)."""


class TextPart(Part, Protocol):
    """A part whose targets are texts."""

    @property
    def characters(self) -> Array | None:
        """Of each target, (n,); None: not counted."""


P = TypeVar("P", bound=Part)
T = TypeVar("T", bound=TextPart)
F = TypeVar("F", bound=Figures)


class ExampleLearner(ABC, Generic[P, F]):
    """Trains a model on examples that stand by themselves; implements `mappings.Learner`.

    Args:
        model: on the device where it is to be trained.
        parts: "train", and perhaps "valid" and "test".
        options: batches.
        kind: the mapping's name on the command line.
        seed: of the order of the examples.
        engine: name of an engine, or "auto".

    Attributes:
        extra: what else a checkpoint should say of the run, by name; JSON-able.

    Raises:
        OptionError: if an option is outside its range.
        DataError: if there is nothing to train on.
    """

    noun: ClassVar[str]
    """What examples are called in messages and in a checkpoint, a regular plural: "pairs"."""
    unit = "examples"

    def __init__(
        self,
        model: nn.Module,
        parts: Mapping[str, P],
        options: BatchOptions | None,
        *,
        kind: str,
        seed: int,
        engine: str,
    ) -> None:
        self.parts, self.kind, self.engine = parts, kind, engine
        self.options = options or BatchOptions()
        self.options.validate()
        self.extra: dict[str, Any] = {}
        self._module = model
        if "train" not in parts or not len(parts["train"]):
            raise DataError(f"expected at least one {self.noun[:-1]} to train on, found none")
        size, bucket = self.options.batch_size, self.options.bucket
        self._order = Order(parts["train"].sizes, size, bucket, seed)

    @property
    def positions(self) -> int:
        """Examples of an epoch."""
        return len(self._order)

    def batch(self, epoch: int, position: int) -> Batch:
        """The examples of the batch that begins at `position`."""
        rows = self._order.rows(epoch, position)
        inputs = self.altered(self.collate(self.parts["train"], rows), epoch, position)
        stop = position + len(rows)
        name = f"{self.noun} {position} to {stop} of epoch {epoch + 1}"
        return Batch(inputs, stop, 0, self.count(inputs), name=name)

    def altered(self, inputs: tuple[Tensor, ...], epoch: int, position: int) -> tuple[Tensor, ...]:
        """A batch as training sees it: here as it is."""
        return inputs

    @abstractmethod
    def collate(self, part: P, rows: Array) -> tuple[Tensor, ...]:
        """Those examples as the model takes them, where it is."""

    @abstractmethod
    def count(self, inputs: tuple[Tensor, ...]) -> int:
        """Predictions in a batch."""

    @abstractmethod
    def loss(self, batch: Batch, state: State) -> Loss:
        """What a step minimises; no state is carried."""

    @abstractmethod
    def tally(self) -> F:
        """What an evaluation adds up in."""

    @abstractmethod
    def measure(self, tally: F, part: P, rows: Array) -> None:
        """Add those examples of a part to what `tally` made."""

    def has_part(self, part: str) -> bool:
        """Whether there is an example in `part`."""
        return part in self.parts and len(self.parts[part]) > 0

    @torch.no_grad()
    def evaluate(self, part: str, stopped: Callable[[], bool] = lambda: False) -> F | None:
        """What the model makes of `part`; None if `stopped()` became true on the way."""
        if not self.has_part(part):
            raise DataError(f"expected {self.noun} in the {part!r} part, found none")
        found, tally = self.parts[part], self.tally()
        with evaluating(self._module):
            for rows in in_order(found.sizes, self.options.eval_batch_size):
                if stopped():
                    return None
                self.measure(tally, found, rows)
        return tally

    def data(self) -> dict[str, Any]:
        """What a checkpoint says of the data, JSON-able."""
        return {self.noun: {name: len(part) for name, part in self.parts.items()}}

    @abstractmethod
    def model_config(self) -> dict[str, Any]:
        """What the model is built from, JSON-able."""

    def config(self) -> dict[str, Any]:
        """Model and data, as a checkpoint keeps them."""
        return self.extra | {
            "mapping": self.kind,
            "model": self.model_config(),
            "batches": dataclasses.asdict(self.options),
            "data": self.data(),
        }


class WritingLearner(ExampleLearner[T, Tally]):
    """A learner whose targets are texts; a batch ends with its targets (T, B) and their lengths."""

    unit = "tokens"

    @abstractmethod
    def cost(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, str]:
        """(cost with smoothing, mean nats without, engine) of a batch."""

    def count(self, inputs: tuple[Tensor, ...]) -> int:
        """Tokens that are predicted."""
        return int((inputs[-2] != PADDING).sum())

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean nats of the batch's tokens, smoothing added."""
        loss, nats, engine = self.cost(batch.inputs)
        return Loss(loss, nats, None, engine)

    def tally(self) -> Tally:
        """Nats, tokens and characters."""
        return Tally()

    def measure(self, tally: Tally, part: T, rows: Array) -> None:
        """Each target given what it is of, and the tokens before."""
        inputs = self.collate(part, rows)
        _, nats, _ = self.cost(inputs)
        written = 0 if part.characters is None else int(part.characters[rows].sum())
        tally.add(nats, self.count(inputs), written)
