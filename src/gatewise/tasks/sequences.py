"""Numeric series and what is to be read off each: a class, a number, or nothing.

Time is the first dimension, channels the second; lengths may differ; a missing value is NaN, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from gatewise.errors import DataError
from gatewise.tasks.skips import Skips
from gatewise.text.ragged import Ragged

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


@dataclass(frozen=True, eq=False)
class Series:
    """Series of numbers and what is to be read off each.

    Args:
        values: (T_k, D) float32 each; NaN where a value is missing.
        channels: names of the D channels.
        labels: the class of each, if they have one.
        targets: the number of each, (n,), if they have one.
        ids: what each is called in its file.
        skipped: series that were left out.
    """

    values: Ragged
    channels: list[str]
    labels: list[str] | None = None
    targets: Array | None = None
    ids: list[str] = field(default_factory=list)
    skipped: Skips = field(default_factory=Skips)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def missing(self) -> int:
        """How many values are NaN."""
        return int(np.isnan(self.values.values).sum())

    @property
    def classes(self) -> list[str]:
        """The labels that occur, sorted; none where the series have no class."""
        return sorted(set(self.labels or []))

    def take(self, rows: Sequence[int]) -> Series:
        """Those series, in that order; what was left out stays with the whole."""
        return Series(
            self.values.take(rows),
            self.channels,
            None if self.labels is None else [self.labels[k] for k in rows],
            None if self.targets is None else self.targets[list(rows)],
            [self.ids[k] for k in rows],
        )

    def summary(self) -> str:
        """What there is, for one line."""
        lengths = self.values.lengths
        shortest, longest = int(lengths.min()), int(lengths.max())
        steps = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        kind = "" if self.labels is None else f", {len(self.classes)} classes"
        gaps = f", {self.missing:,} values missing" if self.missing else ""
        return f"{len(self):,} series of {steps} steps, {len(self.channels)} channels{kind}{gaps}"


def usable(found: Series, name: str, known: bool = True) -> Series:
    """Without the series that have no step or a number that is not finite; if `known`, no label or target."""
    skipped, kept = Skips(), []
    for k, length in enumerate(found.values.lengths):
        where = f"{name}, series {found.ids[k]}"
        if not length or np.isnan(found.values[k]).all():
            skipped.add(where, "no value")
        elif np.isinf(found.values[k]).any():
            skipped.add(where, "a value that is not finite")
        elif known and found.labels is not None and found.labels[k].strip() in ("", "?"):
            skipped.add(where, "no label")
        elif known and found.targets is not None and not np.isfinite(found.targets[k]):
            skipped.add(where, "no target")
        else:
            kept.append(k)
    if not kept:
        said = skipped.summary()
        raise DataError(f"{name}: expected series, found none{said and f' ({said})'}")
    whole = found if len(kept) == len(found) else found.take(kept)
    return Series(whole.values, whole.channels, whole.labels, whole.targets, whole.ids, skipped)
