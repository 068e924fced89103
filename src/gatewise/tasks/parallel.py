"""A parallel text as its parts: which files belong together, and what is train, valid and test.

    train.de train.en val.de val.en     files in twos, source first
    folder/  or  folder/corpus          --source de --target en: folder/train.de + folder/train.en, ...
    train.tsv valid.tsv, all.jsonl      tables with both sides

The part is the word of the file's name that says train, val, valid, validation, dev or test. Where no name
says so, the pairs are drawn into parts by a fixed seed, all pairs of one source into the same part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gatewise.errors import DataError, OptionError
from gatewise.tasks.pairs import Pairs, read_pairs, read_parallel
from gatewise.tasks.skips import Skips
from gatewise.tasks.tables import FORMATS

PARTS = ("train", "valid", "test")
_NAMES = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}


@dataclass(frozen=True)
class ParallelText:
    """Pairs of texts by part.

    Args:
        parts: "train" and perhaps "valid" and "test".
        notes: what the reader should know: what was left out, how parts were made.
        by_name: whether the files' names say the parts.
    """

    parts: dict[str, list[tuple[str, str]]]
    notes: list[str] = field(default_factory=list)
    by_name: bool = True


def read_parallel_text(
    data: Sequence[str | Path],
    *,
    source: str | None = None,
    target: str | None = None,
    fractions: Sequence[float] = (0.9, 0.05, 0.05),
) -> ParallelText:
    """The pairs in files or a folder.

    Args:
        data: files in twos, tables, or one folder or prefix.
        source, target: of a folder, how the names of its files end (de, en); of a table, its columns.
        fractions: shares of train, valid and test where no name says the part.
    Raises:
        DataError: what cannot be read, with file and line.
        OptionError: the files do not go in twos, or a folder's languages are not said.
    """
    parts: dict[str, list[tuple[str, str]]] = {}
    skips, whole = Skips(), True
    for name, pairs in _read(data, source, target):
        part = part_of(name)
        whole = whole and part is None
        parts.setdefault(part or "train", []).extend(pairs)
        skips.entries.extend(pairs.skipped.entries)
    notes = [skips.summary()] if len(skips) else []
    if "train" not in parts and len(parts) == 1 and not whole:
        return ParallelText(parts, notes)
    if whole:
        parts = _cut(parts["train"], checked_shares(fractions))
    return ParallelText(dict(sorted(parts.items(), key=_place)), notes, by_name=not whole)


def part_of(name: str | Path) -> str | None:
    """The part that a file's name says, or None.

    >>> part_of("data/val.de.gz"), part_of("test_2016_flickr.en"), part_of("contest.tsv")
    ('valid', 'test', None)
    """
    words = re.split(r"[^a-z]+", Path(name).name.lower())
    return next((_NAMES[word] for word in words if word in _NAMES), None)


def _place(item: tuple[str, object]) -> int:
    return PARTS.index(item[0])


def _read(
    data: Sequence[str | Path], source: str | None, target: str | None
) -> list[tuple[str, Pairs]]:
    """(name, pairs) of each file, or two files."""
    files = _files(data, source, target)
    found = []
    for group in files:
        if len(group) == 1:
            found.append((str(group[0]), read_pairs(group[0], source, target)))
        else:
            found.append((str(group[0]), read_parallel(*group)))
    return found


def _files(
    data: Sequence[str | Path], source: str | None, target: str | None
) -> list[tuple[Path, ...]]:
    paths = [Path(one) for one in data]
    if len(paths) == 1 and not paths[0].is_file():
        return _of_prefix(paths[0], source, target)
    for path in paths:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "nothing"
            raise DataError(f"expected a file, found {what} at {path}: check the path")
    tables = [path for path in paths if _is_table(path)]
    if len(tables) == len(paths):
        return [(path,) for path in paths]
    if tables or len(paths) % 2:
        names = " ".join(path.name for path in paths)
        raise OptionError(
            f"expected files in twos (SOURCE TARGET), or tables ({', '.join(FORMATS)}), found {names}: "
            "name both sides of each text"
        )
    return list(zip(paths[::2], paths[1::2], strict=True))


def _of_prefix(path: Path, source: str | None, target: str | None) -> list[tuple[Path, ...]]:
    """The files of a folder, or those whose names begin so, by twos."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir() or not (path.is_dir() or any(folder.glob(path.name + "*"))):
        raise DataError(f"expected a file, a folder or a prefix, found nothing at {path}")
    if source is None or target is None:
        raise OptionError(
            f"{path}: expected --source and --target with a folder or a prefix: how do the names "
            "of its files end (--source de --target en)?"
        )
    start = "" if path.is_dir() else path.name
    found: list[tuple[Path, ...]] = []
    for one in sorted(folder.iterdir()):
        stem = _without(one.name, source)
        if stem is None or not one.name.startswith(start):
            continue
        others = [folder / f"{stem}.{target}{end}" for end in ("", ".gz")]
        other = next((o for o in others if o.is_file()), None)
        if other is None:
            raise DataError(
                f"expected {others[0].name} or {others[1].name} beside {one}, found neither: "
                "each text needs both sides"
            )
        found.append((one, other))
    if not found:
        raise DataError(
            f"expected files that end in .{source} or .{source}.gz, found none at {path}"
        )
    return found


def _without(name: str, language: str) -> str | None:
    for end in (f".{language}", f".{language}.gz"):
        if name.endswith(end) and len(name) > len(end):
            return name[: -len(end)]
    return None


def _is_table(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    return any(name.endswith(end) for end in FORMATS)


def checked_shares(fractions: Sequence[float]) -> list[float]:
    """The shares of train, valid and test.

    Raises:
        OptionError: if they are none.
    """
    shares = [float(one) for one in fractions]
    if not 1 <= len(shares) <= len(PARTS) or min(shares) < 0 or not 0 < sum(shares) <= 1 + 1e-9:
        raise OptionError(
            f"--fractions: expected up to three shares with a sum of at most 1, found {shares}"
        )
    return shares


def _cut(pairs: list[tuple[str, str]], shares: Sequence[float]) -> dict[str, list[tuple[str, str]]]:
    """The parts: sources are drawn, and all pairs of a source go together."""
    sources = list(dict.fromkeys(one for one, _ in pairs))
    order = np.random.default_rng(0).permutation(len(sources))
    ends = np.rint(np.cumsum(shares) * len(sources)).astype(int)
    part_of_source = {
        sources[k]: int(np.searchsorted(ends, rank, side="right")) for rank, k in enumerate(order)
    }
    parts: dict[str, list[tuple[str, str]]] = {name: [] for name in PARTS[: len(shares)]}
    for pair in pairs:
        place = part_of_source[pair[0]]
        if place < len(shares):
            parts[PARTS[place]].append(pair)
    return {name: part for name, part in parts.items() if part}


__all__ = ["PARTS", "ParallelText", "part_of", "read_parallel_text"]
