"""What the verbs below `gatewise train` have in common: where options come from, and the run itself.

A mapping tells its option dataclasses by the name under which a checkpoint keeps them; everything
else here is the same for all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from gatewise.checkpoint import RunFolder, load_checkpoint
from gatewise.cli import screen, settings
from gatewise.cli.options import given
from gatewise.cli.watching import Write, writer
from gatewise.errors import OptionError
from gatewise.mappings import Learner
from gatewise.presets import PRESETS
from gatewise.train import (
    TensorBoardWatcher,
    TrainOptions,
    TrainResult,
    Watcher,
    Watchers,
    figures_line,
    keep_freed_memory,
    progress_for,
    train,
    with_values,
)

T = TypeVar("T")

Out = Annotated[Path, Parameter(help="The run folder: a new one, or with --resume its own.")]
ConfigFile = Annotated[
    Path | None,
    Parameter(help="Options from a .toml or .json file; flags win, a preset loses."),
]
Resume = Annotated[
    bool,
    Parameter(
        negative="",
        show_default=False,
        help="Continue the run in --out; options not given stay as they were.",
    ),
]


@dataclass(frozen=True)
class Chosen:
    """Every option of a run, each from where it comes first: a field for each of a `Form`'s dataclasses."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any is outside its range."""
        for field in dataclasses.fields(self):
            part = getattr(self, field.name)
            if hasattr(part, "validate"):  # where data are has no range
                part.validate()


@dataclass(frozen=True)
class Form:
    """The options of one mapping.

    Args:
        mapping: its name.
        kinds: part of a checkpoint's config -> the dataclass of the options that it keeps.
        preset: what a new run starts from.
    """

    mapping: str
    kinds: Mapping[str, type]
    preset: str

    def preset_help(self) -> str:
        """For --preset: which there are."""
        names = [name for name, one in PRESETS.items() if one.mapping == self.mapping]
        return (
            f"Start from named settings: {', '.join(names)}. A new run without one starts from "
            f"{self.preset}; the defaults below are its."
        )

    def values(
        self, run: Path | None, preset: str | None, config: Path | None, flags: tuple[object, ...]
    ) -> dict[str, Any]:
        """The options of a new run, or of the one in the folder `run`, by name."""
        kinds = tuple(self.kinds.values())
        from_file, named = settings.read_config(config, kinds) if config else ({}, None)
        preset = preset or named
        stored = self.stored_values(run) if run else {}
        base = dict(stored)
        if preset or not base:
            base |= settings.preset_values(preset or self.preset, self.mapping)
        asked = from_file | given(flags)
        values = settings.layered(base, from_file, given(flags))
        return values if stored else settings.fitted(values, asked, base)

    def settings(self, kind: Callable[..., T], values: Mapping[str, Any]) -> T:
        """`kind` of the option dataclasses in their order, with `values` in place of their defaults."""
        return kind(*(with_values(options(), values) for options in self.kinds.values()))

    def stored_values(self, run: Path) -> dict[str, Any]:
        """The options that the run in a folder was trained with; none if nothing was saved yet."""
        if not run.exists() or not RunFolder.open(run).checkpoints():
            return {}
        found = load_checkpoint(run, "latest").config
        if found.get("mapping") != self.mapping:
            raise OptionError(
                f"--resume: expected a run of mapping {self.mapping!r} in {run}, "
                f"found {found.get('mapping')!r}"
            )
        values: dict[str, Any] = {}
        for name, kind in self.kinds.items():
            own = {field.name for field in dataclasses.fields(kind)}
            part = found.get(name)
            if isinstance(part, dict):  # a model's config holds more than its options
                values |= {key: value for key, value in part.items() if key in own}
        return values


def check_folder(out: Path, *, resume: bool) -> None:
    """Refuse a folder that cannot be used, before any data is read.

    Raises:
        OptionError: there is nothing to resume.
        CheckpointError: the folder is in use.
    """
    if resume and not out.exists():
        raise OptionError(
            f"--resume: expected a run folder, found nothing at {out}: "
            "leave --resume out to begin a new run there"
        )
    if not resume and out.exists():
        RunFolder.create(out).close()


def check_same_data(out: Path, data: list[str], made: str) -> None:
    """Refuse to take up a run on data without them, or one on what is made here with data.

    Args:
        out: the run folder.
        data: what was given now.
        made: what a run without data learns from, for the message: "numbers".
    Raises:
        OptionError: if the run was begun otherwise.
    """
    if not RunFolder.open(out).checkpoints():
        return
    embedded = load_checkpoint(out, "latest").config.get("embedded")
    if embedded is False and not data:
        raise OptionError(
            f"--resume: the run in {out} was begun on data, found none: name the same data again"
        )
    if embedded is True and data:
        raise OptionError(
            f"--resume: the run in {out} was begun without data, on embedded {made}, found {data[0]}: "
            "leave the data out, or begin another run with a new --out"
        )


def run_training(
    learner: Learner,
    training: TrainOptions,
    out: Path,
    *,
    resume: bool = False,
    watch: Callable[[Write], list[Watcher]] = lambda _: [],
) -> TrainResult:
    """Train in the folder `out`, shown on standard error.

    Args:
        learner: model and data.
        training: for how long, by which rule.
        out: the run folder.
        resume: go on with what is there.
        watch: makes more watchers from what writes a text beside the progress.
    """
    keep_freed_memory()
    progress = progress_for()
    watching: list[Watcher] = [progress, *watch(writer(progress))]
    with RunFolder.resume(out) if resume else RunFolder.create(out) as folder:
        if training.tensorboard:
            watching.append(TensorBoardWatcher(out / "tensorboard"))
        return train(learner, folder, training, Watchers(watching))


def note_validation(learner: Learner) -> None:
    """Say what having no validation part means."""
    if not learner.has_part("valid"):
        screen.say("no validation part: the last checkpoint counts as the best")


def finished(result: TrainResult, after: str, *, json: bool, unit: str = "tokens") -> int:
    """How a run ended, as a table and what to do next, or as a document; the exit status.

    Args:
        result: of the run.
        after: the line that says what to do next.
        json: a document instead.
        unit: what is counted.
    """
    if json:
        screen.out_json(result.to_dict())
    else:
        show_result(result, unit)
        screen.say(f"next: {after}")
    return 0


def show_result(result: TrainResult, unit: str = "tokens") -> None:
    """How a run ended, for people."""
    rows = [["run", str(result.folder)], ["parameters", f"{result.parameters:,}"]]
    rows.append(["steps", f"{result.steps:,} ({result.epochs:.2f} epochs)"])
    rows.append(["speed", f"{result.tokens_per_second:,.0f} {unit}/s, engine {result.engine}"])
    if result.skipped:
        rows.append(["skipped", f"{result.skipped:,} steps that were not finite"])
    if line := figures_line(result.valid):
        rows.append(["validation", line])
    screen.out(screen.table(rows, indent=""))
