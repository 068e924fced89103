"""What `gatewise.show` tells of a cell: its equations, and the code that the compiled engine makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from gatewise.cells.base import Cell, Law
from gatewise.cells.show import Shown
from gatewise.cells.show import show as show_equations
from gatewise.errors import EngineError, OptionError, unknown


@dataclass(frozen=True)
class Listing(Shown):
    """What `show` found out about a cell; printed, it is `text`."""

    law: Law = field(kw_only=True, repr=False)

    def code(
        self,
        *,
        assembly: bool = False,
        dtype: str = "float32",
        target: str = "",
        gradients: bool = True,
    ) -> str:
        """The kernels of the compiled engine, forward and backward, as LLVM IR or as assembly.

        Args:
            assembly: as the processor's instructions.
            dtype: "float32" or "float64".
            target: a processor by name ("x86-64-v3", "aarch64", ...). Default: the one in use.
            gradients: with the backward kernel.
        Raises:
            EngineError: if the compiled engine cannot run the cell.
        """
        if dtype not in ("float32", "float64"):
            raise OptionError(f"dtype is 'float32' or 'float64': found {dtype!r}")
        from gatewise.engine.cpu.engine import CompiledEngine

        if (why := CompiledEngine().available()) is not None:
            raise EngineError(f"there is no code to show: {why}")
        from gatewise.engine.cpu import compiling, making
        from gatewise.engine.cpu.layout import Layout, Variant, refusal
        from gatewise.engine.cpu.target import TARGETS, current

        why = "x and h modulate each other before the gates" if self.law.rounds else None
        if (why := why or refusal(self.law, by_rows=True)) is not None:
            raise EngineError(f"there is no code to show: in the cell {self.law.name} {why}")
        if target and target not in TARGETS:
            raise unknown("target", target, TARGETS)
        chosen = TARGETS[target] if target else current()
        layout = Layout(self.law, Variant(grad=gradients))
        module, _, _ = making.emit(layout, dtype, chosen)
        return compiling.assembly(module, chosen) if assembly else str(module)


def show(cell: Cell | type[Cell] | Law) -> Listing:
    """What a cell computes: its equations, their gradients, what the backward pass keeps, its code.

    Args:
        cell: a cell, its class, or its law.
    Raises:
        OptionError: if it is none of these.

    >>> from gatewise.cells import RNN
    >>> print(show(RNN).equations)
    h = tanh(a.s)
    """
    shown = show_equations(cell)
    law = cell if isinstance(cell, Law) else cell.law
    return Listing(**{f.name: getattr(shown, f.name) for f in fields(shown)}, law=law)
