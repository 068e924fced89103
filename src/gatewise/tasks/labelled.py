"""Texts or series with a class or a number each, in any of the formats, as train, valid and test parts.

    names/                           a folder with one file per class, an example a line
    reviews.csv                      a table with a column of texts, or of numbers
    Vowels_TRAIN.ts Vowels_TEST.ts   series; also .npz and tables

The part is the word of the file's name that says it. Where no name does, the test part is drawn by a fixed
seed, and so is a validation part out of what is trained on; no text or series stands in two of the parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gatewise.errors import DataError, OptionError
from gatewise.tasks.names import EMPTY, NO_LABEL, REPEATED, read_folder, split_rows
from gatewise.tasks.parallel import PARTS, part_of
from gatewise.tasks.sequences import Series
from gatewise.tasks.series import read_npz, series_of
from gatewise.tasks.skips import Skips
from gatewise.tasks.tables import FORMATS, Table, read_table
from gatewise.tasks.ts import read_ts
from gatewise.tasks.waves import waves
from gatewise.text.ragged import Ragged

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_NO_TARGET = "no target"


@dataclass(frozen=True, kw_only=True)
class ExampleOptions:
    """Where the examples are, and which part they belong to."""

    label: str | None = None
    """A table's column of classes; default: label, where there is one."""

    target: str | None = None
    """A table's column of numbers to predict, instead of a class."""

    text: str | None = None
    """A table's column of texts; default: text, where there is one. Without it the table holds series."""

    id: str | None = None
    """The column that says which series a row belongs to; without it a row is a series of one channel."""

    time: str | None = None
    """The column that the rows of a series are sorted by."""

    channels: tuple[str, ...] = ()
    """The columns of values, with commas between them; default: all others."""

    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)
    """Shares of train, valid and test where no names say them; of named parts only valid is cut."""

    split_seed: int = 0
    """Seed of the drawing of parts."""

    repeats: bool = False
    """Keep examples that occur several times; otherwise each counts once."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        shares = self.fractions
        fits = len(shares) == len(PARTS) and min(shares) >= 0 and abs(sum(shares) - 1) < 1e-6
        if not fits or not shares[0]:
            raise OptionError(
                "--fractions: expected shares of train, valid and test with the sum 1, found "
                + ",".join(f"{one:g}" for one in shares)
            )
        if self.label and self.target:
            raise OptionError("--label and --target: expected one of the two, found both")
        if self.split_seed < 0:
            raise OptionError(f"--split-seed: expected 0 or more, found {self.split_seed}")


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts or series, and what is to be said of each.

    Args:
        texts: the texts, or None.
        series: (T_k, D) float32 each, NaN where a value is missing, or None.
        channels: names of the D channels.
        labels: the class of each, where they have one.
        targets: the number of each, (n,) float64, where they have one.
    """

    texts: list[str] | None = None
    series: Ragged | None = None
    channels: list[str] = field(default_factory=list)
    labels: list[str] | None = None
    targets: Array | None = None

    def __len__(self) -> int:
        return len(self.texts if self.texts is not None else self.series or ())

    def take(self, rows: Sequence[int]) -> Examples:
        """Those examples, in that order."""
        return replace(
            self,
            texts=None if self.texts is None else [self.texts[k] for k in rows],
            series=None if self.series is None else self.series.take(rows),
            labels=None if self.labels is None else [self.labels[k] for k in rows],
            targets=None if self.targets is None else self.targets[list(rows)],
        )

    def in_order(self, channels: Sequence[str]) -> Examples:
        """With their channels as named there, where they are the same in another order."""
        if list(channels) == self.channels or sorted(channels) != sorted(self.channels):
            return self
        assert self.series is not None
        places = [self.channels.index(name) for name in channels]
        moved = Ragged(np.ascontiguousarray(self.series.values[:, places]), self.series.starts)
        return replace(self, series=moved, channels=list(channels))

    def joined(self, other: Examples, name: str) -> Examples:
        """These and others.

        Raises:
            DataError: if those, of the file `name`, are of another kind.
        """
        if self.form != other.form:
            raise DataError(f"{name}: expected {self.form} as before, found {other.form}")
        return Examples(
            None if self.texts is None else [*self.texts, *(other.texts or ())],
            None if self.series is None else Ragged.of([*self.series, *(other.series or ())]),
            self.channels,
            None if self.labels is None else [*self.labels, *(other.labels or ())],
            None if self.targets is None else np.concatenate([self.targets, other.targets or []]),
        )

    @property
    def form(self) -> str:
        """What they are, for messages: two parts of one data set say the same."""
        what = "texts" if self.series is None else f"series of {len(self.channels)} channels"
        if self.labels is not None:
            return what + " with classes"
        return what + (" with numbers" if self.targets is not None else "")

    @property
    def keys(self) -> list[str]:
        """What is the same for equal texts or series."""
        if self.texts is not None:
            return self.texts
        return [hashlib.sha256(one.tobytes()).hexdigest() for one in self.series or ()]

    @property
    def outcomes(self) -> list[str]:
        """The class of each; of numbers and of nothing always ""."""
        return self.labels if self.labels is not None else [""] * len(self)


@dataclass(frozen=True, eq=False)
class ExampleSet:
    """Examples by part.

    Args:
        parts: "train" and perhaps "valid" and "test"; or other parts alone.
        notes: what the reader should know: what was left out, how parts were made.
        by_name: whether the names of files say the parts.
    """

    parts: dict[str, Examples]
    notes: list[str] = field(default_factory=list)
    by_name: bool = True


def read_examples(
    data: Sequence[str | Path], options: ExampleOptions, *, cut: bool = True, known: bool = True
) -> ExampleSet:
    """The examples in files and folders.

    Args:
        data: files, and folders of files, of subfolders train and test, or of one file per class.
        options: columns and shares.
        cut: make the parts that no name says.
        known: whether each must have a class or a number.
    Raises:
        DataError: what cannot be read, with file and line.
        OptionError: if an option is outside its range, or a column is not said.
    """
    options.validate()
    parts: dict[str, Examples] = {}
    skips = Skips()
    named = False
    for path in _expanded([Path(one) for one in data]):
        found, skipped = _read(path, options, known)
        skips.entries.extend(skipped.entries)
        part = part_of(path.name)
        named = named or part is not None
        part = part or "train"
        found = found.in_order(next(iter(parts.values()), found).channels)
        parts[part] = parts[part].joined(found, str(path)) if part in parts else found
    first = next(iter(parts.values()))
    for name, each in parts.items():
        if each.form != first.form:
            raise DataError(f"the {name} part: expected {first.form}, found {each.form}")
    notes = [skips.summary()] if len(skips) else []
    if cut and "train" in parts:
        parts, more = _cut(parts, options, named)
        notes += more
    ordered = {name: parts[name] for name in PARTS if name in parts}
    return ExampleSet(ordered, notes, named)


def wave_examples(options: ExampleOptions) -> ExampleSet:
    """The embedded series: five forms of waves, noisy, of two channels and unequal lengths."""
    options.validate()
    made = {"train": waves(1000), "test": waves(400, part="test")}
    parts = {name: of_series(each) for name, each in made.items()}
    parts, notes = _cut(parts, options, named=True)
    return ExampleSet({name: parts[name] for name in PARTS if name in parts}, notes)


def of_series(found: Series) -> Examples:
    """Series as examples."""
    return Examples(None, found.values, found.channels, found.labels, found.targets)


def _expanded(paths: list[Path]) -> list[Path]:
    """Files, and folders with one file per class."""
    found = []
    for path in paths:
        if not path.exists():
            raise DataError(f"expected a file or a folder, found nothing at {path}: check the path")
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.name[0] != ".")
        named = [p for p in inside if p.is_dir() and part_of(p.name)]
        files = [p for p in inside if p.is_file() and _is_data(p)]
        found += files or named or [path]
    return found


def _is_data(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    return name.endswith((*FORMATS, ".ts", ".npz"))


def _read(path: Path, options: ExampleOptions, known: bool) -> tuple[Examples, Skips]:
    if path.is_dir():
        texts = read_folder(path, repeats=options.repeats)
        return Examples(texts.texts, labels=texts.labels), texts.skipped
    if not _is_data(path):
        raise DataError(
            f"{path}: expected a folder with one file per class, a table ({', '.join(FORMATS)}), or "
            "series as .ts or .npz"
        )
    suffix = path.suffix.lower()
    if suffix in (".ts", ".npz"):
        series = (read_ts if suffix == ".ts" else read_npz)(path, known=known)
        found = of_series(series)
        if known and found.labels is None and found.targets is None:
            raise DataError(f"{path}: expected a class or a number of each series, found none")
        return _once(found, path, series.ids, series.skipped, options)
    table = read_table(path)
    text = options.text or ("text" if "text" in table.columns and not options.id else None)
    options = _outcome(table, options, known)
    if text is not None:
        return _texts(table, text, options if known else replace(options, label=None, target=None))
    series = series_of(
        table,
        label=options.label,
        target=options.target,
        id=options.id,
        time=options.time,
        channels=options.channels,
        known=known,
    )
    return _once(of_series(series), path, series.ids, series.skipped, options)


def _outcome(table: Table, options: ExampleOptions, known: bool) -> ExampleOptions:
    """With the column of classes or numbers named."""
    if not known:
        label, target = options.label or "label", options.target or ""
        return replace(
            options,
            label=label if label in table.columns else None,
            target=target if target in table.columns else None,
        )
    if options.label or options.target:
        return options
    if "label" not in table.columns:
        raise OptionError(
            f"{table.name}: expected --label or --target, a column of classes or of numbers; there "
            f"are {', '.join(table.columns)}"
        )
    return replace(options, label="label")


def _texts(table: Table, text: str, options: ExampleOptions) -> tuple[Examples, Skips]:
    """Rows with a text."""
    texts = [one.strip() for one in table.texts(text)]
    labels = [one.strip() for one in table.texts(options.label)] if options.label else None
    targets = table.numbers(options.target) if options.target else None
    whole = Examples(texts, labels=labels, targets=targets)
    skips, kept = Skips(), []
    for k, one in enumerate(texts):
        reason = EMPTY if not one else ""
        if labels is not None and not labels[k]:
            reason = reason or NO_LABEL
        if targets is not None and not np.isfinite(targets[k]):
            reason = reason or _NO_TARGET
        if reason:
            skips.add(f"{table.name}, line {table.lines[k]}", reason)
        else:
            kept.append(k)
    if not kept:
        said = skips.summary()
        raise DataError(f"{table.name}: expected texts, found none{said and f' ({said})'}")
    lines = [f"line {table.lines[k]}" for k in kept]
    return _once(whole.take(kept), Path(table.name), lines, skips, options)


def _once(
    found: Examples, path: Path, ids: Sequence[str], skips: Skips, options: ExampleOptions
) -> tuple[Examples, Skips]:
    """Each example once, where it has a class and repeats are not asked for."""
    if options.repeats or found.labels is None:
        return found, skips
    seen: set[tuple[str, str]] = set()
    kept = []
    for k, pair in enumerate(zip(found.keys, found.labels, strict=True)):
        if pair in seen:
            skips.add(f"{path}, {ids[k]}", REPEATED)
        else:
            seen.add(pair)
            kept.append(k)
    return (found if len(kept) == len(found) else found.take(kept)), skips


def _cut(
    parts: dict[str, Examples], options: ExampleOptions, named: bool
) -> tuple[dict[str, Examples], list[str]]:
    """A test part where no name says any part, and a validation part where there is none."""
    parts, notes = dict(parts), []
    _, valid, test = options.fractions
    if not named and test:
        parts["train"], parts["test"] = _two(parts["train"], test, options.split_seed)
        notes.append(f"test: {len(parts['test']):,} examples, drawn by --split-seed")
    if "valid" not in parts and valid:
        share = valid / (1 - test)
        parts["train"], parts["valid"] = _two(parts["train"], share, options.split_seed + 1)
        notes.append(f"valid: {len(parts['valid']):,} examples, drawn from what is trained on")
    return {name: part for name, part in parts.items() if len(part)}, notes


def _two(whole: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    first, second = split_rows(whole.keys, whole.outcomes, share, seed)
    return whole.take(first), whole.take(second)


def overlap(parts: dict[str, Examples]) -> str:
    """A line about test and validation examples whose text or series is trained on too; "" if none is."""
    if "train" not in parts:
        return ""
    trained = set(parts["train"].keys)
    counts = {
        name: sum(key in trained for key in part.keys)
        for name, part in parts.items()
        if name != "train"
    }
    said = ", ".join(f"{count:,} of {name}" for name, count in counts.items() if count)
    return said and f"also in the training part: {said}"
