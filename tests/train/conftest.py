"""A corpus that is learned in seconds, and a run over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.checkpoint import RunFolder
from gatewise.mappings import LanguageLearner
from gatewise.text.corpora import Corpus, build_corpus
from gatewise.train import TrainResult, train
from train_cases import Collector, Run, build, make_text


@pytest.fixture(autouse=True)
def _one_thread(_seeds: None) -> None:
    """Nets this small only wait for a second thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(make_text())
    return build_corpus([path], fractions=(0.8, 0.2, 0.0), cache=False)


@pytest.fixture
def run_in(corpus: Corpus) -> Run:
    """Train in a folder, resuming what is there."""

    def run(folder: Path, **values: Any) -> tuple[TrainResult, LanguageLearner, Collector]:
        learner, training = build(corpus, **values)
        watcher = Collector()
        opened = RunFolder.resume(folder) if folder.exists() else RunFolder.create(folder)
        with opened as run_folder:
            result = train(learner, run_folder, training, watcher)
        return result, learner, watcher

    return run
