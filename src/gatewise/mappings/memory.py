"""A net for the memory suite, and its learner: sequences of symbols or numbers in, an answer where one is asked.

    h[t] = Pred(h[t-1], x[t]),  y~[t] = W h[t] + b

The cost is cross-entropy or squared error, on the steps that count. Sequences are new in every batch; the run
ends when the task's success is reached on the validation part.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatewise.errors import DataError, OptionError
from gatewise.mappings.config import check_size, from_dict, to_dict
from gatewise.mappings.learner import Batch, Loss
from gatewise.mappings.recurrent import RecurrentOptions, build_stack, dropped
from gatewise.mappings.starts import check_initialisation, initialise_memory
from gatewise.metrics.memory import MemoryTally
from gatewise.modes import evaluating
from gatewise.probe import Control, Record, Records
from gatewise.tasks.memory import MemoryBatch, MemoryTask
from gatewise.tasks.programs import PARTS
from gatewise.types import State


@dataclass(frozen=True, kw_only=True)
class MemoryNetOptions(RecurrentOptions):
    """Sizes and initial weights of a net for a memory task."""

    initialisation: str = "torch"
    """torch, orthogonal (recurrent weights), identity (of rnn_relu: the IRNN), or chrono (gates that forget
    as slowly as the task asks for)."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        super().validate()
        check_initialisation(self.initialisation, self.cell)
        if self.initialisation == "chrono" and self.forget_bias is not None:
            raise OptionError("--forget-bias: --initialisation chrono sets it; leave one out")


@dataclass(frozen=True, kw_only=True)
class MemoryNetConfig(MemoryNetOptions):
    """Everything that a net is built from; JSON-able by `to_dict`."""

    inputs: int
    """Symbols, or channels of numbers."""

    outputs: int
    """Classes, or numbers."""

    longest: int
    """Steps that the task spans: what chrono initialises for."""

    def validate(self) -> None:
        """Raise OptionError if anything is outside its range."""
        super().validate()
        for name in ("inputs", "outputs", "longest"):
            check_size(name, getattr(self, name))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MemoryNetConfig:
        """The config that `to_dict` wrote; OptionError on what does not belong in it."""
        config = from_dict(cls, values, "memory net")
        config.validate()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return to_dict(self)


@dataclass(frozen=True)
class MemoryOutput:
    """What a net computes.

    Attributes:
        outputs: scores of classes, or numbers: (T, B, K).
        h: the last layer's outputs, (T, B, H).
        state: to go on from.
        record: what was asked for, or None.
        engine: name of the engine that ran.
    """

    outputs: Tensor
    h: Tensor
    state: State
    record: Records | None
    engine: str


class MemoryNet(nn.Module):
    """Recurrent layers and a decoder.

    Args:
        config: sizes and initial weights.
    Raises:
        OptionError: if an option is outside its range.
    """

    def __init__(self, config: MemoryNetConfig) -> None:
        super().__init__()
        config.validate()
        self.config = config
        self.stack = build_stack(config, config.inputs)
        self.decoder = nn.Linear(self.stack.output_size, config.outputs)
        if not self.decoder.weight.is_meta:
            initialise_memory(self.stack, config.initialisation, config.cell, config.longest)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.weight.device

    def forward(
        self,
        x: Tensor,
        state: State = None,
        lengths: Tensor | None = None,
        *,
        start: int = 0,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> MemoryOutput:
        """Outputs at every step.

        Args:
            x: (T, B, I).
            state: of an earlier call; None begins anew.
            lengths: of the columns, (B,); None: all T.
            start: time of the first step.
            engine: name of an engine, or "auto".
            record: what to read.
            control: what to set.
        """
        out = self.stack(
            x.to(self.decoder.weight.dtype),
            state,
            lengths=lengths,
            start=start,
            engine=engine,
            record=record,
            control=control,
        )
        h = dropped(out.h, self.config.dropout, self.training)
        return MemoryOutput(self.decoder(h), out.h, out.state, out.record, out.engine)


@dataclass(frozen=True, kw_only=True)
class MemoryBatchOptions:
    """How sequences are put into batches."""

    batch_size: int = 64
    """Sequences of a step."""

    sequences: int = 6400
    """Sequences of an epoch, each a new one; after it the validation part is read."""

    eval_batch_size: int = 500
    """Sequences that an evaluation takes at a time."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        for field in dataclasses.fields(self):
            check_size(field.name, getattr(self, field.name))


class MemoryLearner:
    """Trains a net on a memory task; implements `mappings.Learner`, `Adapting` and `Ending`.

    Args:
        model: on the device where it is to be trained.
        task: what is learned.
        options: batches.
        seed: of the sequences.
        engine: name of an engine, or "auto".
    Attributes:
        solved_after: training sequences before the evaluation that found the task solved; None: not yet.
    """

    kind = "task"
    unit = "sequences"

    def __init__(
        self,
        model: MemoryNet,
        task: MemoryTask,
        options: MemoryBatchOptions,
        *,
        seed: int = 1,
        engine: str = "auto",
    ) -> None:
        options.validate()
        self.model, self.task, self.options, self.engine = model, task, options, engine
        self.extra: dict[str, Any] = {}
        self.solved_after: int | None = None
        self._seed, self._seen = seed, 0

    @property
    def positions(self) -> int:
        """Batches of an epoch."""
        return math.ceil(self.options.sequences / self.options.batch_size)

    @property
    def uniform_nats(self) -> float | None:
        """ln K of classes."""
        return math.log(self.task.outputs) if self.task.classes else None

    @property
    def ended(self) -> str:
        """The word "solved" when it is."""
        return "" if self.solved_after is None else "solved"

    def batch(self, epoch: int, position: int) -> Batch:
        """Batch number `position` of an epoch; rows without an end begin anew with it."""
        size = self.options.batch_size
        if self.task.carried:
            found = self.task.batch("train", position, size, seed=self._seed + (epoch << 32))
            start = position * len(found.x)
        else:
            found, start = self._drawn("train", epoch * self.positions + position, size), 0
        self._seen = (epoch * self.positions + position + 1) * size
        inputs = tuple(one.to(self.model.device) for one in found)
        name = f"batch {position + 1} of epoch {epoch + 1}"
        return Batch(inputs, position + 1, start, size, name=name)

    def _drawn(self, part: str, index: int, size: int) -> MemoryBatch:
        return self.task.batch(part, index, size, seed=self._seed)

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean cost of the steps that count."""
        found = MemoryBatch(*batch.inputs)
        out = run_net(self.model, found, state, batch.start, engine=self.engine)
        asked, wanted = out.outputs[found.mask], found.targets[found.mask]
        if asked.dtype != torch.float64:
            asked = asked.float()  # under autocast neither scores nor targets are to be rounded
        if not self.task.classes:
            loss = F.mse_loss(asked, wanted.to(asked))
        elif len(wanted):
            loss = F.cross_entropy(asked, wanted)
        else:
            loss = out.h.sum() * 0
        return Loss(loss, loss.detach(), out.state if self.task.carried else None, out.engine)

    def has_part(self, part: str) -> bool:
        """All are made."""
        return part in PARTS[1:]

    def evaluate(
        self, part: str, stopped: Callable[[], bool] = lambda: False
    ) -> MemoryTally | None:
        """What the model makes of as many sequences of a part as the task's success looks at."""
        size = self.options.eval_batch_size
        return examine(self.model, self.task, part, size, self._seed, stopped, engine=self.engine)

    def adapt(self, figures: MemoryTally) -> str | None:
        """Note whether the task is solved."""
        if self.solved_after is not None or not figures.solved(self.task.success.enough):
            return None
        self.solved_after = self._seen
        return (
            f"solved after {self._seen:,} sequences: {figures.right:,} of {figures.sequences:,} "
            f"others are right"
        )

    def adapted(self) -> dict[str, Any]:
        """Whether it is solved, and what was seen."""
        return {"solved_after": self.solved_after, "seen": self._seen}

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from what `adapted` gave."""
        after = state["solved_after"]
        self.solved_after = None if after is None else int(after)
        self._seen = int(state["seen"])

    def config(self) -> dict[str, Any]:
        """Model and data, as a checkpoint keeps them."""
        return self.extra | {
            "mapping": self.kind,
            "model": self.model.config.to_dict(),
            "batches": dataclasses.asdict(self.options),
            "data": {"task": self.task.name, "length": self.task.length, "seed": self._seed},
        }

    def tokenizer_json(self) -> str | None:
        """None: symbols are the task's."""
        return None


def run_net(
    model: MemoryNet,
    batch: MemoryBatch,
    state: State = None,
    start: int = 0,
    *,
    engine: str = "auto",
    record: Record | None = None,
    control: Control | None = None,
) -> MemoryOutput:
    """A batch through a net on the same device; lengths are said only where columns differ."""
    lengths = None if bool((batch.lengths == len(batch.x)).all()) else batch.lengths
    out: MemoryOutput = model(
        batch.x, state, lengths, start=start, engine=engine, record=record, control=control
    )
    return out


@torch.no_grad()
def examine(
    model: MemoryNet,
    task: MemoryTask,
    part: str,
    batch_size: int,
    seed: int,
    stopped: Callable[[], bool] = lambda: False,
    *,
    engine: str = "auto",
    control: Control | None = None,
) -> MemoryTally | None:
    """How right a net is on a part's sequences, as many as the task's success looks at.

    Args:
        model: on any device.
        task: what it was trained on.
        part: "valid" or "test".
        batch_size: sequences at a time.
        seed: that of the training, whose sequences are none of these.
        stopped: None is returned when it becomes true.
        engine, control: as in `gatewise.unroll`.
    Raises:
        DataError: there is no such part.
    """
    if part not in PARTS[1:]:
        raise DataError(f"expected a part of {', '.join(PARTS[1:])}, found {part!r}")
    tally, state, start, index = MemoryTally(task), None, 0, 0
    size = batch_size if task.carried else min(batch_size, task.success.sequences)
    with evaluating(model):
        while tally.sequences < task.success.sequences:
            if stopped():
                return None
            found = task.batch(part, index, size, seed=seed)
            if (
                not task.carried
            ):  # batches are of one size; of the last one only what is missing counts
                left = task.success.sequences - tally.sequences
                x, targets, mask, lengths = found
                found = MemoryBatch(x[:, :left], targets[:, :left], mask[:, :left], lengths[:left])
            found = MemoryBatch(*(one.to(model.device) for one in found))
            out = run_net(model, found, state, start, engine=engine, control=control)
            tally.add(out.outputs, found)
            if task.carried:
                state, start = out.state, start + len(found.x)
            index += 1
    return tally


__all__ = [
    "MemoryBatchOptions",
    "MemoryLearner",
    "MemoryNet",
    "MemoryNetConfig",
    "MemoryNetOptions",
    "MemoryOutput",
    "examine",
    "run_net",
]
