"""`gatewise train lm`: texts to a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter

from gatewise.cli import screen, settings, training
from gatewise.cli.options import Engine, Json, flags_of
from gatewise.cli.training import Chosen, ConfigFile, Form, Out, Resume, check_folder, show_result
from gatewise.cli.watching import SampleWatcher, Write
from gatewise.errors import OptionError
from gatewise.mappings import LanguageLearner, LanguageModelOptions, StreamOptions
from gatewise.text.corpora import Corpus
from gatewise.train import (
    TextOptions,
    TrainOptions,
    TrainResult,
    Watcher,
    language_learner,
)

FORM = Form(
    "lm",
    {
        "text": TextOptions,
        "model": LanguageModelOptions,
        "streams": StreamOptions,
        "training": TrainOptions,
    },
    "char",
)

WATCHED = "gradients"
"""What --watch can follow."""

OFTEN, LITTLE = 8, 0.2
"""Passes over a text from which on a model learns it by heart, with less dropout than that."""

if TYPE_CHECKING:
    TextFlags: TypeAlias = TextOptions
    ModelFlags: TypeAlias = LanguageModelOptions
    StreamFlags: TypeAlias = StreamOptions
    TrainFlags: TypeAlias = TrainOptions
else:
    _FIRST = settings.preset_values(FORM.preset, FORM.mapping)
    TextFlags = flags_of(TextOptions, "Text", 1, __name__, _FIRST)
    ModelFlags = flags_of(LanguageModelOptions, "Model", 2, __name__, _FIRST)
    StreamFlags = flags_of(StreamOptions, "Batches", 3, __name__, _FIRST)
    TrainFlags = flags_of(TrainOptions, "Training", 4, __name__, _FIRST)


@dataclass(frozen=True)
class Settings(Chosen):
    """The options of a run."""

    text: TextOptions
    model: LanguageModelOptions
    streams: StreamOptions
    training: TrainOptions


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
    out: Out,
    preset: Annotated[str | None, Parameter(help=FORM.preset_help())] = None,
    config: ConfigFile = None,
    resume: Resume = False,
    engine: Engine = "auto",
    watch: Annotated[
        str | None,
        Parameter(
            help="gradients: at each line of the log, how far back the model looks, into gradients.jsonl; warns "
            "where they vanish or explode."
        ),
    ] = None,
    json: Json = False,
    text: Annotated[TextFlags, Parameter(name="*")] = TextFlags(),  # noqa: B008
    model: Annotated[ModelFlags, Parameter(name="*")] = ModelFlags(),  # noqa: B008
    streams: Annotated[StreamFlags, Parameter(name="*")] = StreamFlags(),  # noqa: B008
    training: Annotated[TrainFlags, Parameter(name="*")] = TrainFlags(),  # noqa: B008
) -> int:
    """Train a language model on your texts; `gatewise train lm --help` says more."""
    check_folder(out, resume=resume)
    if watch not in (None, WATCHED):
        raise OptionError(f"--watch: expected {WATCHED}, found {watch!r}")
    flags = (text, model, streams, training)
    chosen = FORM.settings(Settings, FORM.values(out if resume else None, preset, config, flags))
    chosen.validate()
    corpus = chosen.text.corpus(data)
    say_corpus(corpus)
    learner = language_learner(corpus, chosen.model, chosen.streams, chosen.training, engine=engine)
    following = _follow(learner, out, chosen.training) if watch else None
    result = run_training(learner, chosen, out, resume=resume, watch=following)
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


def _follow(
    learner: LanguageLearner, out: Path, options: TrainOptions
) -> Callable[[Write], Watcher]:
    """What makes the watcher of --watch gradients."""
    from gatewise.cli.watching_gradients import GradientWatcher

    return lambda write: GradientWatcher(learner, out, options.clip_norm, write)


def run_training(
    learner: LanguageLearner,
    chosen: Settings,
    out: Path,
    *,
    resume: bool = False,
    watch: Callable[[Write], Watcher] | None = None,
) -> TrainResult:
    """Train in the folder `out`, with samples of text where they are asked for.

    Args:
        learner: model and data.
        chosen: every option.
        out: the run folder.
        resume: go on with what is there.
        watch: makes one more watcher from what writes a text beside the progress.
    """
    learner.extra["text"] = dataclasses.asdict(chosen.text)

    def watching(write: Write) -> list[Watcher]:
        return [SampleWatcher(learner, write), *([watch(write)] if watch else [])]

    return training.run_training(learner, chosen.training, out, resume=resume, watch=watching)


def say_corpus(corpus: Corpus) -> None:
    """What was read, in one line, and what the reader should know of it."""
    for note in corpus.notes:
        screen.say(note)
    parts = ", ".join(f"{name} {len(part):,}" for name, part in corpus.splits.items())
    tokenizer = corpus.tokenizer
    screen.say(f"tokens: {parts}; vocabulary: {tokenizer.vocab_size:,} ({tokenizer.kind})")
