"""`gatewise train execute`: generated programs, sums and rows of digits to a run folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from gatewise.cli import screen, settings
from gatewise.cli.options import Engine, Json, flags_of, given
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
from gatewise.mappings.course import CourseOptions
from gatewise.mappings.executing import ExecuteBatchOptions
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoderOptions
from gatewise.train import TrainOptions
from gatewise.train.execute import PAIRS_ONLY, check_given, execute_learner

FORM = Form(
    "execute",
    {
        "data": CourseOptions,
        "model": EncoderDecoderOptions,
        "batches": ExecuteBatchOptions,
        "training": TrainOptions,
    },
    "execute",
)
PRESETS_OF = {
    "addition": "addition",
    "memorise": "memorise",
    "reverse": "memorise",
    "double": "memorise",
}
"""Task -> the preset of a run that names none; other tasks start from `FORM.preset`."""

if TYPE_CHECKING:
    CourseFlags: TypeAlias = CourseOptions
    ModelFlags: TypeAlias = EncoderDecoderOptions
    BatchFlags: TypeAlias = ExecuteBatchOptions
    TrainFlags: TypeAlias = TrainOptions
else:
    _FIRST = settings.preset_values(FORM.preset, FORM.mapping)
    CourseFlags = flags_of(CourseOptions, "Examples", 1, __name__, _FIRST)
    ModelFlags = flags_of(EncoderDecoderOptions, "Model", 2, __name__, _FIRST)
    BatchFlags = flags_of(ExecuteBatchOptions, "Batches", 3, __name__, _FIRST)
    TrainFlags = flags_of(TrainOptions, "Training", 4, __name__, _FIRST)


@dataclass(frozen=True)
class Settings(Chosen):
    """The options of a run."""

    course: CourseOptions
    model: EncoderDecoderOptions
    batches: ExecuteBatchOptions
    training: TrainOptions


def train_execute(
    *,
    out: Out,
    preset: Annotated[str | None, Parameter(help=FORM.preset_help())] = None,
    config: ConfigFile = None,
    resume: Resume = False,
    engine: Engine = "auto",
    json: Json = False,
    course: Annotated[CourseFlags, Parameter(name="*")] = CourseFlags(),  # noqa: B008
    model: Annotated[ModelFlags, Parameter(name="*")] = ModelFlags(),  # noqa: B008
    batches: Annotated[BatchFlags, Parameter(name="*")] = BatchFlags(),  # noqa: B008
    training: Annotated[TrainFlags, Parameter(name="*")] = TrainFlags(),  # noqa: B008
) -> int:
    """Train a model to execute programs; `gatewise train execute --help` says more."""
    check_folder(out, resume=resume)
    flags = (course, model, batches, training)
    asked = given(flags)
    if preset is None and config is None and not resume:
        preset = PRESETS_OF.get(str(asked.get("task")))
    values = FORM.values(out if resume else None, preset, config, flags)
    chosen = FORM.settings(Settings, _fitting(values, asked))
    chosen.validate()
    check_given(chosen.course, asked)
    learner = execute_learner(
        chosen.course, chosen.model, chosen.batches, chosen.training, engine=engine
    )
    screen.say(f"no data needed: {_said(chosen.course)}, made here")
    result = run_training(learner, chosen.training, out, resume=resume)
    after = f"gatewise execute {out} {_example(chosen.course)}   or   gatewise eval {out}"
    return finished(result, after, json=json)


def _example(course: CourseOptions) -> str:
    """What a user could give to the model."""
    if course.task == "programs":
        return "program.txt"
    plain = dataclasses.replace(course, reverse_input=False, double_input=False)
    return f'"{plain.examples_of("test", 0).at(0, plain.target()).source}"'


def _fitting(values: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """`values` without what only an encoder-decoder has, where a stream was asked for beside a preset."""
    if values.get("form") != "stream":
        return values
    return {name: v for name, v in values.items() if name not in PAIRS_ONLY or name in asked}


def _said(course: CourseOptions) -> str:
    """What is learned, in a line."""
    target = course.target()
    hard = f"length {target.length}, nesting {target.nesting}"
    hard = hard if course.task == "programs" else f"{target.length} digits"
    return f"{course.task} of up to {hard}, curriculum {course.curriculum}, form {course.form}"
