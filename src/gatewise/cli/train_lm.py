"""`gatewise train lm`: texts to a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from gatewise.checkpoint import RunFolder, load_checkpoint
from gatewise.cli import screen, settings
from gatewise.cli.options import Engine, Json, flags_of, given
from gatewise.cli.watching import SampleWatcher, Write, writer
from gatewise.errors import OptionError
from gatewise.mappings import LanguageLearner, LanguageModelOptions, StreamOptions
from gatewise.presets import PRESETS
from gatewise.text.corpora import Corpus
from gatewise.train import (
    TensorBoardWatcher,
    TextOptions,
    TrainOptions,
    TrainResult,
    Watcher,
    Watchers,
    keep_freed_memory,
    language_learner,
    progress_for,
    train,
    with_values,
)

KINDS = (TextOptions, LanguageModelOptions, StreamOptions, TrainOptions)
DEFAULT_PRESET = "char"
OFTEN, LITTLE = 8, 0.3
"""Passes over a text from which on a model learns it by heart, with less dropout than that."""

if TYPE_CHECKING:
    TextFlags: TypeAlias = TextOptions
    ModelFlags: TypeAlias = LanguageModelOptions
    StreamFlags: TypeAlias = StreamOptions
    TrainFlags: TypeAlias = TrainOptions
else:
    _FIRST = settings.preset_values(DEFAULT_PRESET, "lm")
    TextFlags = flags_of(TextOptions, "Text", 1, __name__, _FIRST)
    ModelFlags = flags_of(LanguageModelOptions, "Model", 2, __name__, _FIRST)
    StreamFlags = flags_of(StreamOptions, "Batches", 3, __name__, _FIRST)
    TrainFlags = flags_of(TrainOptions, "Training", 4, __name__, _FIRST)


@dataclass(frozen=True)
class Settings:
    """Every option of a run, each from where it comes first."""

    text: TextOptions
    model: LanguageModelOptions
    streams: StreamOptions
    training: TrainOptions

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any is outside its range."""
        self.model.validate()
        self.streams.validate()
        self.training.validate()


def train_lm(
    data: Annotated[
        list[str],
        Parameter(
            allow_leading_hyphen=True,
            help="Texts: files, folders, globs (quoted), .gz files, or - for standard input. Files "
            "named train, valid and test are those parts.",
        ),
    ],
    /,
    *,
    out: Annotated[Path, Parameter(help="The run folder: a new one, or with --resume its own.")],
    preset: Annotated[
        str | None,
        Parameter(
            help=f"Start from named settings: {', '.join(PRESETS)}. A new run without one starts from "
            f"{DEFAULT_PRESET}; the defaults below are its."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        Parameter(help="Options from a .toml or .json file; flags win, a preset loses."),
    ] = None,
    resume: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Continue the run in --out; options not given stay as they were.",
        ),
    ] = False,
    engine: Engine = "auto",
    json: Json = False,
    text: Annotated[TextFlags, Parameter(name="*")] = TextFlags(),  # noqa: B008
    model: Annotated[ModelFlags, Parameter(name="*")] = ModelFlags(),  # noqa: B008
    streams: Annotated[StreamFlags, Parameter(name="*")] = StreamFlags(),  # noqa: B008
    training: Annotated[TrainFlags, Parameter(name="*")] = TrainFlags(),  # noqa: B008
) -> int:
    """Train a language model on your texts; `gatewise train lm --help` says more."""
    if resume and not out.exists():
        raise OptionError(
            f"--resume: expected a run folder, found nothing at {out}: "
            "leave --resume out to begin a new run there"
        )
    if not resume and out.exists():
        RunFolder.create(out).close()  # refuses a folder in use before any text is read
    chosen = _settings(out if resume else None, preset, config, (text, model, streams, training))
    chosen.validate()
    corpus = chosen.text.corpus(data)
    say_corpus(corpus)
    learner = language_learner(corpus, chosen.model, chosen.streams, chosen.training, engine=engine)
    result = run_training(learner, chosen, out, resume=resume)
    if json:
        screen.out_json(result.to_dict())
    else:
        show_result(result)
        if (
            result.epochs > OFTEN
            and chosen.model.dropout < LITTLE
            and chosen.text.tokenizer == "char"
        ):
            screen.say(
                f"the text was read {result.epochs:.0f} times: --preset char-small, with more dropout "
                "and a higher learning rate, is made for that"
            )
        screen.say(f'next: gatewise complete {out} "..."   or   gatewise generate {out}')
    return 0


def _settings(
    run: Path | None, preset: str | None, config: Path | None, flags: tuple[object, ...]
) -> Settings:
    """The options of a new run, or of the one in `run`."""
    from_file, named = settings.read_config(config, KINDS) if config else ({}, None)
    preset = preset or named
    stored = stored_values(run) if run else {}
    base = dict(stored)
    if preset or not base:
        base |= settings.preset_values(preset or DEFAULT_PRESET, "lm")
    asked = from_file | given(flags)
    values = settings.layered(base, from_file, given(flags))
    return settings_from(values if stored else settings.shortened(values, asked))


def settings_from(values: dict[str, Any]) -> Settings:
    """The option dataclasses with `values` in place of their defaults."""
    return Settings(
        with_values(TextOptions(), values),
        with_values(LanguageModelOptions(), values),
        with_values(StreamOptions(), values),
        with_values(TrainOptions(), values),
    )


def stored_values(run: Path) -> dict[str, Any]:
    """The options that the run in a folder was trained with; none if nothing was saved yet."""
    if not run.exists() or not RunFolder.open(run).checkpoints():
        return {}
    found = load_checkpoint(run, "latest").config
    values: dict[str, Any] = {}
    for name, kind in zip(("text", "model", "streams", "training"), KINDS, strict=True):
        own = {field.name for field in dataclasses.fields(kind)}
        part = found.get(name)
        if isinstance(part, dict):  # a model's config holds more than its options
            values |= {key: value for key, value in part.items() if key in own}
    return values


def run_training(
    learner: LanguageLearner,
    chosen: Settings,
    out: Path,
    *,
    resume: bool = False,
    watch: Callable[[Write], Watcher] | None = None,
) -> TrainResult:
    """Train in the folder `out`, shown on standard error.

    Args:
        learner: model and data.
        chosen: every option.
        out: the run folder.
        resume: go on with what is there.
        watch: makes one more watcher from what writes a text beside the progress.
    """
    keep_freed_memory()
    learner.extra["text"] = dataclasses.asdict(chosen.text)
    progress = progress_for()
    watching: list[Watcher] = [progress, SampleWatcher(learner, writer(progress))]
    if watch is not None:
        watching.append(watch(writer(progress)))
    with RunFolder.resume(out) if resume else RunFolder.create(out) as folder:
        if chosen.training.tensorboard:
            watching.append(TensorBoardWatcher(out / "tensorboard"))
        return train(learner, folder, chosen.training, Watchers(watching))


def say_corpus(corpus: Corpus) -> None:
    """What was read, in one line, and what the reader should know of it."""
    for note in corpus.notes:
        screen.say(note)
    parts = ", ".join(f"{name} {len(part):,}" for name, part in corpus.splits.items())
    tokenizer = corpus.tokenizer
    screen.say(f"tokens: {parts}; vocabulary: {tokenizer.vocab_size:,} ({tokenizer.kind})")


def show_result(result: TrainResult) -> None:
    """How a run ended, for people."""
    rows = [["run", str(result.folder)], ["parameters", f"{result.parameters:,}"]]
    rows.append(["steps", f"{result.steps:,} ({result.epochs:.2f} epochs)"])
    rows.append(["speed", f"{result.tokens_per_second:,.0f} tokens/s, engine {result.engine}"])
    if result.skipped:
        rows.append(["skipped", f"{result.skipped:,} steps that were not finite"])
    rows += figure_rows(result.valid, "validation")
    screen.out(screen.table(rows, indent=""))


def figure_rows(figures: dict[str, Any], name: str) -> list[list[str]]:
    """Figures of `Tally.summary` as rows of a table."""
    shown = [
        f"{figures[key]:,.{digits}f} {unit}"
        for key, digits, unit in (
            ("bits_per_character", 4, "bits/char"),
            ("nats_per_character", 4, "nats/char"),
            ("nats_per_token", 4, "nats/token"),
            ("perplexity", 3, "perplexity"),
        )
        if figures.get(key) is not None
    ]
    return [[name, ", ".join(shown)]] if shown else []
