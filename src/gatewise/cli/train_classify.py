"""`gatewise train classify`: texts or series with a class or a number each to a run folder."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from gatewise.checkpoint import RunFolder, load_checkpoint
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
from gatewise.errors import DataError
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.seq_to_vec import VectorOptions
from gatewise.tasks.labelled import (
    ExampleOptions,
    ExampleSet,
    overlap,
    read_examples,
    wave_examples,
)
from gatewise.train import TrainOptions
from gatewise.train.labelled import ExampleVectors, Reader, ReadingOptions, vector_learner

FORM = Form(
    "classify",
    {
        "files": ExampleOptions,
        "reading": ReadingOptions,
        "model": VectorOptions,
        "batches": BatchOptions,
        "training": TrainOptions,
    },
    "names",
)
SERIES = "series"
"""The preset of a run on series, where none is named."""
WAVES = "waves"
"""The preset of a run without data."""

if TYPE_CHECKING:
    FileFlags: TypeAlias = ExampleOptions
    ReadingFlags: TypeAlias = ReadingOptions
    ModelFlags: TypeAlias = VectorOptions
    BatchFlags: TypeAlias = BatchOptions
    TrainFlags: TypeAlias = TrainOptions
else:
    _FIRST = settings.preset_values(FORM.preset, FORM.mapping)
    FileFlags = flags_of(ExampleOptions, "Data", 1, __name__, _FIRST)
    ReadingFlags = flags_of(ReadingOptions, "Reading", 2, __name__, _FIRST)
    ModelFlags = flags_of(VectorOptions, "Model", 3, __name__, _FIRST)
    BatchFlags = flags_of(BatchOptions, "Batches", 4, __name__, _FIRST)
    TrainFlags = flags_of(TrainOptions, "Training", 5, __name__, _FIRST)


@dataclass(frozen=True)
class Settings(Chosen):
    """The options of a run."""

    files: ExampleOptions
    reading: ReadingOptions
    model: VectorOptions
    batches: BatchOptions
    training: TrainOptions


def train_classify(
    data: Annotated[
        list[str],
        Parameter(
            allow_leading_hyphen=True,
            show_default=False,
            help="A folder with one file per class, tables (.csv, .tsv, .jsonl, .parquet; texts or series), "
            "series as .ts or .npz. Names say train, valid and test. Without any: generated waves, from "
            "the preset waves.",
        ),
    ] = [],  # noqa: B006
    /,
    *,
    out: Out,
    preset: Annotated[
        str | None,
        Parameter(
            help=FORM.preset_help().replace("is its.", "are its.")
            + " Series start from the preset series."
        ),
    ] = None,
    config: ConfigFile = None,
    resume: Resume = False,
    engine: Engine = "auto",
    json: Json = False,
    files: Annotated[FileFlags, Parameter(name="*")] = FileFlags(),  # noqa: B008
    reading: Annotated[ReadingFlags, Parameter(name="*")] = ReadingFlags(),  # noqa: B008
    model: Annotated[ModelFlags, Parameter(name="*")] = ModelFlags(),  # noqa: B008
    batches: Annotated[BatchFlags, Parameter(name="*")] = BatchFlags(),  # noqa: B008
    training: Annotated[TrainFlags, Parameter(name="*")] = TrainFlags(),  # noqa: B008
) -> int:
    """Train a classifier, or a regressor; `gatewise train classify --help` says more."""
    check_folder(out, resume=resume)
    flags = (files, reading, model, batches, training)
    run = out if resume else None
    chosen = FORM.settings(Settings, FORM.values(run, preset, config, flags))
    chosen.validate()
    if resume:
        check_same_data(out, data, "waves")
    examples = read_examples(data, chosen.files) if data else waves(chosen.files)
    if "train" not in examples.parts:
        found = ", ".join(examples.parts)
        raise DataError(f"expected a training part, found {found} alone: check the files' names")
    if preset is None and not resume:
        first = _first_preset(data, examples)
        values = FORM.values(None, first if _open(config) else None, config, flags)
        chosen = FORM.settings(Settings, values)
        chosen.validate()
    learner = _learner(chosen, examples, data, _stored_reader(out) if resume else None, engine)
    result = run_training(learner, chosen.training, out, resume=resume)
    after = f"gatewise eval {out}; gatewise classify {out} {_example(examples)}"
    return finished(result, after, json=json, unit="examples")


def _example(examples: ExampleSet) -> str:
    """What a user could try next: a text of the data, or where a file of series goes."""
    texts = examples.parts["train"].texts
    return shlex.quote(screen.shown(texts[0], limit=40)) if texts else "FILE"


def waves(options: ExampleOptions) -> ExampleSet:
    """The embedded series, and that they are used."""
    found = wave_examples(options)
    said = "no data given: using waves of five forms, noisy, of two channels, made here"
    return ExampleSet(found.parts, [said, *found.notes])


def _first_preset(data: list[str], examples: ExampleSet) -> str:
    """What a run on such data starts from."""
    if not data:
        return WAVES
    return FORM.preset if examples.parts["train"].texts is not None else SERIES


def _open(config: Path | None) -> bool:
    """Whether no file names a preset."""
    if config is None:
        return True
    return settings.read_config(config, tuple(FORM.kinds.values()))[1] is None


def _learner(
    chosen: Settings,
    examples: ExampleSet,
    data: list[str],
    reader: Reader | None,
    engine: str,
) -> ExampleVectors:
    """The learner, and what is to be said of the data."""
    for note in examples.notes:
        screen.say(note)
    if twice := overlap(examples.parts):
        screen.say(f"note: {twice}")
    learner, notes = vector_learner(
        examples.parts,
        chosen.reading,
        chosen.model,
        chosen.batches,
        chosen.training,
        reader=reader,
        engine=engine,
    )
    learner.extra |= {
        "files": dataclasses.asdict(chosen.files),
        "sources": [str(Path(one).resolve()) for one in data],
        "embedded": not data,
    }
    screen.say(_summary(learner, examples))
    for note in notes:
        screen.say(f"note: {note}")
    note_validation(learner)
    return learner


def _summary(learner: ExampleVectors, examples: ExampleSet) -> str:
    """What there is, in one line."""
    train, config = examples.parts["train"], learner.model.config
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in learner.parts.items())
    lengths = learner.parts["train"].inputs.lengths
    what = f"series of {config.channels} channels"
    if learner.reader.tokenizer is not None:
        tokenizer = learner.reader.tokenizer
        what = f"texts, {tokenizer.kind} vocabulary of {tokenizer.vocab_size:,}"
    steps = f"{int(lengths.min())} to {int(lengths.max())} steps"
    goal = f"{config.outputs} classes" if config.target == "class" else "a number"
    gaps = ""
    if train.series is not None and config.marks:
        missing: Any = (train.series.values != train.series.values).sum()
        gaps = f"; {int(missing):,} values missing, marked"
    return f"examples: {sizes}; {what}, {steps}, {goal}{gaps}"


def _stored_reader(out: Path) -> Reader | None:
    """How the run in the folder `out` reads; None if nothing was saved yet."""
    if not RunFolder.open(out).checkpoints():
        return None
    found = load_checkpoint(out, "latest")
    return Reader.from_dict(found.config.get("reader") or {}, found.tokenizer_json)
