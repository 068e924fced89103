"""What a memory task is: sequences by number, in parts that share none, and when one of them is right.

Batch k of a part is a function of seed, part and k alone, and each is new: nothing is repeated as in a fixed
training set. The part of a sequence is a hash of the sequence itself, so that training, validation and test
cannot share one, however few there are. It knows arrays and judges outputs; it knows no model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gatewise.errors import DataError, OptionError
from gatewise.tasks.programs import stream

Array: TypeAlias = "NDArray[Any]"

PADDED = -1
"""Stands in a row of symbols after its end."""

LONGEST = 100_000

_TENTHS = {"train": range(8), "valid": range(8, 9), "test": range(9, 10)}
_ROUNDS = 2_000


@dataclass(frozen=True)
class Published:
    """The protocol of a task, in words.

    Args:
        source: the paper and its experiment.
        lengths: of the sequences.
        data: what is trained and tested on.
        success: when it counts as solved; what is of this project says so.
    """

    source: str
    lengths: str
    data: str
    success: str


@dataclass(frozen=True)
class Success:
    """When a model has solved a task: so many of so many fresh sequences are right.

    Args:
        sequences: how many are looked at.
        share: of them that must be right.
        error: what the mean absolute error of the outputs must be below, too.
        training: the share that ends training, where the test has longer sequences; default: the same.
    """

    sequences: int
    share: float
    error: float | None = None
    training: float | None = None

    @property
    def enough(self) -> float:
        """The share of validation sequences that ends training."""
        return self.share if self.training is None else self.training


class Sequences(NamedTuple):
    """Sequences as they are drawn, batch first.

    Attributes:
        inputs: symbols (N, T), PADDED after a row's end, or float32 numbers (N, T, I).
        targets: classes (N, T) or numbers (N, T, K); whatever where nothing is asked.
        mask: the steps that count, (N, T).
        lengths: (N,).
    """

    inputs: Array
    targets: Array
    mask: Array
    lengths: Array


class MemoryBatch(NamedTuple):
    """Sequences for a model, time first.

    Attributes:
        x: one-hot symbols or numbers, (T, B, I) float32; 0 after a column's end.
        targets: classes (T, B) int64, or numbers (T, B, K) float32; 0 where nothing is asked.
        mask: the steps that count, (T, B) bool.
        lengths: of the columns, (B,) int64.
    """

    x: Tensor
    targets: Tensor
    mask: Tensor
    lengths: Tensor


class MemoryTask(ABC):
    """A task of one length.

    Args:
        length: a name or a number in words, as the task has it. Default: the first of `lengths`.
    Attributes:
        name, summary: for people and the command line.
        published: its protocol.
        success: when it is solved.
        lengths: the published ones.
        symbols: names of the inputs: of one-hot symbols, or of channels of numbers.
        classes: names of the classes; none where the target is a number.
        tolerance: an output is right if its absolute error is below it, each class's probability taken as an
            output; None: if the right class has the largest.
        numeric: whether the inputs are numbers.
        carried: whether batch k + 1 goes on where k ended, so that the state is to be carried.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    published: ClassVar[Published]
    success: ClassVar[Success]
    lengths: ClassVar[tuple[str, ...]]
    symbols: ClassVar[tuple[str, ...]]
    classes: ClassVar[tuple[str, ...]] = ()
    tolerance: ClassVar[float | None] = None
    numeric: ClassVar[bool] = False
    carried: ClassVar[bool] = False

    def __init__(self, length: str | int | None = None) -> None:
        self.length = self.lengths[0] if length is None else str(length)

    @property
    def outputs(self) -> int:
        """Numbers that a model gives at a step: a score a class, or the number asked for."""
        return len(self.classes) or 1

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int, part: str) -> Sequences:
        """Some sequences, whatever part they are in; `part` only says how long."""

    def batch(self, part: str, index: int, size: int, *, seed: int = 1) -> MemoryBatch:
        """Batch number `index` of a part, the same whenever it is asked for.

        Args:
            part: "train", "valid" or "test"; they share no sequence.
            index: from 0.
            size: columns.
            seed: of all batches.
        Raises:
            UnknownNameError: there is no such part.
            OptionError: a number is out of its range.
            DataError: no sequence of this length is in the part.
        """
        check_numbers(index, size, seed)
        rng = stream(seed, index, part)
        kept: list[Sequences] = []
        found = 0
        for _ in range(_ROUNDS):
            drawn = self.draw(rng, size, part)
            own = np.isin(tenths(drawn.inputs), list(_TENTHS[part]))
            kept.append(Sequences(*(each[own] for each in drawn)))
            found += int(own.sum())
            if found >= size:
                whole = Sequences(*(np.concatenate(one)[:size] for one in zip(*kept, strict=True)))
                return self._tensors(whole)
        raise DataError(
            f"{self.name}: expected sequences of length {self.length} in the part {part!r}, found "
            f"{found} among {_ROUNDS * size:,}: take a greater length"
        )

    def _tensors(self, drawn: Sequences) -> MemoryBatch:
        """Time first, and no longer than the longest."""
        steps = int(drawn.lengths.max())
        inputs, targets, mask = (
            torch.from_numpy(np.ascontiguousarray(one[:, :steps].swapaxes(0, 1)))
            for one in drawn[:3]
        )
        if not self.numeric:
            inputs = one_hot(inputs.long(), len(self.symbols))
        asked = mask if self.classes else mask.unsqueeze(-1)
        kind = torch.int64 if self.classes else torch.float32
        targets = torch.where(asked, targets.to(kind), 0)
        return MemoryBatch(inputs.float(), targets, mask, torch.from_numpy(drawn.lengths).long())

    def errors(self, outputs: Tensor, batch: MemoryBatch) -> Tensor:
        """The largest absolute error among the outputs of a step, (T, B).

        Args:
            outputs: scores of the classes, or the numbers: (T, B, K).
            batch: what was asked.
        """
        if not self.classes:
            return (outputs - batch.targets).abs().amax(-1)
        wanted = torch.nn.functional.one_hot(batch.targets, len(self.classes))
        return (outputs.softmax(-1) - wanted).abs().amax(-1)

    def right(self, outputs: Tensor, batch: MemoryBatch) -> Tensor:
        """Which sequences are right at every step that counts, (B,)."""
        if self.tolerance is None:
            good = outputs.argmax(-1) == batch.targets
        else:
            good = self.errors(outputs, batch) < self.tolerance
        return (good | ~batch.mask).all(0)

    def shown(self, batch: MemoryBatch, column: int) -> tuple[list[str], list[str]]:
        """The inputs and the targets of one sequence in words, a step each; "." where nothing is asked."""
        steps = int(batch.lengths[column])
        x, asked = batch.x[:steps, column], batch.mask[:steps, column].tolist()
        if self.numeric:
            read = [" ".join(f"{value:g}" for value in step) for step in x.double().tolist()]
        else:
            read = [self.symbols[k] for k in x.argmax(-1).tolist()]
        wanted = batch.targets[:steps, column]
        said = (
            [self.classes[k] for k in wanted.tolist()]
            if self.classes
            else [f"{value:g}" for value in wanted[:, 0].double().tolist()]
        )
        return read, [word if here else "." for word, here in zip(said, asked, strict=True)]


def check_numbers(index: int, size: int, seed: int) -> None:
    """Raise OptionError unless all three can number a batch."""
    for word, found, least in (("index", index, 0), ("size", size, 1), ("seed", seed, 0)):
        if found < least:
            raise OptionError(f"{word}: expected a whole number from {least}, found {found}")


def one_hot(symbols: Tensor, count: int) -> Tensor:
    """(T, B) symbols as (T, B, count); PADDED as zeros."""
    table = torch.cat((torch.eye(count), torch.zeros(1, count)))
    return table[symbols.where(symbols != PADDED, count)]


def tenths(inputs: Array) -> Array:
    """0 to 9 for each sequence, by what it holds alone: (N,).

    A multilinear hash modulo 2^64 of symbols, or of the bits of float32 numbers, and SplitMix64's finish.
    """
    if inputs.ndim == 3:
        numbers = np.ascontiguousarray(inputs, np.float32).view(np.uint32).reshape(len(inputs), -1)
        keys = numbers.astype(np.uint64)
    else:
        keys = (inputs.astype(np.int64) - PADDED).astype(np.uint64)
    z = (keys * _factors(keys.shape[1])).sum(1, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    z = z ^ (z >> np.uint64(31))
    found: Array = (z % np.uint64(10)).astype(np.int64)
    return found


def _factors(count: int) -> Array:
    """An odd factor for each place: SplitMix64's sequence."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    odd: Array = (z ^ (z >> np.uint64(31))) | np.uint64(1)
    return odd


def whole(length: str, least: int, most: int = LONGEST) -> int:
    """A length that is a number.

    Raises:
        OptionError: if it is none, or out of its range.
    """
    found = int(length) if length.isascii() and length.isdigit() and len(length) < 10 else -1
    if not least <= found <= most:
        raise OptionError(
            f"--length: expected a whole number from {least} to {most:,}, found {length!r}"
        )
    return found


def last_step(lengths: Array, steps: int) -> Array:
    """The mask that asks at a row's end alone, (N, T)."""
    asked: Array = np.arange(steps) == lengths[:, None] - 1
    return asked


def at_end(values: Sequence[Any] | Array, lengths: Array, steps: int) -> Array:
    """Targets (N, T) that are `values` (N,) at each row's end, and 0 before."""
    found = np.zeros((len(lengths), steps), np.int64)
    found[np.arange(len(lengths)), lengths - 1] = values
    return found
