"""What captions cost nothing: the most frequent one, and that of the nearest thing. Knows texts and vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_SIDE = 16
_AT_ONCE = 256


def most_frequent(texts: Sequence[Sequence[str]]) -> str:
    """The text that stands most often in a training part, case and spaces aside; the first of several."""
    counts = Counter(plain(one) for several in texts for one in several)
    best = counts.most_common(1)[0][0]
    return next(one for several in texts for one in several if plain(one) == best)


def plain(text: str) -> str:
    """A text in lower case with single spaces: how exactly right captions are compared."""
    return " ".join(text.lower().split())


def nearest(asked: Array, known: Array) -> list[int]:
    """For each row (n, F) the row of `known` (m, F) at the least Euclidean distance."""
    rows = known.astype(np.float32).reshape(len(known), -1)
    sizes = (rows**2).sum(1)
    found: list[int] = []
    for at in range(0, len(asked), _AT_ONCE):
        part = asked[at : at + _AT_ONCE].astype(np.float32).reshape(-1, rows.shape[1])
        found += (sizes - 2 * part @ rows.T).argmin(1).tolist()
    return found


def thumbnails(images: Array) -> Array:
    """Images (n, H, W, 3) as (n, 16 16 3) numbers: means of squares."""
    count, height, width, _ = images.shape
    ys, xs = (np.linspace(0, size, _SIDE + 1).astype(int)[:-1] for size in (height, width))
    found = np.empty((count, _SIDE, _SIDE, 3), np.float32)
    areas = np.outer(np.diff([*ys, height]), np.diff([*xs, width]))[:, :, None]
    for k, image in enumerate(images):
        sums = np.add.reduceat(np.add.reduceat(image.astype(np.float32), ys, 0), xs, 1)
        found[k] = sums / areas
    return found.reshape(count, -1)
