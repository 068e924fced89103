"""Memory for weights that are read from end to end at every step: on large pages where the system gives
them to shared memory (on Linux: shmem_enabled).
"""

from __future__ import annotations

import contextlib
import mmap

import torch
from torch import Tensor

_LARGE = 1 << 21


def settled(tensor: Tensor) -> Tensor:
    """A copy for reading; a large one lies on large pages, so that no time goes into finding pages."""
    tensor = tensor.detach().contiguous()
    size = tensor.numel() * tensor.element_size()
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if size < _LARGE or advice is None:
        return tensor.clone()
    memory = mmap.mmap(-1, -(-size // _LARGE) * _LARGE + _LARGE)
    with contextlib.suppress(OSError):
        memory.madvise(advice)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    start = -whole.data_ptr() % _LARGE
    place = whole[start : start + size]
    place.copy_(tensor.view(torch.uint8).flatten())
    return place.view(tensor.dtype).view(tensor.shape)
