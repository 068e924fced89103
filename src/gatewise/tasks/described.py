"""Where a captioner's data are: files and folders of any of the formats, as parts for train, valid and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.errors import DataError, OptionError
from gatewise.tasks.captions import Captions, Described, read_captions, read_vectors
from gatewise.tasks.parallel import PARTS, checked_shares, part_of
from gatewise.tasks.pixels import read_features
from gatewise.tasks.scenes import pictures
from gatewise.tasks.skips import Skips

TABLES = (".npz", ".csv", ".tsv", ".jsonl", ".parquet", ".gz")
SCENES = {"train": 20_000, "valid": 500, "test": 1000}
"""Rendered scenes of each part, where no data are given."""


@dataclass(frozen=True, kw_only=True)
class CaptionDataOptions:
    """Where things and their texts are, and which part they belong to."""

    images: str | None = None
    """Folder of the images; default: that of the captions' file, or `images` in it."""

    split_files: tuple[str, ...] = ()
    """Files with the names of the images for train, valid and test, with commas between them."""

    features: str | None = None
    """Vectors of the images instead of the images: a .npz of names and vectors."""

    text: str = "text"
    """Of a table of vectors, the column of the texts."""

    split: str | None = None
    """Of a table, the column that says train, valid or test."""

    fractions: tuple[float, ...] = (0.9, 0.05, 0.05)
    """Shares of train, valid and test where neither file nor name says the part."""

    cache: bool = True
    """Keep decoded images and features in the user's cache folder."""

    def read(self, data: Sequence[str]) -> dict[str, Captions]:
        """The parts of what is in `data`.

        Raises:
            DataError: with file and line or entry, if there is nothing to read.
            OptionError: if tables and images are mixed, or an option does not fit.
        """
        found = [self._source(Path(one)) for one in data]
        tables = [one.vectors is not None for one in found]
        if any(tables) and not all(tables):
            raise OptionError("expected images or tables of vectors, found both")
        widths = {one.vectors.shape[1] for one in found if one.vectors is not None}
        if len(widths) > 1:
            raise DataError(f"expected vectors of one width, found {sorted(widths)}")
        whole = joined(found)
        if not any(item.split for item in whole.items):
            whole = _cut(whole, checked_shares(self.fractions))
        return {name: part for name in PARTS if len(part := whole.part(name))} | {"": whole}

    def _source(self, path: Path) -> Captions:
        if not path.exists():
            raise DataError(f"expected captions, found nothing at {path}")
        if path.is_file() and path.suffix.lower() in TABLES:
            found = read_vectors(path, self.text, self.split)
        else:
            lists = dict(zip(PARTS, self.split_files, strict=False)) or None
            bare = self.features is not None
            found = read_captions(path, self.images, lists, bare=bare)
            if self.features is not None:
                found = read_features(self.features, found)
        named = part_of(path) if len({item.split for item in found.items}) == 1 else None
        if named is None or found.items[0].split:
            return found
        items = [replace(item, split=named) for item in found.items]
        return Captions(items, found.vectors, found.skipped)


def joined(several: Sequence[Captions]) -> Captions:
    """One after the other."""
    vectors = [one.vectors for one in several if one.vectors is not None]
    skipped = Skips([entry for one in several for entry in one.skipped.entries])
    items = [item for one in several for item in one.items]
    return Captions(items, np.concatenate(vectors) if vectors else None, skipped)


def scenes(pixels: int, counts: Mapping[str, int] | None = None) -> dict[str, tuple[Any, Captions]]:
    """Rendered scenes: part -> images (n, pixels, pixels, 3) and what is said of them."""
    found = {}
    for part, count in (counts or SCENES).items():
        images, texts = pictures(count, part=part, pixels=pixels)
        items = [Described(f"{part} {k}", (text,), part) for k, text in enumerate(texts)]
        found[part] = (images, Captions(items))
    return found


def _cut(captions: Captions, shares: Sequence[float]) -> Captions:
    """The parts drawn by a fixed seed."""
    order = np.random.default_rng(0).permutation(len(captions))
    ends = np.rint(np.cumsum(shares) * len(captions)).astype(int)
    places = np.searchsorted(ends, np.argsort(order), side="right")
    names = (*PARTS[: len(shares)], *[""] * (len(PARTS) + 1 - len(shares)))
    items = [
        replace(item, split=names[place])
        for item, place in zip(captions.items, places.tolist(), strict=True)
    ]
    return Captions(items, captions.vectors, captions.skipped)
