"""The kernels of a law, made at most once. Knows layouts and the compiler; no numbers that flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from llvmlite import ir

from gatewise.cells.base import Law
from gatewise.engine.cpu import threads
from gatewise.engine.cpu.backward import emit_backward
from gatewise.engine.cpu.compiling import Written, load
from gatewise.engine.cpu.forward import emit_forward
from gatewise.engine.cpu.kinds import Kind
from gatewise.engine.cpu.layout import Layout, Variant
from gatewise.engine.cpu.program import Program
from gatewise.engine.cpu.staged import emit_staged_backward, emit_staged_forward
from gatewise.engine.cpu.target import Target, current


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


def kernels(law: Law, variant: Variant, dtype: torch.dtype) -> Kernels:
    """The kernels of a law for the current target, compiled at most once."""
    return _kernels(law, variant, dtype, current())


@cache
def _kernels(law: Law, variant: Variant, dtype: torch.dtype, target: Target) -> Kernels:
    layout, name = Layout(law, variant), str(dtype).removeprefix("torch.")
    recipe = f"time {name} {variant} {law.exact}"
    made = make(recipe, lambda: emit(layout, name, target)[1])
    kind = kind_for(name, variant.narrow, target)
    return Kernels(layout, kind, made["forward"], made.get("backward"))


def emit(layout: Layout, name: str, target: Target) -> tuple[ir.Module, dict[str, Program], Kind]:
    """The kernels of a layout as LLVM IR: "forward", and "backward" where gradients are wanted.

    Args:
        layout: of the law.
        name: of the numbers, "float32" or "float64".
        target: the processor that they are for.
    """
    kind = kind_for(name, layout.variant.narrow, target)
    module = ir.Module()
    forward, backward = emit_forward, emit_backward
    if layout.by_rows:
        forward, backward = emit_staged_forward, emit_staged_backward
    programs = {"forward": forward(module, layout, kind)}
    if layout.variant.grad:
        programs["backward"] = backward(module, layout, kind)
    return module, programs, kind


def make(recipe: str, write: Callable[[], Mapping[str, Program]]) -> dict[str, Kernel]:
    """Kernels by name, stored or compiled.

    Args:
        recipe: see `compiling.load`.
        write: makes their programs, all of one module.
    """

    def written() -> Written:
        programs = write()
        return Written(
            next(iter(programs.values())).module,
            tuple(p.function.name for p in programs.values()),
            {name: p.order() for name, p in programs.items()},
        )

    threads.publish()
    found = load(recipe, written)
    return {
        name: Kernel(address, arguments)
        for (name, arguments), address in zip(found.arguments.items(), found.addresses, strict=True)
    }


def kind_of(name: str, narrow: bool = False) -> Kind:
    """The numbers of the kernels on this processor."""
    return kind_for(name, narrow, current())


def kind_for(name: str, narrow: bool, target: Target) -> Kind:
    """The numbers of the kernels on a processor."""
    return Kind(
        name,
        target.vector_bytes // (4 if name == "float32" else 8),
        registers=target.registers,
        narrow=narrow,
        dots=target.has("avx512bf16"),
    )
