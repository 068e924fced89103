"""Arrays as small heat maps: PNG images inside the HTML, written without any library of images."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any, TypeAlias

import numpy as np

from gatewise.display.markup import Markup, escape

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

ROWS, COLUMNS = 64, 240
"""Most pixels down and across; more values are averaged into one."""

_SHARES = ((255, 255, 255), (107, 174, 214), (8, 69, 148))
"""White, closed, to blue, open."""
_SIGNED = ((179, 88, 6), (255, 255, 255), (84, 39, 136))
"""Orange below 0, purple above it; told apart with any colour vision."""
_MISSING = (160, 160, 160)
_STEPS = 255


def heat_map(values: Array, title: str) -> Markup:
    """An image of an array, and what its colours are: rows down, columns across, a value that is no number grey.

    Values that all lie from 0 to 1 go from white to blue; others from orange, below 0, to purple, above it, the
    ends at the 98th percentile of what they are without their sign.

    Args:
        values: (rows, columns).
        title: what it says when it is pointed at.
    """
    small = shrunk(np.asarray(values, np.float64))
    finite = small[np.isfinite(small)]
    if finite.size and finite.min() >= 0 and finite.max() <= 1:
        shares, palette, key = small, _SHARES, "white 0, blue 1"
    else:
        edge = (float(np.quantile(np.abs(finite), 0.98)) if finite.size else 0.0) or 1.0
        shares, palette = 0.5 + small / (2 * edge), _SIGNED
        key = f"orange {-edge:.3g}, white 0, purple {edge:.3g}"
    levels = np.where(np.isfinite(shares), np.rint(np.clip(shares, 0, 1) * (_STEPS - 1)), _STEPS)
    data = base64.b64encode(png(levels.astype(np.uint8), _colours(palette))).decode("ascii")
    height, width = small.shape
    scale = max(1, min(6, 480 // max(width, 1)))
    tall = max(1, min(scale, 160 // max(height, 1)))
    return Markup(
        f'<img alt="{escape(title)}" title="{escape(title)}" width="{width * scale}" '
        f'height="{height * tall}" style="image-rendering:pixelated;border:1px solid #8888" '
        f'src="data:image/png;base64,{data}"/> <small>{key}</small>'
    )


def shrunk(values: Array) -> Array:
    """An array of at most 64 rows and 240 columns: means of neighbours, where there are more."""
    for axis, most in ((0, ROWS), (1, COLUMNS)):
        size = values.shape[axis]
        if size > most:
            starts = np.arange(most) * size // most
            counts = np.diff(np.append(starts, size))
            sums = np.add.reduceat(values, starts, axis=axis)
            values = sums / (counts[:, None] if axis == 0 else counts)
    return values


def png(levels: Array, palette: Array) -> bytes:
    """A PNG of indices (rows, columns) uint8 into a palette of colours (n, 3) uint8.

    Image data without filters, one bit depth of 8 and colour type 3 (W3C, Portable Network Graphics, 3rd ed.).
    """
    height, width = levels.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each line begins with its filter, none
    lines[:, 1:] = levels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"PLTE", palette.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _colours(anchors: tuple[tuple[int, int, int], ...]) -> Array:
    """255 colours between the anchors, and the one of what is no number."""
    at = np.linspace(0, len(anchors) - 1, _STEPS)
    bands = [np.interp(at, range(len(anchors)), band) for band in zip(*anchors, strict=True)]
    return np.vstack([np.rint(np.stack(bands, 1)), [_MISSING]]).astype(np.uint8)
