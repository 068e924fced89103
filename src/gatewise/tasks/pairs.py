"""Pairs of texts, for translation: parallel files, TSV, JSONL, CSV and Parquet, also as .gz.

Knows texts; tokens come later. A pair with an empty side is left out, counted and listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gatewise.errors import DataError
from gatewise.tasks.skips import Skips
from gatewise.tasks.tables import format_of, lines_of, read_table, read_text

EMPTY = "an empty side"


@dataclass(frozen=True)
class Pairs:
    """Texts and their translations.

    Args:
        sources, targets: as many of each.
        skipped: pairs that were left out.
    """

    sources: list[str]
    targets: list[str]
    skipped: Skips = field(default_factory=Skips)

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return zip(self.sources, self.targets, strict=True)


def read_parallel(source: str | Path, target: str | Path) -> Pairs:
    """Two files of lines that belong together.

    Raises:
        DataError: if they have different numbers of lines: with both, and where it may slip.
    """
    left, right = lines_of(read_text(source)), lines_of(read_text(target))
    if len(left) != len(right):
        line = slip(left, right)
        where = f": look near line {line:,}" if line else ""
        raise DataError(
            f"expected as many lines on both sides, found {len(left):,} in {source} and "
            f"{len(right):,} in {target}{where}"
        )
    return _pairs(str(source), left, right, range(1, len(left) + 1))


def read_pairs(path: str | Path, source: str | None = None, target: str | None = None) -> Pairs:
    """A table with a column for each side; of a TSV without names of columns, its first two.

    Args:
        path: .tsv, .csv, .jsonl, .parquet, or .tsv.gz, ...
        source, target: names of the columns. Default: a TSV has no names and two sides by place;
            others are asked for "source" and "target".
    Raises:
        DataError: with file and line, if a line has no two sides.
    """
    if format_of(path) == ".tsv" and source is None and target is None:
        return _bare_tsv(path)
    table = read_table(path)
    sides = [table.texts(source or "source"), table.texts(target or "target")]
    return _pairs(str(path), sides[0], sides[1], table.lines)


def slip(left: Sequence[str], right: Sequence[str]) -> int | None:
    """The line from which two texts no longer fit, as their lengths say; None if they say nothing.

    One side is short of lines: up to the slip lengths go together line by line, after it with the
    shift. The place with the least sum of both misfits is taken (the idea of Gale & Church 1993:
    lengths of translations go together, their logarithms' difference about normal).
    """
    a, b = (np.log1p([len(t.split()) for t in side]) for side in (left, right))
    shorter = min(len(a), len(b))
    if not shorter or len(a) == len(b):
        return None
    usual = np.median(a) - np.median(b)
    before = (a[:shorter] - b[:shorter] - usual) ** 2
    after = (a[len(a) - shorter :] - b[len(b) - shorter :] - usual) ** 2
    # cost of a slip in front of line k (from 0): lines 0..k-1 as they are, the rest shifted
    costs = np.concatenate([[0], np.cumsum(before)]) + np.concatenate(
        [np.cumsum(after[::-1])[::-1], [0]]
    )
    best = int(costs.argmin())
    at_an_end = best in (0, shorter)
    return best + 1 if at_an_end or costs[best] < 0.9 * min(costs[0], costs[-1]) else None


def _bare_tsv(path: str | Path) -> Pairs:
    left, right, numbers = [], [], []
    for number, line in enumerate(lines_of(read_text(path)), 1):
        parts = line.split("\t")
        if len(parts) < 2 and line.strip():
            found = repr(line[:60])
            raise DataError(f"{path}, line {number}: expected two texts by a tab, found {found}")
        left.append(parts[0])
        right.append(parts[1] if len(parts) > 1 else "")
        numbers.append(number)
    return _pairs(str(path), left, right, numbers)


def _pairs(name: str, left: Sequence[str], right: Sequence[str], lines: Sequence[int]) -> Pairs:
    found = Pairs([], [])
    for a, b, number in zip(left, right, lines, strict=True):
        if a.strip() and b.strip():
            found.sources.append(a.strip())
            found.targets.append(b.strip())
        else:
            found.skipped.add(f"{name}, line {number}", EMPTY)
    if not len(found):
        said = found.skipped.summary()
        raise DataError(f"{name}: expected pairs of texts, found none{said and f' ({said})'}")
    return found
