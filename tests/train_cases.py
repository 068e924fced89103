"""A text that is learned in seconds, and what trains on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gatewise.mappings import LanguageLearner, LanguageModelOptions, StreamOptions
from gatewise.text.corpora import Corpus
from gatewise.train import (
    Evaluated,
    Progress,
    Started,
    TrainOptions,
    TrainResult,
    Watcher,
    language_learner,
    with_values,
)

SMALL: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_size": 16,
    "batch_size": 8,
    "eval_batch_size": 2,
    "bptt": 10,
    "optimizer": "adamw",
    "lr": 0.02,
    "checkpoint_seconds": 0.0,
}


def make_text(words: int = 900) -> str:
    """Words of a small vocabulary in a random order."""
    draw = random.Random(5)
    return " ".join(draw.choice(("memory", "gate", "open", "keeps", "a")) for _ in range(words))


class Collector(Watcher):
    """Keeps every event."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.records: list[dict[str, Any]] = []
        self.evaluations: list[Evaluated] = []
        self.progresses: list[Progress] = []
        self.samples: list[int] = []
        self.saves: list[int] = []
        self.starts: list[Started] = []
        self.results: list[Any] = []

    def started(self, event: Started) -> None:
        self.starts.append(event)

    def progress(self, event: Progress) -> None:
        self.progresses.append(event)

    def logged(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def evaluated(self, event: Evaluated) -> None:
        self.evaluations.append(event)

    def saved(self, step: int, path: Path) -> None:
        assert path.is_dir()
        self.saves.append(step)

    def noticed(self, message: str) -> None:
        self.notices.append(message)

    def sample(self, step: int) -> None:
        self.samples.append(step)

    def finished(self, result: Any) -> None:
        self.results.append(result)


def build(corpus: Corpus, **values: Any) -> tuple[LanguageLearner, TrainOptions]:
    """A learner and its training options; `values` beside those of SMALL."""
    options = SMALL | values
    training = with_values(TrainOptions(), options)
    return (
        language_learner(
            corpus,
            with_values(LanguageModelOptions(), options),
            with_values(StreamOptions(), options),
            training,
            engine=str(values.get("engine", "auto")),
        ),
        training,
    )


Run = Callable[..., tuple[TrainResult, LanguageLearner, Collector]]
