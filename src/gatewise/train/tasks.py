"""From options to a learner of a memory task: the task by name, a net of its sizes from the seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gatewise.engine import check_engine
from gatewise.errors import OptionError
from gatewise.mappings.memory import (
    MemoryBatchOptions,
    MemoryLearner,
    MemoryNet,
    MemoryNetConfig,
    MemoryNetOptions,
)
from gatewise.tasks.memory import MemoryTask, open_task
from gatewise.train.build import in_bytes, memory_size, open_device
from gatewise.train.options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class LengthOptions:
    """How hard a task is."""

    length: str | None = None
    """A level or a length, as `gatewise tasks` lists them; default: the task's first."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions(LengthOptions):
    """What is to be learned."""

    task: str = "temporal-order"
    """Its name."""

    def validate(self) -> None:
        """Raise UnknownNameError or OptionError unless there is such a task of such a length."""
        self.opened()

    def opened(self) -> MemoryTask:
        """The task."""
        return open_task(self.task, self.length)


def task_learner(
    options: TaskOptions,
    model: MemoryNetOptions,
    batches: MemoryBatchOptions,
    training: TrainOptions,
    *,
    engine: str = "auto",
) -> MemoryLearner:
    """A new net for a memory task, initialised from the seed.

    Raises:
        UnknownNameError: there is no such task.
        OptionError: an option is outside its range, or training does not fit into memory.
    """
    for part in (options, model, batches, training):
        part.validate()
    check_engine(engine)
    device, task = open_device(training.device), options.opened()
    steps, tested = (
        len(task.batch(part, 0, 64, seed=training.seed).x) for part in ("train", "test")
    )
    config = MemoryNetConfig(
        **vars(model), inputs=len(task.symbols), outputs=task.outputs, longest=steps
    )
    config.validate()
    read = batches.eval_batch_size * max(steps, tested)
    _check_memory(config, batches.batch_size * steps, read, training, device)
    torch.manual_seed(training.seed)
    network = MemoryNet(config).to(device)
    if training.dtype == "float64":
        network = network.double()
    return MemoryLearner(network, task, batches, seed=training.seed, engine=engine)


def _check_memory(
    config: MemoryNetConfig, trained: int, read: int, training: TrainOptions, device: torch.device
) -> None:
    """Raise OptionError, with the estimate, if steps of all columns cannot fit into memory.

    Args:
        trained: steps of a batch, all columns.
        read: steps of an evaluation.
    """
    available = memory_size(device)
    size = 8 if training.dtype == "float64" else 4
    units, around = config.num_layers * config.hidden_size, config.inputs + 2 * config.outputs
    weights = 4 * config.num_layers * 8 * config.hidden_size**2 * size
    learned = trained * (8 * units + around) * size
    # judged in double precision, in some copies; drawn as whole numbers (measured)
    judged = read * ((4 * units + 2 * config.inputs) * size + 64 * config.outputs + 128)
    activations = max(learned, judged)
    if available is not None and weights + activations > available:
        raise OptionError(
            f"training would take about {in_bytes(weights + activations)}, this machine has "
            f"{in_bytes(available)}: choose a smaller --hidden-size, --batch-size or --eval-batch-size"
        )


__all__ = ["LengthOptions", "TaskOptions", "task_learner"]
