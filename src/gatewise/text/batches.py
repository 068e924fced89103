"""Batch-ification: one long row of ids as independent streams side by side; and whole sequences, padded.

The only place where x is shifted to y. Knows nothing of text or models.

`abcdefghijklmnopqrstuvwxyz` in 4 columns has 26 // 4 = 6 rows; y and z are trimmed. Each column
is a stream of its own, read downwards in windows; the state at the end of a window is carried,
detached, into the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gatewise.errors import DataError, OptionError
from gatewise.text.ragged import Ragged

Row = NDArray[Any]

PADDING = -100
"""A target that counts for nothing, as in torch's cross entropy."""

_DRAWN_WINDOWS = 3
_DRAWN_COLUMNS = 24
_DRAWN_ROWS = 24


def batchify(ids: Row, batch_size: int) -> Row:
    """`ids` in `batch_size` columns, trimmed: a view, nothing is copied.

    Args:
        ids: (N,); a memory map is not loaded.
        batch_size: number of columns, B.
    Returns:
        columns: (R, B) with R = N // B; column b is ids[b * R : (b + 1) * R].
    Raises:
        OptionError: if batch_size is below 1.
        DataError: if there would be fewer than 2 rows: x and y need one each.
    """
    if batch_size < 1:
        raise OptionError(f"expected a batch size of at least 1, found {batch_size}")
    if ids.ndim != 1:
        raise DataError(f"expected ids in one row (N,), found shape {ids.shape}")
    rows = len(ids) // batch_size
    if rows < 2:
        raise DataError(
            f"expected at least {2 * batch_size} tokens for a batch size of {batch_size} "
            f"(2 rows), found {len(ids)}: give more text or a smaller --batch-size"
        )
    return ids[: rows * batch_size].reshape(batch_size, rows).T


class Stream:
    """Windows of x and y over ids in columns; works on a memory map without loading it.

    Args:
        ids: (N,).
        batch_size: number of columns, B.

    Attributes:
        batch_size: number of columns, B.
        rows: length of each column, R. Rows 0 to R - 2 are inputs.
        steps: rows that have a target, R - 1.

    Raises:
        OptionError, DataError: as `batchify`.
    """

    def __init__(self, ids: Row, batch_size: int) -> None:
        self._columns = batchify(ids, batch_size).T
        self.batch_size = batch_size
        self.rows = int(self._columns.shape[1])
        self.steps = self.rows - 1

    def window(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        """The inputs of rows start to start + length, and their targets, one row further.

        The last window is as short as the data end.

        Returns:
            x: (L, B) int64, L = min(length, R - 1 - start).
            y: (L, B) int64; y[t, b] follows x[t, b] in column b.
        Raises:
            OptionError: if start is not an input's row, or length is below 1.
        """
        if not 0 <= start < self.steps:
            raise OptionError(f"expected a start from 0 to {self.steps - 1}, found {start}")
        if length < 1:
            raise OptionError(f"expected a window (bptt) of at least 1 step, found {length}")
        end = min(start + length, self.steps)
        block = np.ascontiguousarray(self._columns[:, start : end + 1].T, dtype=np.int64)
        both = torch.from_numpy(block)
        return both[:-1], both[1:].clone()

    def windows(self, length: int, start: int = 0) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(start, x, y) of each window from `start` to the end of the data."""
        for at in range(start, self.steps, length):
            yield (at, *self.window(at, length))

    def shard(self, rank: int, world_size: int) -> Stream:
        """The columns of one of `world_size` processes: an equal share, in order.

        Raises:
            OptionError: if the columns cannot be shared equally, or there is no such rank.
        """
        if world_size < 1 or self.batch_size % world_size:
            raise OptionError(
                f"expected a batch size that {world_size} processes can share equally, "
                f"found {self.batch_size}"
            )
        if not 0 <= rank < world_size:
            raise OptionError(f"expected a rank from 0 to {world_size - 1}, found {rank}")
        share = self.batch_size // world_size
        part = object.__new__(Stream)
        part._columns = self._columns[rank * share : (rank + 1) * share]
        part.batch_size, part.rows, part.steps = share, self.rows, self.steps
        return part


def shifted(
    sequences: Ragged, rows: Sequence[int] | Row, begin: int, end: int, padding: int = PADDING
) -> tuple[Tensor, Tensor, Tensor]:
    """Whole sequences as what is read and what is to be predicted: y[t] follows x[t].

    >>> from gatewise.text.ragged import Ragged
    >>> x, y, lengths = shifted(Ragged.of([np.array([5, 6]), np.array([7])]), [0, 1], begin=1, end=2)
    >>> x.T.tolist(), y.T.tolist(), lengths.tolist()
    ([[1, 5, 6], [1, 7, 1]], [[5, 6, 2], [7, 2, -100]], [3, 2])

    Args:
        sequences: ids.
        rows: which, B of them.
        begin: the id that stands before each.
        end: the id that stands after each.
        padding: what stands in y where nothing is predicted.
    Returns:
        x (T, B), y (T, B), lengths (B,), all int64, T one more than the longest.
    """
    lengths = sequences.lengths[np.asarray(rows, np.int64)]
    ids = sequences.padded(rows, begin).long()
    x = torch.nn.functional.pad(ids, (0, 0, 1, 0), value=begin)
    y = torch.nn.functional.pad(ids, (0, 0, 0, 1), value=begin)
    steps, ends = torch.arange(len(y)).unsqueeze(1), torch.from_numpy(lengths)
    y = torch.where(steps < ends, y, torch.where(steps == ends, end, padding))
    return x, y, ends + 1


def picture(text: str, batch_size: int, bptt: int) -> str:
    """A drawing of how the characters of `text` become columns and windows.

    What does not fit on a page is left out and said so.

    Args:
        text: one character per token.
        batch_size: number of columns, B.
        bptt: rows per window, T.
    Raises:
        OptionError, DataError: as `Stream`.
    """
    if bptt < 1:
        raise OptionError(f"expected a window (bptt) of at least 1 step, found {bptt}")
    codes = np.array([ord(c) for c in text], np.int64)
    stream = Stream(codes, batch_size)
    trimmed = text[stream.rows * batch_size :]
    lines = [
        f"{len(text)} tokens in {batch_size} columns: {stream.rows} rows, "
        + (f"{len(trimmed)} trimmed ({_letters(trimmed)})" if trimmed else "none trimmed"),
        "",
        *_table(batchify(codes, batch_size)),
        "",
        "Each column is an independent stream: the batch.",
    ]
    for number, (start, x, y) in enumerate(stream.windows(bptt), 1):
        if number > _DRAWN_WINDOWS:
            left = -(-stream.steps // bptt) - _DRAWN_WINDOWS
            lines += ["", f"... {left} more {'window' if left == 1 else 'windows'}"]
            break
        lines += ["", *_window(number, start, x, y)]
    return "\n".join(lines)


def _window(number: int, start: int, x: Tensor, y: Tensor) -> list[str]:
    """A window's x and y side by side, and where its state comes from."""
    came = "h[0] = 0" if number == 1 else f"h[0] <- h[T] of batch {number - 1}, detached"
    left, right = _table(x.numpy()), _table(y.numpy())
    width = max(map(len, left))
    return [
        f"batch {number}: rows {start + 1} to {start + len(x)} (T = {len(x)}), {came}",
        f"{'x':<{width}}     y",
        *(f"{a:<{width}}     {b}" for a, b in zip(left, right, strict=True)),
    ]


def _table(codes: Row) -> list[str]:
    """Rows of letters, cut to a page."""
    rows = [
        " ".join(_letter(c) for c in row[:_DRAWN_COLUMNS])
        + (" ..." if len(row) > _DRAWN_COLUMNS else "")
        for row in codes[:_DRAWN_ROWS]
    ]
    return rows + (["..."] if len(codes) > _DRAWN_ROWS else [])


def _letters(text: str) -> str:
    shown = " ".join(_letter(ord(c)) for c in text[:_DRAWN_COLUMNS])
    return shown + (" ..." if len(text) > _DRAWN_COLUMNS else "")


def _letter(code: int) -> str:
    """One column's width for any character: white space and the unprintable as a sign."""
    character = chr(int(code))
    if character == " ":
        return "\u2423"
    if character == "\n":
        return "\u21b5"
    return character if character.isprintable() else "\u00b7"
