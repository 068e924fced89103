"""Memory that is used again: fresh pages of the operating system cost more than a small kernel.

A block is free when nobody refers to it any more, neither a tensor here nor one that a user was given: its
reference count says so. Knows bytes; nothing of what they mean.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 16  # bytes; smaller ones come from torch
_ALIGNMENT = 64
_STEPS = 8  # sizes of blocks between a power of two and the next
_PATIENCE = 512  # blocks handed out, after which one that was not among them is given back
_COUNTED = hasattr(sys, "getrefcount") and getattr(sys, "_is_gil_enabled", lambda: True)()


class _Block:
    def __init__(self, size: int) -> None:
        self.memory: np.ndarray[Any, Any] = np.empty(size + _ALIGNMENT, dtype=np.uint8)
        self.start = -self.memory.ctypes.data % _ALIGNMENT
        self.used = 0

    def references(self) -> int:
        """How many refer to the array, this block and the question included."""
        return sys.getrefcount(self.memory)

    def is_free(self) -> bool:
        """Whether nobody else refers to the array."""
        return self.references() == _ALONE


_ALONE = _Block(0).references()  # what the interpreter itself counts differs between versions


class Arena:
    """Blocks by size."""

    def __init__(self) -> None:
        self._blocks: dict[int, list[_Block]] = {}
        self._lock = threading.Lock()
        self._clock = itertools.count(1)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor on the CPU, its values left as they are; aligned to 64 bytes."""
        size = math.prod(shape) * dtype.itemsize
        if size < _SMALLEST or not _COUNTED:
            return torch.empty(*shape, dtype=dtype, device="cpu")
        block, memory = self._take(_rounded(size))
        view = torch.from_numpy(memory[block.start : block.start + size])
        return view.view(dtype).view(*shape)

    def _take(self, size: int) -> tuple[_Block, np.ndarray[Any, Any]]:
        with self._lock:
            now = next(self._clock)
            blocks = self._blocks.setdefault(size, [])
            block = next((b for b in blocks if b.is_free()), None)
            if block is None:
                self._give_back(now)
                block = _Block(size)
                self._blocks.setdefault(size, []).append(block)
            block.used = now
            return block, block.memory  # taken before the lock is open

    def _give_back(self, now: int) -> None:
        """Drop free blocks that were not asked for in a long time."""
        for size, blocks in list(self._blocks.items()):
            kept = [b for b in blocks if now - b.used < _PATIENCE or not b.is_free()]
            if kept:
                self._blocks[size] = kept
            else:
                del self._blocks[size]

    def clear(self) -> None:
        """Drop every free block."""
        with self._lock:
            self._give_back(next(self._clock) + _PATIENCE)

    def held(self) -> int:
        """Bytes of all blocks, those in use included."""
        with self._lock:
            return sum(size * len(blocks) for size, blocks in self._blocks.items())


def _rounded(size: int) -> int:
    """The next of eight sizes between two powers of two."""
    step = max(_SMALLEST // _STEPS, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step


ARENA = Arena()
"""The one of this process."""
