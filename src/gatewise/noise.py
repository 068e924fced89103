"""Randomness as data: masks from a counter-based generator, the same for every engine and device.

A mask depends on a seed and a name only, never on how many were drawn before it (Philox4x64-10,
Salmon et al. 2011), so engines agree, a resumed run continues exactly, and backward could draw the same
mask again. One seed is taken from torch's global CPU generator per call: torch.manual_seed rules.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

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

    def drops(self, name: str, shape: Sequence[int], p: float) -> Tensor:
        """A boolean mask, True with probability `p` (rounded to a multiple of 2^-16), on the CPU.

        Args:
            name: of the mask; each name has its own independent stream.
            shape: of the mask.
            p: probability of True.
        """
        if isinstance(self.seed, Tensor):
            mask: Tensor = _drops(self.seed, name, list(shape), p)
            return mask
        count = math.prod(shape)
        key = np.array(
            [self.seed & 0xFFFF_FFFF_FFFF_FFFF, zlib.crc32(name.encode())], dtype=np.uint64
        )
        raw = np.random.Philox(key=key).random_raw(-(-count // 4) or 1)
        words = np.asarray(raw, dtype="<u8").view("<u2")[:count]
        return torch.from_numpy(words < round(p * _STEPS)).reshape(tuple(shape))

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
        kept = ~self.drops(name, shape, p)
        scale = 1.0 / (1.0 - p) if p < 1 else 0.0
        return kept.to(device=device, dtype=dtype).mul_(scale)


@torch.library.custom_op("gatewise::drops", mutates_args=())
def _drops(seed: Tensor, name: str, shape: Sequence[int], p: float) -> Tensor:
    """`Noise.drops` as an operator of a traced program."""
    return Noise(int(seed)).drops(name, shape, p)


@_drops.register_fake
def _(seed: Tensor, name: str, shape: Sequence[int], p: float) -> Tensor:
    return torch.empty(shape, dtype=torch.bool, device="cpu")
