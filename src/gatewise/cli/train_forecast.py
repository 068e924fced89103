"""`gatewise train forecast`: columns of numbers to a run folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

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
    check_same_data,
    finished,
    note_validation,
    run_training,
)
from gatewise.errors import OptionError
from gatewise.mappings.config import check_choice
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.forecaster import ForecasterOptions
from gatewise.tasks.histories import Histories
from gatewise.tasks.known_series import EMBEDDED, embedded_series
from gatewise.tasks.parallel import PARTS
from gatewise.train import TrainOptions
from gatewise.train.forecasts import WindowOptions, forecast_learner


@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """Where the series are."""

    target: tuple[str, ...] = ()
    """Column to forecast; several, with commas, are a series each. Default: the only one that is left."""

    id: str | None = None
    """Column that says which series a row belongs to."""

    time: str | None = None
    """Column to sort by; default: the order of the rows."""

    covariates: tuple[str, ...] = ()
    """Columns that are known ahead, with commas between them."""

    embedded: str = "seasonal"
    """Without data: seasonal (a trend, a season and noise), mackey-glass (chaos), or library (how the lines of
    Python's own library are indented)."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_choice("embedded", self.embedded, EMBEDDED)

    def read(self, data: list[str]) -> Histories:
        """The series in `data`; without any the embedded ones."""
        if not data:
            return embedded_series(self.embedded)
        return read_series(data, self)


def read_series(data: list[str], options: SeriesOptions) -> Histories:
    """The series in the files `data`."""
    from gatewise.tasks.histories import read_histories

    return read_histories(
        data,
        target=options.target,
        id=options.id,
        time=options.time,
        covariates=options.covariates,
    )


FORM = Form(
    "forecast",
    {
        "files": SeriesOptions,
        "windows": WindowOptions,
        "model": ForecasterOptions,
        "batches": BatchOptions,
        "training": TrainOptions,
    },
    "forecast",
)
PRESETS = {"seasonal": "seasonal", "library": "library"}
"""Embedded series -> the preset of a run on it."""

if TYPE_CHECKING:
    FileFlags: TypeAlias = SeriesOptions
    WindowFlags: TypeAlias = WindowOptions
    ModelFlags: TypeAlias = ForecasterOptions
    BatchFlags: TypeAlias = BatchOptions
    TrainFlags: TypeAlias = TrainOptions
else:
    _FIRST = settings.preset_values(FORM.preset, FORM.mapping)
    FileFlags = flags_of(SeriesOptions, "Data", 1, __name__, _FIRST)
    WindowFlags = flags_of(WindowOptions, "Windows", 2, __name__, _FIRST)
    ModelFlags = flags_of(ForecasterOptions, "Model", 3, __name__, _FIRST)
    BatchFlags = flags_of(BatchOptions, "Batches", 4, __name__, _FIRST)
    TrainFlags = flags_of(TrainOptions, "Training", 5, __name__, _FIRST)


@dataclass(frozen=True)
class Settings(Chosen):
    """The options of a run."""

    files: SeriesOptions
    windows: WindowOptions
    model: ForecasterOptions
    batches: BatchOptions
    training: TrainOptions


def train_forecast(
    data: Annotated[
        list[str],
        Parameter(
            allow_leading_hyphen=True,
            show_default=False,
            help="Tables of numbers (.csv, .tsv, .jsonl, also as .gz, and .parquet), a row for each step. "
            "Several files may be named train, valid and test. Without any: a series that is made here.",
        ),
    ] = [],  # noqa: B006
    /,
    *,
    out: Out,
    preset: Annotated[str | None, Parameter(help=FORM.preset_help())] = None,
    config: ConfigFile = None,
    resume: Resume = False,
    engine: Engine = "auto",
    json: Json = False,
    files: Annotated[FileFlags, Parameter(name="*")] = FileFlags(),  # noqa: B008
    windows: Annotated[WindowFlags, Parameter(name="*")] = WindowFlags(),  # noqa: B008
    model: Annotated[ModelFlags, Parameter(name="*")] = ModelFlags(),  # noqa: B008
    batches: Annotated[BatchFlags, Parameter(name="*")] = BatchFlags(),  # noqa: B008
    training: Annotated[TrainFlags, Parameter(name="*")] = TrainFlags(),  # noqa: B008
) -> int:
    """Train a forecaster on series; `gatewise train forecast --help` says more."""
    check_folder(out, resume=resume)
    flags = (files, windows, model, batches, training)
    if not data and preset is None and config is None and not resume:
        preset = PRESETS.get(files.embedded or "seasonal")
    chosen = FORM.settings(Settings, FORM.values(out if resume else None, preset, config, flags))
    chosen.validate()
    if resume:
        check_same_data(out, data, "series")
    if data and files.embedded is not None:
        raise OptionError(
            f"--embedded: for a run without data, found {data[0]}: leave out one of both"
        )
    found = chosen.files.read(data)
    for note in found.notes:
        screen.say(note)
    learner = forecast_learner(
        found, chosen.windows, chosen.model, chosen.batches, chosen.training, engine=engine
    )
    learner.extra |= {
        "files": dataclasses.asdict(chosen.files),
        "windows": dataclasses.asdict(chosen.windows),
        "embedded": not data,
    }
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in learner.parts.items())
    screen.say(f"{found.summary()}; windows: {sizes}")
    note_validation(learner)
    result = run_training(learner, chosen.training, out, resume=resume)
    after = f"gatewise eval {out}{_again(data, chosen.windows, found)}"
    return finished(result, after, json=json, unit="steps")


def _again(data: list[str], windows: WindowOptions, found: Histories) -> str:
    """The words that measure the test part of the same data; of an embedded series none are needed."""
    if not data:
        return ""
    words = [*data]
    if all(one.part is None for one in found.series):
        words += ["--fractions", ",".join(f"{share:g}" for share in windows.fractions)]
    if len(windows.fractions) == len(PARTS):
        words += ["--part", "test"]
    return " " + " ".join(words)
