"""Masks drawn on a card: bit for bit those of NumPy's Philox4x64-10. Knows a key and a threshold; no names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import c_void_p
from functools import cache

import torch
from torch import Tensor

from gatewise.card.platform import Card, Platform

CARD = Card()

_THREADS = 128  # of a block
_DRAWN = 16  # numbers of a thread: four words of 64 bits
_BITS = 0xFFFF_FFFF_FFFF_FFFF
_NAME = "gatewise_drops"

TEXT = """\
struct gatewise_drops_arguments {
  const unsigned long long *place;
  unsigned long long seed, name;
  long long count, below;
  unsigned char *mask;
};

extern "C" __global__ void gatewise_drops(const gatewise_drops_arguments a, const long long) {
  const long long block = (long long)blockIdx.x * blockDim.x + threadIdx.x, first = block * 16;
  if (first >= a.count) return;
  unsigned long long v[4] = {(unsigned long long)block + 1, 0, 0, 0}, name = a.name;
  unsigned long long seed = a.place ? *a.place : a.seed;
  for (int round = 0; round < 10; ++round) {
    const unsigned long long left = 0xD2E7470EE14C6C93ull, right = 0xCA5A826395121157ull;
    const unsigned long long high = __umul64hi(left, v[0]), low = left * v[0];
    v[0] = __umul64hi(right, v[2]) ^ v[1] ^ seed;
    v[1] = right * v[2];
    v[2] = high ^ v[3] ^ name;
    v[3] = low;
    seed += 0x9E3779B97F4A7C15ull;
    name += 0xBB67AE8584CAA73Bull;
  }
  for (int k = 0; k < 16; ++k)
    if (first + k < a.count) a.mask[first + k] = (long long)(v[k / 4] >> k % 4 * 16 & 0xffff) < a.below;
}
"""
"""A thread draws one block of the counter: sixteen numbers of 16 bits, low ones first."""


def drops(
    seed: int | Tensor,
    stream: int,
    shape: Sequence[int],
    below: int,
    device: torch.device | str,
    platform: Platform = CARD,
) -> Tensor:
    """A boolean mask on the device, True where the number drawn there is below `below`.

    Args:
        seed: of the generator, 64 bits of it; a tensor on the device is read when the kernel runs.
        stream: the other half of its key.
        shape: of the mask.
        below: 0 to 2^16.
        device: of `platform`'s kind.
        platform: where it runs.
    """
    mask = torch.empty(tuple(shape), dtype=torch.bool, device=device)
    count = math.prod(shape)
    if count:
        blocks = -(-count // (_DRAWN * _THREADS))
        with platform.here(mask.device):
            key = (seed.data_ptr(), 0) if isinstance(seed, Tensor) else (0, seed & _BITS)
            arguments = (*key, stream, count, below, mask.data_ptr())
            queue = platform.stream(mask.device)
            kernel = _kernel(platform, mask.device)
            platform.driver().bind(kernel, arguments, blocks, _THREADS, queue)(0)
    return mask


@cache
def _kernel(platform: Platform, device: torch.device) -> c_void_p:
    """The kernel on a device, made at most once."""
    (found,) = platform.driver().load(platform.compile(TEXT, device), [_NAME])
    return found
