"""A trained run of a memory task."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gatewise.checkpoint import Checkpoint
from gatewise.errors import CheckpointError, DataError, GatewiseError
from gatewise.mappings.memory import (
    MemoryNet,
    MemoryNetConfig,
    MemoryOutput,
    examine,
    run_net,
)
from gatewise.metrics.memory import MemoryTally
from gatewise.modes import evaluating
from gatewise.probe import Control, Record
from gatewise.run.base import Run, fill
from gatewise.tasks.memory import MemoryBatch, MemoryTask, open_task


class TaskRun(Run):
    """A net that was trained on a memory task.

    Args:
        checkpoint: where it comes from.
        model: with its weights, in evaluation mode.
    Attributes:
        task: what it was trained on.
        seed: of its sequences.
    """

    mapping = "task"
    verbs = ("evaluate", "read")
    model: MemoryNet

    def __init__(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        super().__init__(checkpoint, model)
        data: dict[str, Any] = checkpoint.config["data"]
        self.task: MemoryTask = open_task(data["task"], data["length"])
        self.seed = int(data["seed"])

    def evaluate(
        self,
        part: str = "test",
        *,
        batch_size: int = 500,
        engine: str = "auto",
        control: Control | None = None,
    ) -> MemoryTally:
        """How right it is on sequences that training never saw.

        Args:
            part: "test" or "valid"; as many as the task's success looks at.
            batch_size: sequences at a time.
            engine: name of an engine, or "auto".
            control: what to set.
        Raises:
            DataError: there is no such part.
        """
        found = examine(
            self.model, self.task, part, batch_size, self.seed, engine=engine, control=control
        )
        assert found is not None
        return found

    def read(
        self,
        batch: MemoryBatch | None = None,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> MemoryOutput:
        """What it makes of sequences at every step, gates and states included.

        Args:
            batch: of `run.task.batch`; default: the first of the test.
            record: what to read.
            control: what to set.
            engine: name of an engine, or "auto".
        """
        if batch is None:
            batch = self.task.batch("test", 0, 1, seed=self.seed)
        if batch.x.shape[-1] != len(self.task.symbols):
            raise DataError(
                f"expected a batch of {self.task.name}, {len(self.task.symbols)} wide, found "
                f"{tuple(batch.x.shape)}"
            )
        moved = MemoryBatch(*(one.to(self.device) for one in batch))
        with evaluating(self.model), torch.no_grad():
            return run_net(self.model, moved, engine=engine, record=record, control=control)


def build(checkpoint: Checkpoint) -> tuple[type[TaskRun], nn.Module]:
    """The model of a checkpoint of mapping "task", with its weights."""
    values, data = (checkpoint.config.get(name) or {} for name in ("model", "data"))
    try:
        open_task(str(data.get("task")), data.get("length"))
        if type(data.get("seed")) is not int:
            raise DataError(f"expected the seed of its sequences, found {data.get('seed')!r}")
        with torch.device("meta"):
            model = MemoryNet(MemoryNetConfig.from_dict(values))
    except GatewiseError as error:
        raise CheckpointError(f"{checkpoint.path}: not a run of a task: {error}") from None
    fill(model, checkpoint)
    return TaskRun, model


__all__ = ["TaskRun", "build"]
