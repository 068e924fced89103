"""Images decoded once: arrays in the user's cache folder, under the sum of what they were made of.

An entry is one .npz, written under a temporary name and renamed; one that cannot be read counts as absent.
Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gatewise.errors import DataError
from gatewise.folders import user_cache
from gatewise.tasks.captions import Captions, Described, Image, load_images
from gatewise.tasks.skips import Skips

Arrays: TypeAlias = "dict[str, np.ndarray[Any, np.dtype[Any]]]"

_FORMAT = 1
_DAYS = 30.0
"""Entries that nobody used for so long are removed."""


def decoded(captions: Captions, pixels: int, *, cache: bool = True) -> tuple[Captions, Image]:
    """As `load_images`, from the cache where the same files were decoded at that size before.

    Args:
        captions: images with texts.
        pixels: side of the square.
        cache: false: decode anew, and keep nothing.
    Raises:
        DataError: if none can be read.
    """
    if not cache:
        return load_images(captions, pixels)
    items = captions.items

    def make() -> Arrays:
        kept, images = load_images(captions, pixels)
        names = {id(one) for one in kept.items}
        rows = [k for k, one in enumerate(items) if id(one) in names]
        return {"rows": np.array(rows, np.int64), "images": images}

    found = cached(("images", pixels, *map(_identity, items)), make)
    rows = found["rows"].tolist()
    there = set(rows)
    broken = [str(one.path) for k, one in enumerate(items) if k not in there]
    skipped = Skips([*captions.skipped.entries, *((name, "a broken image") for name in broken)])
    return Captions([items[k] for k in rows], None, skipped), found["images"]


def cached(key: Sequence[Any], make: Callable[[], Arrays]) -> Arrays:
    """The arrays that were made for that key before, or those of `make`, which are kept.

    A cache that cannot be written is done without.
    """
    name = hashlib.sha256(json.dumps([_FORMAT, *key]).encode()).hexdigest()
    path = user_cache() / "images" / f"{name}.npz"
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            found = {part: file[part] for part in file.files}
        os.utime(path)
        return found
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        found = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".npz", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                np.savez(out, **found)  # type: ignore[arg-type]  # a name may not be allow_pickle: ours are not
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError:
        pass  # it is a cache: what cannot be kept is made again
    return found


def read_features(path: str | Path, captions: Captions) -> Captions:
    """Those of the things that a file of features knows, with their vectors.

    Args:
        path: a .npz of `names` (n,), as the captions' source names the images, and `vectors` (n, D).
        captions: names with texts; images need not be there.
    Raises:
        DataError: if it is no such file, or knows none of the names.
    """
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            names, vectors = file["names"].tolist(), file["vectors"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected names and vectors as .npz: {error}") from None
    if vectors.ndim != 2 or len(names) != len(vectors):
        found = f"{len(names)} and {vectors.shape}"
        raise DataError(f"{path}: expected names (n,) and vectors (n, D), found {found}")
    rows = {name: k for k, name in enumerate(names)}
    skipped = Skips(list(captions.skipped.entries))
    kept: list[Described] = []
    for item in captions.items:
        known = item.name in rows
        if known and np.isfinite(vectors[rows[item.name]]).all():
            kept.append(item)
        else:
            skipped.add(item.name, "features that are not finite" if known else "no features")
    if not kept:
        raise DataError(
            f"{path}: expected features of the captions' images, found none of {len(captions):,}, "
            f"such as {captions.items[0].name!r}"
        )
    return Captions(kept, vectors[[rows[item.name] for item in kept]], skipped)


def _identity(item: Described) -> list[Any]:
    """What tells one state of a file from another."""
    try:
        found = os.stat(item.path or item.name)
    except OSError:
        return [item.name]
    return [str(item.path), found.st_size, found.st_mtime_ns]


def _sweep(folder: Path) -> None:
    oldest = time.time() - _DAYS * 86400
    for path in folder.glob("*.npz"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except OSError:
            continue
