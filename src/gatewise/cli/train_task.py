"""`gatewise train task NAME`: a memory task to a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from gatewise.cli import screen, settings
from gatewise.cli.options import Engine, Json, flags_of
from gatewise.cli.training import (
    Chosen,
    ConfigFile,
    Form,
    Out,
    Resume,
    check_folder,
    finished,
    run_training,
)
from gatewise.errors import OptionError
from gatewise.mappings.memory import MemoryBatchOptions, MemoryNetOptions
from gatewise.tasks.memory import TASKS
from gatewise.train import TrainOptions
from gatewise.train.tasks import LengthOptions, TaskOptions, task_learner

FORM = Form(
    "task",
    {
        "data": TaskOptions,
        "model": MemoryNetOptions,
        "batches": MemoryBatchOptions,
        "training": TrainOptions,
    },
    "memory",
)

if TYPE_CHECKING:
    LengthFlags: TypeAlias = LengthOptions
    ModelFlags: TypeAlias = MemoryNetOptions
    BatchFlags: TypeAlias = MemoryBatchOptions
    TrainFlags: TypeAlias = TrainOptions
else:
    _FIRST = settings.preset_values(FORM.preset, FORM.mapping)
    LengthFlags = flags_of(LengthOptions, "Task", 1, __name__, _FIRST)
    ModelFlags = flags_of(MemoryNetOptions, "Model", 2, __name__, _FIRST)
    BatchFlags = flags_of(MemoryBatchOptions, "Batches", 3, __name__, _FIRST)
    TrainFlags = flags_of(TrainOptions, "Training", 4, __name__, _FIRST)


@dataclass(frozen=True)
class Settings(Chosen):
    """The options of a run."""

    data: TaskOptions
    model: MemoryNetOptions
    batches: MemoryBatchOptions
    training: TrainOptions


def train_task(
    name: Annotated[
        str | None, Parameter(help="The task; with --resume it may be left out.")
    ] = None,
    /,
    *,
    out: Out,
    preset: Annotated[str | None, Parameter(help=FORM.preset_help())] = None,
    config: ConfigFile = None,
    resume: Resume = False,
    engine: Engine = "auto",
    json: Json = False,
    length: Annotated[LengthFlags, Parameter(name="*")] = LengthFlags(),  # noqa: B008
    model: Annotated[ModelFlags, Parameter(name="*")] = ModelFlags(),  # noqa: B008
    batches: Annotated[BatchFlags, Parameter(name="*")] = BatchFlags(),  # noqa: B008
    training: Annotated[TrainFlags, Parameter(name="*")] = TrainFlags(),  # noqa: B008
) -> int:
    """Train a net on a memory task until it is solved; `gatewise train task --help` says more."""
    check_folder(out, resume=resume)
    flags = (length, model, batches, training)
    values = FORM.values(out if resume else None, preset, config, flags)
    if name is not None:
        values["task"] = name
    elif "task" not in values:
        raise OptionError(f"expected NAME, a task of {', '.join(TASKS)}; found none")
    if resume:
        _check_same(FORM.stored_values(out), values)
    chosen = FORM.settings(Settings, values)
    chosen.validate()
    learner = task_learner(
        chosen.data, chosen.model, chosen.batches, chosen.training, engine=engine
    )
    task = learner.task
    screen.say(f"no data needed: {task.name} {task.length}, made here ({task.summary})")
    result = run_training(learner, chosen.training, out, resume=resume)
    if learner.solved_after is None:
        screen.say("not solved within the limit: more --steps, or another cell or initialisation")
    return finished(result, f"gatewise eval {out}", json=json, unit=learner.unit)


def _check_same(stored: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise OptionError if a run is to be taken up on another task, or length of it."""
    for name in ("task", "length"):
        if stored and found[name] != stored[name]:
            raise OptionError(
                f"--resume: the run was begun with {name} {stored[name]}, found {found[name]}: resume it with "
                "the same, or begin another with a new --out"
            )
