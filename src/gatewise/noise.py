"""Randomness as data: masks from a counter-based generator, the same for every engine and device.

A mask depends on a seed and a name only, never on how many were drawn before it (Philox4x64-10,
Salmon et al. 2011), so engines agree, a resumed run continues exactly, and backward could draw the same
mask again; on an NVIDIA card they are drawn there, the same bits. One seed is taken from torch's global CPU generator per call: torch.manual_seed rules.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gatewise.card import masks

_STEPS = 1 << 16


class Noise:
    """The masks of one call.

    Args:
        seed: any integer; the same seed gives the same masks. In a program of torch.compile a tensor:
            it is drawn when the program runs.
    """

    def __init__(self, seed: int | Tensor) -> None:
        self.seed = seed

    @classmethod
    def draw(cls) -> Noise:
        """Noise whose seed comes from torch's global CPU generator."""
        seed = torch.randint(2**63 - 1, (), device="cpu")
        return cls(seed if torch.compiler.is_compiling() else int(seed.item()))

    def drops(
        self,
        name: str,
        shape: Sequence[int],
        p: float,
        *,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """A boolean mask, True with probability `p` (rounded to a multiple of 2^-16).

        Args:
            name: of the mask; each name has its own independent stream.
            shape: of the mask.
            p: probability of True.
            device: of the mask; an NVIDIA card draws it itself. Default: the CPU.
        """
        place = torch.device("cpu" if device is None else device)
        if isinstance(self.seed, Tensor):
            mask: Tensor = _drops(self.seed, name, list(shape), p, place)
            return mask
        key = self.seed & 0xFFFF_FFFF_FFFF_FFFF, zlib.crc32(name.encode())
        below = round(p * _STEPS)
        if place.type == masks.CARD.device and masks.CARD.available() is None:
            return masks.drops(key, shape, below, place)
        return _drawn_by_numpy(key, shape, below).to(place)

    def keep(
        self,
        name: str,
        shape: Sequence[int],
        p: float,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """A dropout mask: 0 with probability `p`, else 1 / (1 - p).

        Args:
            name: of the mask.
            shape: of the mask.
            p: probability of 0.
            dtype: of the mask.
            device: of the mask.
        """
        kept = ~self.drops(name, shape, p, device=device)
        scale = 1.0 / (1.0 - p) if p < 1 else 0.0
        return kept.to(dtype).mul_(scale)


def _drawn_by_numpy(key: tuple[int, int], shape: Sequence[int], below: int) -> Tensor:
    count = math.prod(shape)
    raw = np.random.Philox(key=np.array(key, dtype=np.uint64)).random_raw(-(-count // 4) or 1)
    words = np.asarray(raw, dtype="<u8").view("<u2")[:count]
    return torch.from_numpy(words < below).reshape(tuple(shape))


@torch.library.custom_op("gatewise::drops", mutates_args=())
def _drops(seed: Tensor, name: str, shape: Sequence[int], p: float, device: torch.device) -> Tensor:
    """`Noise.drops` as an operator of a traced program."""
    return Noise(int(seed)).drops(name, shape, p, device=device)


@_drops.register_fake
def _(seed: Tensor, name: str, shape: Sequence[int], p: float, device: torch.device) -> Tensor:
    return torch.empty(shape, dtype=torch.bool, device=device)
