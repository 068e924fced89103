"""Captions rated by a person at the terminal, on the lecture's four levels."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gatewise.cli import screen
from gatewise.errors import OptionError
from gatewise.metrics.ratings import LEVELS, Rating, append_rating, read_ratings

DEFAULT = Path("ratings.jsonl")


def rater_of(given: str | None) -> str:
    """The name that ratings are kept under: the user's own, where none is given."""
    if given is not None:
        if not given.strip():
            raise OptionError("--rater: expected a name, found none")
        return given.strip()
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise OptionError("--rater: expected a name, this machine knows none") from None


def known(path: Path) -> list[Rating]:
    """The ratings of a file; none where there is no file yet."""
    return read_ratings(path) if path.exists() and path.stat().st_size else []


def ask(path: Path, rater: str, captions: Sequence[tuple[str, str]]) -> int:
    """Ask for the level of each caption that `rater` has not rated yet; how many were rated.

    Each answer is on the disk before the next question: stopping loses nothing.

    Args:
        path: of the ratings.
        rater: who.
        captions: (item, caption).
    """
    done = {(one.item, one.caption) for one in known(path) if one.rater == rater}
    open_ = [each for each in captions if each not in done]
    if len(open_) < len(captions):
        screen.say(f"{len(captions) - len(open_):,} rated before by {rater}")
    for level, meaning in LEVELS.items():
        screen.say(f"  {level}  {meaning}")
    count = 0
    for number, (item, text) in enumerate(open_, 1):
        screen.say(f"\n{number} of {len(open_)}  {screen.shown(item)}\n  {screen.shown(text)}")
        answer = _answer()
        if answer is None:
            break
        if answer:
            append_rating(path, Rating(item, text, rater, answer))
            count += 1
    return count


def _answer() -> int | None:
    """A level; 0: none for this one; None: no more."""
    while True:
        screen.say("level 1 to 4, s to skip, q to stop: ", end="")
        line = sys.stdin.readline() if sys.stdin is not None else ""
        word = line.strip().lower()
        if not line or word == "q":
            return None
        if word == "s":
            return 0
        if word.isdecimal() and int(word) in LEVELS:
            return int(word)
        screen.say("expected 1, 2, 3, 4, s or q")


def summary_table(summary: dict[str, Any]) -> str:
    """How many captions got each level, for people."""
    rows = [
        [
            str(one["level"]),
            f"{one['ratings']:,}",
            screen.percent(one["share"] or 0),
            one["meaning"],
        ]
        for one in summary["levels"]
    ]
    mean = "-" if summary["mean"] is None else f"{summary['mean']:.2f}"
    head = (
        f"{summary['ratings']:,} ratings of {summary['captions']:,} captions by "
        f"{summary['raters']:,}; mean level {mean}"
    )
    return f"{head}\n{screen.table(rows)}"
