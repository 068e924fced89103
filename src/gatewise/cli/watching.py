"""What watches a training run from the command line: samples of text while it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from gatewise.cli import screen
from gatewise.complete import Completer
from gatewise.generate import SamplingOptions
from gatewise.mappings import LanguageLearner
from gatewise.train import BarProgress, PlainProgress, Watcher

Write: TypeAlias = Callable[[str], None]
SAMPLE = SamplingOptions(max_tokens=200, temperature=0.8, seed=0)


class SampleWatcher(Watcher):
    """Writes a text of the model whenever the loop asks for one.

    Args:
        learner: with the model as it is.
        write: called with the text.
    """

    def __init__(self, learner: LanguageLearner, write: Write) -> None:
        self._completer = Completer(learner.model, learner.corpus.tokenizer)
        self._write = write

    def sample(self, step: int) -> None:
        (text,) = self._completer.start("", SAMPLE).run()
        self._write(f"sample at step {step:,}:\n{screen.indented(text.text)}")


def writer(progress: BarProgress | PlainProgress) -> Write:
    """What writes a text without breaking the progress shown: above a bar, or as lines."""
    return progress.print if isinstance(progress, BarProgress) else screen.say
