"""The kernels of a law, made at most once. Knows layouts and the compiler; no numbers that flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from llvmlite import ir

from gatewise.cells.base import Law
from gatewise.engine.cpu import threads
from gatewise.engine.cpu.backward import emit_backward
from gatewise.engine.cpu.compiling import functions, has_dots, vector_bytes
from gatewise.engine.cpu.forward import emit_forward
from gatewise.engine.cpu.lanes import Kind
from gatewise.engine.cpu.layout import Layout, Variant
from gatewise.engine.cpu.program import Program


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel: where it is, and the order of its arguments."""

    address: int
    arguments: tuple[str, ...]

    def __call__(self, values: Mapping[str, int], workers: int) -> None:
        threads.run(self.address, [values[name] for name in self.arguments], workers)


@dataclass(frozen=True)
class Kernels:
    """Those of one layout and kind of number."""

    layout: Layout
    kind: Kind
    forward: Kernel
    backward: Kernel | None


@cache
def kernels(law: Law, variant: Variant, dtype: torch.dtype) -> Kernels:
    """The kernels of a law, compiled at most once."""
    return _make(Layout(law, variant), str(dtype).removeprefix("torch."))


@cache
def kind_of(name: str, narrow: bool = False) -> Kind:
    """The numbers of the kernels on this processor."""
    width = vector_bytes()
    return Kind(
        name,
        width // (4 if name == "float32" else 8),
        registers=32 if width == 64 else 16,
        narrow=narrow,
        dots=has_dots(),
    )


def make(module: ir.Module, programs: Sequence[Program]) -> list[Kernel]:
    """The kernels of a module, compiled or from the cache."""
    threads.publish()
    addresses = functions(module, [p.function.name for p in programs])
    return [
        Kernel(address, tuple(sorted(p.arguments, key=p.arguments.__getitem__)))
        for p, address in zip(programs, addresses, strict=True)
    ]


def _make(layout: Layout, name: str) -> Kernels:
    kind = kind_of(name, layout.variant.narrow)
    module = ir.Module()
    programs = {"forward": emit_forward(module, layout, kind)}
    if layout.variant.grad:
        programs["backward"] = emit_backward(module, layout, kind)
    made = dict(zip(programs, make(module, list(programs.values())), strict=True))
    return Kernels(layout, kind, made["forward"], made.get("backward"))
