"""The kernels of a law on a card, made at most once, and bound to their arguments. Knows no numbers that flow."""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import c_void_p
from dataclasses import dataclass
from functools import cache

import torch

from gatewise.card import Launch, Platform
from gatewise.cells.base import Law
from gatewise.engine.cpu.layout import Layout, Variant
from gatewise.engine.cuda.kernel import Entry, Kind, Program
from gatewise.engine.cuda.source import program, program_together
from gatewise.engine.cuda.together import LOW, Split, split

_THREADS = 128  # of a block: small, so that a small batch still spreads over the card


@dataclass(frozen=True)
class Kernel:
    """A loaded kernel."""

    function: c_void_p
    entry: Entry
    platform: Platform

    def bind(self, values: Mapping[str, int], device: torch.device) -> Launch:
        """The kernel with its arguments, to be launched step by step in torch's current stream."""
        arguments = [values[name] for name in self.entry.arguments]
        blocks = -(-values["B"] * values["H"] // _THREADS)
        stream = self.platform.stream(device)
        bound = self.platform.driver().bind
        return bound(self.function, arguments, blocks, _THREADS, stream)

    def run_together(self, values: Mapping[str, int], split: Split, device: torch.device) -> None:
        """All steps in one launch."""
        arguments = [values[name] for name in self.entry.arguments]
        stream = self.platform.stream(device)
        run = self.platform.driver().run_together
        run(self.function, arguments, split.blocks, split.threads, stream)


@dataclass(frozen=True)
class Kernels:
    """Those of one layout and kind of number, on one device."""

    layout: Layout
    kind: Kind
    forward: Kernel
    backward: Kernel | None


@cache
def kernels(
    platform: Platform, law: Law, variant: Variant, kind: Kind, device: torch.device
) -> Kernels:
    """The kernels of a law, compiled at most once for each device."""
    layout = Layout(law, variant)
    found = _load(platform, program(layout, kind), device)
    return Kernels(layout, kind, found["forward"], found.get("backward"))


@dataclass(frozen=True)
class KernelsTogether:
    """Those of all steps in one launch, for one size; `forward` and `backward` as in `Kernels`."""

    forward: tuple[Kernel, Split]
    backward: tuple[Kernel, Split] | None


_FEWEST_STEPS = 4  # fewer do not pay for loading the weights
_MOST_COLUMNS = 256  # more are products that fill a card


def pays_together(steps: int, batch: int) -> bool:
    """Whether one launch of all steps is quicker than a launch for each."""
    return steps >= _FEWEST_STEPS and batch <= _MOST_COLUMNS


@cache
def splits(
    platform: Platform, law: Law, kind: Kind, size: int, grad: bool, device: torch.device
) -> tuple[Split, Split | None] | None:
    """How the weights of H = `size` lie on a card, forward and (with `grad`) backward; None: not at all."""
    blocks, most = len(law.recurrent_blocks), platform.together(device)
    if kind.low not in LOW or not blocks:
        return None
    there = split(size, blocks, size, most)
    back = split(size, 1, blocks * size, most) if grad else None
    return None if there is None or (back is None and grad) else (there, back)


@cache
def kernels_together(
    platform: Platform, layout: Layout, kind: Kind, size: int, device: torch.device
) -> KernelsTogether | None:
    """The same for H = `size`, with the weights held on the card; None where it cannot hold them."""
    held = splits(platform, layout.law, kind, size, layout.variant.grad, device)
    if held is None:
        return None
    there, back = held
    found = _load(platform, program_together(layout, kind, there, back), device)
    backward = None if back is None else (found["backward"], back)
    return KernelsTogether((found["forward"], there), backward)


def _load(platform: Platform, made: Program, device: torch.device) -> dict[str, Kernel]:
    entries = made.entries
    with platform.here(device):
        image = platform.compile(made.text, device)
        functions = platform.driver().load(image, [e.name for e in entries.values()])
    pairs = zip(entries.items(), functions, strict=True)
    return {n: Kernel(f, e, platform) for (n, e), f in pairs}
