"""What keeps a model from forgetting: text of the kind that it was trained on, to read again and to be judged by.

A run folder does not hold its training text, but names it by a sum. Where the user's cache still has the tokens of
that sum, they are the rehearsal, and their validation part the judge. Where it has not, the model draws them itself
(pseudo-rehearsal, Robins 1995): the checkpoint before any learning, always the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gatewise.folders import user_cache
from gatewise.generate import SamplingOptions
from gatewise.run import LanguageRun
from gatewise.run.language import tokens_of
from gatewise.text.cache import open_entry
from gatewise.text.corpora import Tokens

JUDGED = 20_000
"""Tokens of the validation part that are read."""

_DRAWN, _LENGTH = 16, 1000


@dataclass(frozen=True)
class Rehearsal:
    """Text of the kind that a run was trained on.

    Args:
        train: ids to read again.
        judge: what forgetting is measured on.
        kind: "training text" or "drawn by the model".
    """

    train: np.ndarray[Any, Any]
    judge: Tokens
    kind: str

    def some(self, count: int, seed: int) -> np.ndarray[Any, Any]:
        """So many ids in a row, from a place that the seed draws; fewer where there are not so many."""
        count = min(count, len(self.train))
        begin = int(np.random.default_rng(seed).integers(0, len(self.train) - count + 1))
        return np.asarray(self.train[begin : begin + count], np.uint32)


def rehearsal(
    first: LanguageRun, seed: int, between: Callable[[], None] = lambda: None
) -> Rehearsal:
    """For a run.

    Args:
        first: the run before any learning.
        seed: of what is drawn.
        between: called between two steps of drawing.
    """
    return _known(first) or _drawn(first, seed, between)


def _known(first: LanguageRun) -> Rehearsal | None:
    """From the user's cache."""
    told = first.config.get("data")
    name = told.get("fingerprint") if isinstance(told, dict) else None
    if not isinstance(name, str) or not re.fullmatch("[0-9a-f]{64}", name):
        return None
    entry = open_entry(user_cache() / "text", name)
    if entry is None or entry.tokenizer != first.tokenizer:
        return None
    part = next((p for p in ("valid", "test") if p in entry.parts), None)
    if part is None or "train" not in entry.parts or entry.parts[part].tokens < 2:
        return None
    ids = entry.ids(part)[:JUDGED]
    return Rehearsal(entry.ids("train"), Tokens(ids, 0, 0, 0, [("own", 0)]), "training text")


def _drawn(first: LanguageRun, seed: int, between: Callable[[], None]) -> Rehearsal:
    options = SamplingOptions(n=_DRAWN, max_tokens=_LENGTH, temperature=1.0, seed=seed)
    writing = first.completer().start("", options)
    for _ in writing:
        between()
    texts = [sample.text for sample in writing.samples]
    train = tokens_of(first.tokenizer, "\n".join(texts[: -_DRAWN // 4]))
    judge = tokens_of(first.tokenizer, "\n".join(texts[-_DRAWN // 4 :]))
    return Rehearsal(train.ids, judge, "drawn by the model")
