"""The kernels of a cell as CUDA C: one step forward, one step backward, all gates of a unit in one thread.

Knows a layout and how arrays lie in memory; what a line of C looks like `kernel` and `lines` know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from gatewise.cells.equations import Expr
from gatewise.engine.cpu.emit import BackwardPass, Forward
from gatewise.engine.cpu.layout import Layout
from gatewise.engine.cuda.kernel import Kernel, Kind, Program, prelude
from gatewise.engine.cuda.together import Split, Together

Pass: TypeAlias = "BackwardPass[str]"


def program(layout: Layout, kind: Kind) -> Program:
    """The kernels of a layout."""
    kernels = {"forward": _forward(Kernel("gatewise_forward", kind), layout, kind)}
    if layout.variant.grad:
        kernels["backward"] = _backward(Kernel("gatewise_backward", kind), layout)
    return _program(kernels, kind)


def program_together(layout: Layout, kind: Kind, forward: Split, backward: Split | None) -> Program:
    """Those that run all steps in one launch."""
    inner = forward.size
    k = Together("gatewise_forward", kind, forward, inner, transposed=False)
    kernels: dict[str, Kernel] = {"forward": _forward(k, layout, kind)}
    if backward is not None:
        inner *= len(layout.law.recurrent_blocks)
        k = Together("gatewise_backward", kind, backward, inner, transposed=True)
        kernels["backward"] = _backward(k, layout)
    return _program(kernels, kind)


def _program(kernels: Mapping[str, Kernel], kind: Kind) -> Program:
    text = prelude(kind) + "\n".join(k.text() for k in kernels.values())
    return Program(text, {name: k.entry() for name, k in kernels.items()})


class _Point:
    """Where the values of one unit of one column come from, and go to (`emit.Source`)."""

    def __init__(self, kernel: Kernel, layout: Layout) -> None:
        self.kernel = kernel
        self.layout = layout

    def input(self, kind: str, name: str) -> str:
        if kind == "state":
            return self.kernel.read(f"before:{name}", "at")
        if kind == "param":
            return self.kernel.read(f"param:{name}", "unit")
        raise AssertionError(f"{kind}.{name}")

    def control(self, name: str) -> tuple[str, str]:
        k = self.kernel
        over_time, over_rows = k.number(f"control_t:{name}"), k.number(f"control_b:{name}")
        place = f"t * {over_time} + row * {over_rows} + unit"
        return k.read(f"alpha:{name}", place), k.read(f"beta:{name}", place)

    def zoneout(self, state: str) -> str:
        if self.layout.zoneout[state] == "share":
            return self.kernel.read(f"zoneout:{state}", "0", "real")
        return self.kernel.flag(f"zoneout:{state}", "at")

    def kept(self, slot: str) -> str:
        if self.layout.is_state(slot):
            return self.kernel.read(f"after:{slot[2:]}", "at")
        return self.kernel.read(slot, "at")

    def keep(self, slot: str, value: str) -> None:
        self.kernel.write(slot, "at", value)

    def block(self, part: str, name: str) -> str:
        """The place of a block in the arrays of pre-activations, (T, B, blocks, H)."""
        law = self.layout.law
        blocks = law.pre if part == "x" else law.recurrent_blocks
        return f"(line * {len(blocks)} + {blocks.index(name)}) * a.H + unit"


class _ForwardPoint(_Point):
    def input(self, kind: str, name: str) -> str:
        if not kind.startswith("pre"):
            return super().input(kind, name)
        x = self.kernel.read("xs", self.block("x", name), "low") if kind != "pre.h" else None
        if kind == "pre.x" or name not in self.layout.law.recurrent_blocks:
            assert x is not None
            return x
        h = self._hidden(name)
        return h if x is None else self.kernel.lines.add(x, h)

    def _hidden(self, name: str) -> str:
        """R h of a block, and its bias where the parts are read apart."""
        blocks, k = self.layout.law.recurrent_blocks, self.kernel
        index = blocks.index(name)
        h = k.hidden(index, len(blocks))
        if not self.layout.apart:
            return h
        return k.lines.add(h, k.read("bias_h", f"{index} * a.H + unit"))


class _BackwardPoint(_Point):
    def __init__(self, kernel: Kernel, layout: Layout, incoming: dict[str, str]) -> None:
        super().__init__(kernel, layout)
        self._incoming = incoming

    def input(self, kind: str, name: str) -> str:
        return self._incoming[name] if kind == "grad" else super().input(kind, name)


# --- forward -------------------------------------------------------------------------------------


def _forward(k: Kernel, layout: Layout, kind: Kind) -> Kernel:
    point = _ForwardPoint(k, layout)
    states = Forward[str](k.lines, layout, point).run()
    variant = layout.variant
    valid = k.flag("valid", "line") if variant.ragged else None
    cut = k.flag("cut", "line") if variant.cut else None
    for name, value in states.items():
        if name == "h" and (variant.ragged or variant.cut):
            zero = k.lines.number(0.0)
            shown = value if valid is None else k.lines.where(valid, value, zero)
            k.write("output", "at", shown, "low")
        if valid is not None:
            value = k.lines.where(valid, value, point.input("state", name))
        if cut is not None:
            value = k.lines.where(cut, k.read(f"start:{name}", "unit"), value)
        k.write(f"after:{name}", "at", value)
        if name == "h" and kind.low != kind.wide:
            k.write("after_low:h", "at", value, "low")
        if name == "h":
            k.pass_on("unit", value)
    return k


# --- backward ------------------------------------------------------------------------------------


def _backward(k: Kernel, layout: Layout) -> Kernel:
    carried = _carried(k, layout)
    incoming = dict(carried)
    incoming["h"] = k.lines.add(carried["h"], k.read("d_output", "at", "low"))
    step: Pass = BackwardPass(k.lines, layout, _BackwardPoint(k, layout, incoming))
    valid = k.flag("valid", "line") if layout.variant.ragged else None

    def inside(value: str | None, otherwise: str) -> str:
        if value is None:
            value = k.lines.number(0.0)
        return value if valid is None else k.lines.where(valid, value, otherwise)

    _write_input_gradients(k, layout, step, lambda value: inside(value, k.lines.number(0.0)))
    for name in layout.law.params:
        if found := step.total(_gradient(layout, "param", name)):
            total = k.lines.add(
                k.read(f"d_param:{name}", "i", "real"), inside(found, k.lines.number(0.0))
            )
            k.write(f"d_param:{name}", "i", total, "real")
    for name, after in carried.items():
        found = step.total(_gradient(layout, "state", name))
        k.write(f"d:{name}", "i", inside(found, after), "real")
    return k


def _carried(k: Kernel, layout: Layout) -> dict[str, str]:
    """The gradients of the states after the step, from the steps behind it."""
    found = {}
    cut = k.flag("cut", "line") if layout.variant.cut else None
    for name in layout.law.states:
        value = k.read(f"d:{name}", "i", "real")
        if name == "h" and layout.law.recurrent_blocks:
            value = k.lines.add(value, k.back())
        if cut is not None:  # what came after began anew
            value = k.lines.where(cut, k.lines.number(0.0), value)
        found[name] = value
    return found


def _gradient(layout: Layout, kind: str, name: str) -> tuple[Expr, ...]:
    found = layout.backward.gradients.get((kind, name))
    return () if found is None else (found,)


def _write_input_gradients(
    k: Kernel, layout: Layout, step: Pass, inside: Callable[[str | None], str]
) -> None:
    """The gradients of the pre-activations; of the x parts only where they are others than the h parts."""
    law, point = layout.law, _Point(k, layout)
    sides = {"h": law.recurrent_blocks}
    if layout.apart or law.recurrent_blocks != law.pre:
        sides["x"] = law.pre
    for part, blocks in sides.items():
        for name in blocks:
            value = inside(step.total(layout.input_gradient(part, name)))
            k.write(f"d{part}", point.block(part, name), value, "low")
            if part == "h":
                k.pass_on(f"{blocks.index(name)} * a.H + unit", value)
