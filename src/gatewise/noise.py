"""Randomness as data: masks from a counter-based generator, the same for every engine and device.

A mask depends on a seed and a name only, never on how many were drawn before it (Philox4x64-10,
Salmon et al. 2011), so engines agree, a resumed run continues exactly, and backward could draw the same
mask again; on an NVIDIA card they are drawn there, the same bits. One seed is taken from torch's global CPU generator per call: torch.manual_seed rules.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

from gatewise.card import masks

_STEPS = 1 << 16
_MOST_SEEDS = 64  # of one recorded step


class Tape:
    """Seeds in a device's memory, for a step that is recorded once and replayed: each replay draws anew.

    Args:
        device: which the masks are for.
    """

    def __init__(self, device: torch.device) -> None:
        self._seeds = torch.zeros(_MOST_SEEDS, dtype=torch.int64, device=device)
        self._drawn = torch.zeros(_MOST_SEEDS, dtype=torch.int64, device="cpu")
        if device.type == "cuda":
            self._drawn = self._drawn.pin_memory()
        self._count = 0

    @contextmanager
    def recording(self) -> Iterator[None]:
        """A block in which noise has its seed from here, instead of drawing one."""
        self._count = 0
        token = _TAPE.set(self)
        try:
            yield
        finally:
            _TAPE.reset(token)

    def next(self) -> Tensor:
        """The place of the next seed of the step."""
        self._count += 1
        if self._count > _MOST_SEEDS:
            raise RuntimeError(f"a step draws more than {_MOST_SEEDS} seeds")
        return self._seeds[self._count - 1]

    def draw(self) -> None:
        """Draw the seeds of the next replay: those that the step would draw itself."""
        for place in range(self._count):
            self._drawn[place] = _seed()
        self._seeds.copy_(self._drawn, non_blocking=True)


_TAPE: ContextVar[Tape | None] = ContextVar("tape", default=None)


def _seed() -> Tensor:
    return torch.randint(2**63 - 1, (), device="cpu")


class Noise:
    """The masks of one call.

    Args:
        seed: any integer; the same seed gives the same masks. In a program of torch.compile a tensor:
            it is drawn when the program runs.
        taped: whether that tensor is a place of a tape, read when the masks are drawn.
    """

    def __init__(self, seed: int | Tensor, *, taped: bool = False) -> None:
        self.seed = seed
        self._taped = taped

    @classmethod
    def draw(cls) -> Noise:
        """Noise whose seed comes from torch's global CPU generator."""
        # a program of torch.compile cannot read a ContextVar, and is never recorded itself
        if not torch.compiler.is_compiling() and (tape := _TAPE.get()) is not None:
            return cls(tape.next(), taped=True)
        seed = _seed()
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
        if isinstance(self.seed, Tensor) and not self._taped:
            mask: Tensor = _drops(self.seed, name, list(shape), p, place)
            return mask
        stream, below = zlib.crc32(name.encode()), round(p * _STEPS)
        if place.type == masks.CARD.device and masks.CARD.available() is None:
            return masks.drops(self.seed, stream, shape, below, place)
        key = int(self.seed) & 0xFFFF_FFFF_FFFF_FFFF, stream
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
