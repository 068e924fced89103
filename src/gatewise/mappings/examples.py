"""Examples that stand by themselves, in an order that depends on the epoch alone, and their batches.

What a stream of text is to a language model, a set of examples is to every mapping with a vector on one
side: no state goes from batch to batch. Sequences of like length are put together, so that little is
padding. It knows lengths; what an example is its mapping knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gatewise.errors import DataError, OptionError

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

_MOST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How examples are put into batches."""

    batch_size: int = 32
    """Examples in a batch."""

    eval_batch_size: int = 128
    """Examples in a batch of the evaluation; changes speed and memory only."""

    bucket: int = 16
    """Sort so many batches' examples by length before they are cut into batches; 1: not at all."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        for name in ("batch_size", "eval_batch_size", "bucket"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
                flag = "--" + name.replace("_", "-")
                raise OptionError(
                    f"{flag}: expected a whole number from 1 to {_MOST:,}, found {value}"
                )


class Order:
    """Which examples are in a batch: a function of the epoch and the position.

    Args:
        lengths: of the examples, (n,): what is sorted by.
        batch_size: examples in a batch.
        bucket: batches' worth of examples that are sorted together.
        seed: of the shuffling.
    Raises:
        DataError: if there is no example.
    """

    def __init__(self, lengths: Array, batch_size: int, bucket: int = 1, seed: int = 0) -> None:
        if not len(lengths):
            raise DataError("expected at least one example to train on, found none")
        self._lengths = np.asarray(lengths, np.int64)
        self.batch_size = batch_size
        self._bucket = bucket
        self._seed = seed
        self._epoch = -1
        self._rows: Array = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Examples in an epoch: the positions of `rows`."""
        return len(self._lengths)

    def rows(self, epoch: int, position: int) -> Array:
        """The examples of the batch that begins at `position`; the epoch's last one may be short."""
        if not 0 <= position < len(self):
            raise OptionError(f"expected a position from 0 to {len(self) - 1}, found {position}")
        if epoch != self._epoch:
            self._rows, self._epoch = self._shuffled(epoch), epoch
        return self._rows[position : position + self.batch_size]

    def _shuffled(self, epoch: int) -> Array:
        draws = np.random.default_rng((self._seed, epoch))
        rows = draws.permutation(len(self))
        if self._bucket == 1:
            return rows
        size, window = self.batch_size, self.batch_size * self._bucket
        parts = [rows[at : at + window] for at in range(0, len(rows), window)]
        rows = np.concatenate([p[np.argsort(self._lengths[p], kind="stable")] for p in parts])
        # batches in a drawn order, or every window would go from short to long; the short one stays last
        whole = len(rows) // size
        batches = rows[: whole * size].reshape(whole, size)[draws.permutation(whole)]
        return np.concatenate([batches.reshape(-1), rows[whole * size :]])


def in_order(lengths: Array, batch_size: int) -> list[Array]:
    """All examples in batches of like length: for an evaluation, where the order changes nothing."""
    rows = np.argsort(np.asarray(lengths), kind="stable")
    return [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
