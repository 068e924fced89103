"""`gatewise train tag`: tagged sentences to a run folder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

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
from gatewise.errors import OptionError
from gatewise.mappings.config import check_choice
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.tagger import TaggerOptions
from gatewise.tasks.columns import TaggedText, read_tagged
from gatewise.tasks.known_sentences import EMBEDDED, embedded_sentences
from gatewise.text.tagging import TagTokens
from gatewise.train import TrainOptions
from gatewise.train.tags import TagTextOptions, tag_learner


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """Where words and tags are."""

    word: int = 1
    """Column of the words, from 1; from the end -1, -2, ..."""

    tag: int = -1
    """Column of the tags."""

    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)
    """Shares of train, valid and test where no file's name says its part."""

    embedded: str = "notices"
    """Without data: notices (a grammar's sentences with persons, places, firms and dates), or python (lines of
    Python's own library, and the role of each word)."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_choice("embedded", self.embedded, EMBEDDED)

    def read(self, data: list[str]) -> TaggedText:
        """The sentences in `data`; without any the embedded ones."""
        if data:
            return read_tagged(data, word=self.word, tag=self.tag, fractions=self.fractions)
        return embedded_sentences(self.embedded)


FORM = Form(
    "tag",
    {
        "files": ColumnOptions,
        "text": TagTextOptions,
        "model": TaggerOptions,
        "batches": BatchOptions,
        "training": TrainOptions,
    },
    "tag",
)
PRESETS = {"notices": "notices", "python": "python"}
"""Embedded sentences -> the preset of a run on them."""

if TYPE_CHECKING:
    FileFlags: TypeAlias = ColumnOptions
    TextFlags: TypeAlias = TagTextOptions
    ModelFlags: TypeAlias = TaggerOptions
    BatchFlags: TypeAlias = BatchOptions
    TrainFlags: TypeAlias = TrainOptions
else:
    _FIRST = settings.preset_values(FORM.preset, FORM.mapping)
    FileFlags = flags_of(ColumnOptions, "Data", 1, __name__, _FIRST)
    TextFlags = flags_of(TagTextOptions, "Text", 2, __name__, _FIRST)
    ModelFlags = flags_of(TaggerOptions, "Model", 3, __name__, _FIRST)
    BatchFlags = flags_of(BatchOptions, "Batches", 4, __name__, _FIRST)
    TrainFlags = flags_of(TrainOptions, "Training", 5, __name__, _FIRST)


@dataclass(frozen=True)
class Settings(Chosen):
    """The options of a run."""

    files: ColumnOptions
    text: TagTextOptions
    model: TaggerOptions
    batches: BatchOptions
    training: TrainOptions


def train_tag(
    data: Annotated[
        list[str],
        Parameter(
            allow_leading_hyphen=True,
            show_default=False,
            help="Sentences in columns, a word a line and an empty line between sentences (CoNLL); also as "
            ".gz. Names say train, valid (val, dev) and test, and a folder stands for such files in it. "
            "Without any: sentences of a grammar, from the preset notices.",
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
    text: Annotated[TextFlags, Parameter(name="*")] = TextFlags(),  # noqa: B008
    model: Annotated[ModelFlags, Parameter(name="*")] = ModelFlags(),  # noqa: B008
    batches: Annotated[BatchFlags, Parameter(name="*")] = BatchFlags(),  # noqa: B008
    training: Annotated[TrainFlags, Parameter(name="*")] = TrainFlags(),  # noqa: B008
) -> int:
    """Train a tagger on sentences; `gatewise train tag --help` says more."""
    check_folder(out, resume=resume)
    flags = (files, text, model, batches, training)
    if not data and preset is None and config is None and not resume:
        preset = PRESETS.get(files.embedded or "notices")
    chosen = FORM.settings(Settings, FORM.values(out if resume else None, preset, config, flags))
    chosen.validate()
    if resume:
        check_same_data(out, data, "sentences")
    if data and files.embedded is not None:
        raise OptionError(
            f"--embedded: for a run without data, found {data[0]}: leave out one of both"
        )
    found = chosen.files.read(data)
    for note in found.notes:
        screen.say(note)
    learner, notes = tag_learner(
        found.parts,
        chosen.text,
        chosen.model,
        chosen.batches,
        chosen.training,
        tokens=_stored_tokens(out) if resume else None,
        engine=engine,
    )
    learner.extra |= {
        "text": dataclasses.asdict(chosen.text),
        "files": dataclasses.asdict(chosen.files),
        "embedded": not data,
    }
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in learner.parts.items())
    of = learner.model.config
    screen.say(f"sentences: {sizes}; {of.words - 1:,} words, {of.tags} tags")
    for note in notes:
        screen.say(note)
    note_validation(learner)
    result = run_training(learner, chosen.training, out, resume=resume)
    words = screen.shown(" ".join(found.parts["train"][0][0]), limit=60)
    return finished(result, f'gatewise classify {out} "{words}"', json=json, unit="words")


def _stored_tokens(out: Path) -> TagTokens | None:
    """The vocabularies of the run in the folder `out`; None if nothing was saved yet."""
    if not RunFolder.open(out).checkpoints():
        return None
    return TagTokens.from_json(load_checkpoint(out, "latest").tokenizer_json)
