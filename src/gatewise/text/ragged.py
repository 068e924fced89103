"""Sequences of unequal lengths, one after another in one array; and batches of them, padded, time first.

Knows arrays only: ids of tokens, numbers of many channels, whatever has time as its first dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError, ShapeError

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


class Ragged:
    """Sequences (T_k, ...) of unequal lengths.

    >>> three = Ragged.of([np.array([5, 6]), np.array([7]), np.array([8, 9, 10])])
    >>> three.padded([1, 2], fill=0).tolist()
    [[7, 8], [0, 9], [0, 10]]

    Args:
        values: all of them, one after another, (sum of T_k, ...).
        starts: where each begins, and the end of the last, (n + 1,) int64.
    """

    def __init__(self, values: Array, starts: Array) -> None:
        self.values = values
        self.starts = np.asarray(starts, np.int64)

    @classmethod
    def of(cls, sequences: Iterable[Array], dtype: Any = None) -> Ragged:
        """The given sequences; an empty one counts as one of length 0.

        Raises:
            ShapeError: if they differ in more than their length.
        """
        arrays = [np.asarray(one, dtype) for one in sequences]
        shapes = {one.shape[1:] for one in arrays if one.size}
        if len(shapes) > 1:
            found = " and ".join(str(s) for s in sorted(shapes))
            raise ShapeError(f"expected sequences that differ in length alone, found steps {found}")
        lengths = [len(one) for one in arrays]
        filled = [one for one in arrays if one.size]
        # where all are empty the shape of their steps still counts: (0, channels)
        blank = np.empty((0, *(arrays[0].shape[1:] if arrays else ())), dtype or np.int64)
        values = np.concatenate(filled) if filled else blank
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, k: int) -> Array:
        if not -len(self) <= k < len(self):
            raise IndexError(k)
        k %= len(self)
        return self.values[self.starts[k] : self.starts[k + 1]]

    def __iter__(self) -> Iterator[Array]:
        return (self[k] for k in range(len(self)))

    @property
    def lengths(self) -> Array:
        """T_k of each, (n,) int64."""
        return np.diff(self.starts)

    def take(self, rows: Sequence[int] | Array) -> Ragged:
        """Those sequences, copied, in that order."""
        return Ragged.of([self[int(k)] for k in rows], self.values.dtype)

    def padded(self, rows: Sequence[int] | Array, fill: float = 0) -> Tensor:
        """Those sequences side by side, (T, B, ...), T that of the longest.

        Args:
            rows: which.
            fill: what stands after the end of each.
        Raises:
            DataError: if there is no row.
        """
        chosen = np.asarray(rows, np.int64)
        if not len(chosen):
            raise DataError("expected at least one sequence, found none")
        lengths = self.lengths[chosen]
        longest = int(lengths.max(initial=0))
        batch = np.full((longest, len(chosen), *self.values.shape[1:]), fill, self.values.dtype)
        # one gather for all columns: a loop over them costs more than the copy
        times = np.arange(longest)[:, None]
        valid = times < lengths[None]
        places = (times + self.starts[chosen][None])[valid]
        batch[valid] = self.values[places]
        return torch.from_numpy(batch)


def lengths_of(ragged: Ragged, rows: Sequence[int] | Array) -> Tensor:
    """The lengths of those sequences, (B,) int64."""
    return torch.from_numpy(ragged.lengths[np.asarray(rows, np.int64)])
