"""Texts with a class: a folder with one file per class, or a table with a column of labels.

Knows texts and labels. A split never has one text on both sides, whatever its labels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gatewise.errors import DataError, OptionError
from gatewise.tasks.skips import Skips
from gatewise.tasks.tables import lines_of, read_table, read_text

REPEATED = "a text and class that came before"
EMPTY = "no text"
NO_LABEL = "no label"


@dataclass(frozen=True)
class Labelled:
    """Texts and the class of each.

    Args:
        texts, labels: as many of each; a text may stand in several classes.
        skipped: what was left out.
    """

    texts: list[str]
    labels: list[str]
    skipped: Skips = field(default_factory=Skips)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def classes(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted(set(self.labels))

    def counts(self) -> dict[str, int]:
        """Examples of each class."""
        return dict(sorted(Counter(self.labels).items()))

    def take(self, rows: Sequence[int]) -> Labelled:
        """Those examples, in that order; what was left out stays with the whole."""
        return Labelled([self.texts[k] for k in rows], [self.labels[k] for k in rows])


def read_folder(folder: str | Path, *, repeats: bool = False) -> Labelled:
    """The files of a folder, one example a line; a file's name without its ending is the class.

    A repeated example of a class is left out, unless `repeats` keeps it; one that stands in several
    classes stays in each.

    Raises:
        DataError: if the folder holds no examples, or of one class only.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"expected a folder with one file per class, found none at {str(folder)!r}")
    rows = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != "."):
        label = path.name.removesuffix(".gz").rsplit(".", 1)[0]
        for number, line in enumerate(lines_of(read_text(path)), 1):
            rows.append((line.strip(), label, f"{path}, line {number}"))
    if not rows and any(p.is_dir() for p in folder.iterdir()):
        raise DataError(
            f"{folder}: expected one file per class, found folders alone: put each class's examples into "
            "a file of its name, an example a line, or use a table with columns of texts and labels"
        )
    return _labelled(str(folder), rows, repeats)


def read_labelled(
    path: str | Path, text: str = "text", label: str = "label", *, repeats: bool = False
) -> Labelled:
    """A table with a column of texts and one of labels: CSV, TSV, JSONL, Parquet.

    Raises:
        UnknownNameError: if a column is not there.
        DataError: if there are no examples, or of one class only.
    """
    table = read_table(path)
    columns = (table.texts(text), table.texts(label), table.lines)
    rows = [(t.strip(), c.strip(), f"{path}, line {n}") for t, c, n in zip(*columns, strict=True)]
    return _labelled(str(path), rows, repeats)


def _labelled(name: str, rows: Sequence[tuple[str, str, str]], repeats: bool) -> Labelled:
    found = Labelled([], [])
    seen: set[tuple[str, str]] = set()
    for text, label, where in rows:
        reason = EMPTY if not text else NO_LABEL if not label else ""
        if reason or ((text, label) in seen and not repeats):
            found.skipped.add(where, reason or REPEATED)
            continue
        seen.add((text, label))
        found.texts.append(text)
        found.labels.append(label)
    if len(found.classes) < 2:
        count = f"{len(found):,} examples of {len(found.classes)}"
        raise DataError(f"{name}: expected examples of two classes or more, found {count}")
    return found


def split_by_text(data: Labelled, share: float = 0.2, seed: int = 0) -> tuple[Labelled, Labelled]:
    """(train, test): of each class `share` of its texts for the test, no text on both sides.

    Args:
        data: the examples.
        share: of the test, above 0 and below 1.
        seed: of the shuffling.
    Raises:
        OptionError: if the share is not one.
    """
    train, test = split_rows(data.texts, data.labels, share, seed)
    return data.take(train), data.take(test)


def split_rows(
    keys: Sequence[str], labels: Sequence[str], share: float = 0.2, seed: int = 0
) -> tuple[list[int], list[int]]:
    """The examples of (train, test): of each class `share` of its keys for the test.

    All examples of one key go to one side. The keys are put in groups by the set of their
    classes, and each group is shuffled and cut, so that every class keeps its share; one of each
    group stays in the training part, where something can be learnt of it.

    Args:
        keys: what must not stand on both sides: texts, or the contents of series.
        labels: the class of each.
        share, seed: as of `split_by_text`.
    """
    if not 0 < share < 1:
        raise OptionError(f"expected a share of the test above 0 and below 1, found {share}")
    classes: dict[str, set[str]] = defaultdict(set)
    for key, label in zip(keys, labels, strict=True):
        classes[key].add(label)
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, several in classes.items():
        groups[tuple(sorted(several))].append(key)
    rng = np.random.default_rng(seed)
    test: set[str] = set()
    for group in sorted(groups):
        members = sorted(groups[group])
        order = rng.permutation(len(members))
        count = min(round(share * len(members)), len(members) - 1)
        test.update(members[k] for k in order[:count])
    sides: tuple[list[int], list[int]] = ([], [])
    for k, key in enumerate(keys):
        sides[key in test].append(k)
    return sides


def rare(data: Labelled, least: int = 2) -> list[str]:
    """The classes with fewer than `least` examples, to warn of: nothing is learnt or tested of them."""
    return [label for label, count in data.counts().items() if count < least]
