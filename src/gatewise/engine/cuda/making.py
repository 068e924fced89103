"""The kernels of a law on a card, made at most once, and bound to their arguments. Knows no numbers that flow."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from ctypes import c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch

from gatewise.cells.base import Law
from gatewise.engine.cpu.layout import Layout, Variant
from gatewise.engine.cuda.driver import Driver, Launch, compile_text, driver, nvrtc
from gatewise.engine.cuda.kernel import Entry, Kind, Program
from gatewise.engine.cuda.source import program, program_together
from gatewise.engine.cuda.together import LOW, Split, split

_THREADS = 128  # of a block: small, so that a small batch still spreads over the card


class Platform(Protocol):
    """Where kernels run: a card, or what stands in for one in a test."""

    device: str
    """The type of torch device whose tensors it reads."""

    def available(self) -> str | None:
        """None if it can run on this machine, else why not."""

    def compile(self, text: str, device: torch.device) -> bytes:
        """What `driver` can load."""

    def driver(self) -> Driver:
        """What loads and launches."""

    def stream(self, device: torch.device) -> int:
        """The queue in which torch works on the device."""

    def here(self, device: torch.device) -> AbstractContextManager[object]:
        """Makes the device the current one."""

    def together(self, device: torch.device) -> int:
        """How many blocks can wait for each other and use its tensor cores; 0: none."""

    def __hash__(self) -> int:
        """Kernels are kept by where they run."""


class Card:
    """An NVIDIA card, through NVRTC and the CUDA driver."""

    device = "cuda"

    @staticmethod
    @cache
    def _available() -> str | None:
        if torch.version.hip is not None or torch.version.cuda is None:
            return "this torch is not built for CUDA"
        if not torch.cuda.is_available():
            return "there is no CUDA device"
        return None if nvrtc() is not None else "NVRTC, which compiles for the card, was not found"

    def available(self) -> str | None:
        return self._available()

    def compile(self, text: str, device: torch.device) -> bytes:
        return compile_text(text, torch.cuda.get_device_capability(device))

    def driver(self) -> Driver:
        return driver()

    def stream(self, device: torch.device) -> int:
        return int(torch.cuda.current_stream(device).cuda_stream)

    def here(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.cuda.device(device)

    def together(self, device: torch.device) -> int:
        if torch.cuda.get_device_capability(device) < (8, 0):
            return 0
        return int(torch.cuda.get_device_properties(device).multi_processor_count)


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


@cache
def kernels_together(
    platform: Platform, layout: Layout, kind: Kind, size: int, device: torch.device
) -> KernelsTogether | None:
    """The same for H = `size`, with the weights held on the card; None where it cannot hold them."""
    blocks, most = len(layout.law.recurrent_blocks), platform.together(device)
    if kind.low not in LOW or not blocks:
        return None
    there = split(size, blocks, size, most)
    back = split(size, 1, blocks * size, most) if layout.variant.grad else None
    if there is None or (back is None and layout.variant.grad):
        return None
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
