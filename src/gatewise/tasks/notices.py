"""Sentences with persons, places, firms and dates in them, made by a grammar: a tagging task on every machine.

Names are made of syllables. Most sentences say what a name is by what stands around it, on both sides; some say
nothing ("Belmor was quiet ."), and there only the name itself tells: what it was in other sentences, or, of a new
one, its last syllable, which is wrong for one name in eight. So known words can be had right, and not all new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gatewise.tasks.columns import Sentence, TaggedText

_FIRST = (
    "Bel",
    "Ka",
    "Tor",
    "Mi",
    "Ves",
    "Ol",
    "Har",
    "Ne",
    "Rin",
    "Sal",
    "Du",
    "Fen",
    "Lo",
    "Pra",
)
_MIDDLE = ("", "mo", "ri", "da", "ne", "lu", "ta", "vi")
_LAST = {
    "PER": ("r", "n", "ssa", "lin"),
    "LOC": ("vik", "den", "mar", "nd"),
    "ORG": ("ck", "rt", "ld", "ra"),
}
_EXCEPTIONS, _BORROWED, _NEW = 1 / 8, 0.15, 0.33
"""Names whose last syllable misleads; names that are another kind in a sentence; new names of the test part."""

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("January", "March", "April", "June", "August", "October", "December")
_JOBS = ("engineer", "painter", "minister", "driver", "singer", "doctor", "player")
_ENDS = ("Ltd.", "Inc.", "Works", "Bank", "Lines", "Group")
COUNTS = {"train": 4000, "valid": 500, "test": 1000}

# PER, LOC, ORG and DATE are filled in, BARE by any of the first three; {job} and {n} are words of no kind
_PATTERNS = (
    "PER , a {job} from LOC , joined ORG DATE .",
    "DATE ORG opened an office in LOC .",
    "PER said that ORG had left LOC .",
    "The {job} PER flew from LOC to LOC .",
    "Shares of ORG fell {n} percent DATE .",
    "ORG hired PER as its {job} .",
    "In LOC , PER met PER DATE .",
    "PER lives near LOC and works for ORG .",
    "It rained in LOC DATE .",
    "ORG and ORG will merge , said PER .",
    "The mayor of LOC thanked ORG and PER .",
    "{n} people watched PER in LOC DATE .",
    "PER 's {job} bought ORG for {n} million .",
    "BARE was quiet DATE .",
    "Everyone knows BARE .",
    "The {job} spoke of BARE and BARE .",
    "BARE : {n} .",
)


@dataclass(frozen=True)
class _Names:
    """The names of a part by kind, and the kind of each."""

    homes: Mapping[str, str]
    by_kind: Mapping[str, list[str]]


def notices(seed: int = 0, counts: Mapping[str, int] | None = None) -> TaggedText:
    """Sentences of train, valid and test in BIO; a third of the names in the last two are new.

    Args:
        seed: of all.
        counts: sentences of each part. Default: `COUNTS`.
    """
    draws = np.random.default_rng((seed, 0))
    homes = {}
    for kind, ends in _LAST.items():
        for name in sorted({a + b + c for a in _FIRST for b in _MIDDLE for c in ends}):
            homes[name] = str(draws.choice(list(_LAST))) if draws.random() < _EXCEPTIONS else kind
    names = draws.permutation(sorted(homes)).tolist()
    cut = len(names) * 7 // 10
    known, new = (_names(some, homes) for some in (names[:cut], names[cut:]))
    parts = {}
    for number, (part, count) in enumerate((counts or COUNTS).items(), 1):
        draws = np.random.default_rng((seed, number))
        fresh = 0.0 if part == "train" else _NEW
        parts[part] = [_sentence(draws, known, new, fresh) for _ in range(count)]
    return TaggedText(parts)


def _names(names: list[str], homes: Mapping[str, str]) -> _Names:
    by_kind = {kind: [name for name in names if homes[name] == kind] for kind in _LAST}
    return _Names({name: homes[name] for name in names}, by_kind)


def _sentence(draws: np.random.Generator, known: _Names, new: _Names, fresh: float) -> Sentence:
    words: list[str] = []
    tags: list[str] = []
    for mark in _PATTERNS[int(draws.integers(len(_PATTERNS)))].split():
        if mark not in (*_LAST, "DATE", "BARE"):
            free = {"{job}": str(draws.choice(_JOBS)), "{n}": str(int(draws.integers(2, 900)))}
            words.append(free.get(mark, mark))
            tags.append("O")
            continue
        kind, found = _filled(draws, mark, new if draws.random() < fresh else known)
        words += found
        tags += [f"{'I' if k else 'B'}-{kind}" for k in range(len(found))]
    return words, tags


def _filled(draws: np.random.Generator, mark: str, names: _Names) -> tuple[str, list[str]]:
    """The kind, and the words that stand for a mark."""
    if mark == "DATE":
        return mark, _date(draws)
    if mark == "BARE" or draws.random() < _BORROWED:
        name = str(draws.choice(list(names.homes)))
        return (names.homes[name], [name]) if mark == "BARE" else (mark, [name])
    name, second = (str(one) for one in draws.choice(names.by_kind[mark], 2))
    if mark == "PER" and draws.random() < 0.5:
        return mark, [name, second]
    if mark == "ORG" and draws.random() < 0.4:
        return mark, [name, str(draws.choice(_ENDS))]
    return mark, ["North", name] if mark == "LOC" and draws.random() < 0.15 else [name]


def _date(draws: np.random.Generator) -> list[str]:
    if draws.random() < 0.5:
        return ["on", str(draws.choice(_DAYS))]
    year = [str(int(draws.integers(1950, 2030)))] if draws.random() < 0.5 else []
    return ["in", str(draws.choice(_MONTHS)), *year]
