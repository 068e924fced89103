"""`gatewise train translate`: pairs of texts to a run folder."""

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
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoderOptions
from gatewise.tasks.numbers import number_pairs
from gatewise.tasks.parallel import ParallelText, read_parallel_text
from gatewise.text.sides import Sides
from gatewise.train import TrainOptions
from gatewise.train.pairs import PairTextOptions, pair_learner


@dataclass(frozen=True, kw_only=True)
class PairDataOptions:
    """Where the pairs are, and which part they belong to."""

    source: str | None = None
    """Of a folder or prefix, how the names of the sources' files end (de); of a table, their column."""

    target: str | None = None
    """The same of the targets (en)."""

    fractions: tuple[float, ...] = (0.9, 0.05, 0.05)
    """Shares of train, valid and test where no file's name says its part."""

    def read(self, data: list[str]) -> ParallelText:
        """The pairs in `data`; without any the embedded numbers in words."""
        if not data:
            return numbers()
        return read_parallel_text(
            data, source=self.source, target=self.target, fractions=self.fractions
        )


FORM = Form(
    "translate",
    {
        "files": PairDataOptions,
        "text": PairTextOptions,
        "model": EncoderDecoderOptions,
        "batches": BatchOptions,
        "training": TrainOptions,
    },
    "translate",
)
NUMBERS = "numbers"
"""The preset of a run without data."""

if TYPE_CHECKING:
    FileFlags: TypeAlias = PairDataOptions
    TextFlags: TypeAlias = PairTextOptions
    ModelFlags: TypeAlias = EncoderDecoderOptions
    BatchFlags: TypeAlias = BatchOptions
    TrainFlags: TypeAlias = TrainOptions
else:
    _FIRST = settings.preset_values(FORM.preset, FORM.mapping)
    FileFlags = flags_of(PairDataOptions, "Data", 1, __name__, _FIRST)
    TextFlags = flags_of(PairTextOptions, "Text", 2, __name__, _FIRST)
    ModelFlags = flags_of(EncoderDecoderOptions, "Model", 3, __name__, _FIRST)
    BatchFlags = flags_of(BatchOptions, "Batches", 4, __name__, _FIRST)
    TrainFlags = flags_of(TrainOptions, "Training", 5, __name__, _FIRST)


@dataclass(frozen=True)
class Settings(Chosen):
    """The options of a run."""

    files: PairDataOptions
    text: PairTextOptions
    model: EncoderDecoderOptions
    batches: BatchOptions
    training: TrainOptions


def train_translate(
    data: Annotated[
        list[str],
        Parameter(
            allow_leading_hyphen=True,
            show_default=False,
            help="Pairs of texts: files in twos (train.de train.en), a folder or prefix with --source and "
            "--target, or tables (.tsv, .csv, .jsonl, .parquet); also as .gz. Names say train, val and "
            "test. Without any: numbers in words to digits, from the preset numbers.",
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
    """Train an encoder-decoder on pairs; `gatewise train translate --help` says more."""
    check_folder(out, resume=resume)
    flags = (files, text, model, batches, training)
    if not data and preset is None and config is None and not resume:
        preset = NUMBERS
    chosen = FORM.settings(Settings, FORM.values(out if resume else None, preset, config, flags))
    chosen.validate()
    if resume:
        check_same_data(out, data, "numbers")
    pairs = chosen.files.read(data)
    for note in pairs.notes:
        screen.say(note)
    learner, notes = pair_learner(
        pairs.parts,
        chosen.text,
        chosen.model,
        chosen.batches,
        chosen.training,
        sides=_stored_sides(out) if resume else None,
        engine=engine,
    )
    learner.extra |= {
        "text": dataclasses.asdict(chosen.text),
        "files": dataclasses.asdict(chosen.files),
        "embedded": not data,
    }
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in learner.parts.items())
    config_of = learner.model.config
    screen.say(
        f"pairs: {sizes}; vocabularies: {config_of.source_size:,} and {config_of.target_size:,} "
        f"({chosen.text.tokenizer})"
    )
    for note in notes:
        screen.say(note)
    note_validation(learner)
    result = run_training(learner, chosen.training, out, resume=resume)
    example = screen.shown(pairs.parts["train"][0][0], limit=60)
    return finished(result, f'gatewise translate {out} "{example}"', json=json)


def numbers() -> ParallelText:
    """The embedded task, and that it is used."""
    found = number_pairs()
    said = "no data given: using numbers in words and their digits, made here"
    return ParallelText(found.parts, [said, *found.notes])


def _stored_sides(out: Path) -> Sides | None:
    """The vocabularies of the run in the folder `out`; None if nothing was saved yet."""
    if not RunFolder.open(out).checkpoints():
        return None
    return Sides.from_json(load_checkpoint(out, "latest").tokenizer_json)
