"""One direction of a layer as one function with a gradient: kernels over time between large products.

Knows a law, its weights and what is asked of the run; it knows no stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.engine.arguments import Arguments
from gatewise.engine.cpu import forks
from gatewise.engine.cpu.arena import ARENA
from gatewise.engine.cpu.between import Products
from gatewise.engine.cpu.layout import Layout
from gatewise.engine.cpu.making import Kernels
from gatewise.engine.cpu.packing import (
    backward_panels,
    forward_panels,
    pad,
    pad_rows,
    padded,
)
from gatewise.engine.cpu.products import column_sums, linear, product, transposed_product
from gatewise.engine.cpu.program import BACKWARD_WIDE, BETWEEN_WIDE
from gatewise.engine.cpu.staged import room
from gatewise.engine.differentiable import differentiable
from gatewise.engine.preparing import Setting

_SMALL = 1 << 15  # products of a step below which a second thread costs more than it does


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a direction, without the numbers that flow.

    Args:
        made: its kernels.
        setting: what is asked of it.
        shown: dtype of the states that leave, h excepted.
    """

    made: Kernels
    setting: Setting
    shown: torch.dtype

    @property
    def layout(self) -> Layout:
        """Its layout."""
        return self.made.layout


def run(
    job: Job,
    x: Tensor,
    ih: Tensor,
    hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    params: Mapping[str, Tensor],
    states: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """h (T, B, H) and the last states; what is recorded is left in the setting's slots."""
    inputs = [x, ih, hh, b_ih, b_hh, *params.values(), *states.values()]
    h, *final = differentiable(lambda given: _Call(job, given), job.setting.again, inputs)
    return h, dict(zip(states, final, strict=True))


class _Call:
    """The arrays of one forward and backward pass."""

    def __init__(self, job: Job, inputs: Sequence[Tensor | None]) -> None:
        self.job, self.layout, self.kind = job, job.layout, job.made.kind
        law = self.layout.law
        x, ih, hh, _, _, *rest = inputs
        assert x is not None and ih is not None and hh is not None
        self.steps, self.batch = x.shape[0], x.shape[1]
        self.units = ih.shape[0] // len(law.pre)
        self.size = padded(self.units, self.kind.lanes)
        self.widths = {"H": self.units, "P": hh.shape[1]}
        self.sizes = {w: padded(n, self.kind.lanes) for w, n in self.widths.items()}
        self._outer = self.layout.widths.state(self.layout.hidden)
        """The width of what leaves the cell."""
        self.wide = torch.float32 if self.kind.narrow else x.dtype
        self.stored = torch.bfloat16 if self.kind.narrow else x.dtype
        self._like = x
        own = dict(zip(law.params, rest, strict=False))
        matrices = {n: v for n, v in own.items() if v is not None and v.ndim > 1}
        self._products = Products(self.layout, self.kind, matrices, self.sizes)
        self._params = {
            n: pad(_solid(v, self.wide), self.size) for n, v in own.items() if n not in matrices
        }
        self._given = dict(zip(law.states, rest[len(law.params) :], strict=True))
        self.states: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self._inputs: tuple[Tensor, Tensor]
        self._versions: list[int] = []

    # --- forward ---------------------------------------------------------------------------------

    def forward(self, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """h and the last states."""
        x, ih, hh, b_ih, b_hh = inputs[:5]
        assert x is not None and ih is not None and hh is not None
        layout, job, law = self.layout, self.job, self.layout.law
        a = self._common(forward=True)
        self._inputs = self._flat(x), pad_rows(ih.to(self.stored), len(law.pre), self.size)
        xs = linear(*self._inputs, self._input_bias(b_ih, b_hh))
        a.point("xs", xs)
        blocks = len(law.recurrent_blocks)
        if blocks:
            a.point("weights", forward_panels(hh, blocks, self.size, self.kind))
        if layout.apart:
            a.point("bias_h", self._hidden_bias(b_hh))
        self._place_states(a)
        for slot in layout.kept:
            self.kept[slot] = a.point(slot, self._array(slot))
        h = "operand" if layout.operand else layout.hidden
        output = a.point("output", self._array("output")) if layout.output else self._after(h)
        for name, start in job.setting.starts.items():
            a.point(f"start:{name}", pad(_solid(start, self.wide), self._size(f"start:{name}")))
        a.values["panels"] = self.size // self.kind.lanes
        a.values["depth"] = -(-self.widths[self._outer] // self.kind.factors)
        a.values["lda"] = self.sizes[self._outer] // self.kind.factors
        self._point_space(a, forward=True)
        self._products.point(a, self._array)
        job.made.forward(a.values, self._workers(blocks))
        for name in layout.variant.recorded:
            job.setting.slots[name] = self._recorded(name)
        last = 0 if job.setting.reverse else self.steps
        self._versions = self._current_versions()
        finals = []
        for name in law.states:
            final = self.states[name][last, :, : self._units(f"before:{name}")]
            finals.append(_copied(final, self.stored if name == layout.hidden else job.shown))
        return output[..., : self.widths[self._outer]], *finals

    def _flat(self, x: Tensor) -> Tensor:
        """(T B, I), as the products read it."""
        return x.detach().reshape(-1, x.shape[-1]).to(self.stored)

    def _current_versions(self) -> list[int]:
        if not self.layout.variant.grad:  # and in inference mode there are none
            return []
        return [t._version for t in (*self.states.values(), *self.kept.values())]

    def _recorded(self, name: str) -> Tensor:
        slot, state = self.layout.slot_of(name), name.removesuffix(".new")
        other = state in self.layout.law.states and state != self.layout.hidden
        dtype, units = self.job.shown if other else self.stored, self._units(slot)
        if self.layout.is_state(slot):
            return _copied(self._after(slot[2:])[..., :units], dtype)
        return self.kept[slot][..., :units].to(dtype)

    def _place_states(self, a: Arguments) -> None:
        first = self.steps if self.job.setting.reverse else 0
        given = dict(self._given)
        if self.layout.operand:
            given["operand"] = given[self.layout.hidden]
        for name, value in given.items():
            assert value is not None
            array = self._array(f"before:{name}", self.steps + 1)
            units = value.shape[-1]
            array[first, :, :units] = value
            if array.shape[-1] > units:
                array[first, :, units:] = 0
            self.states[name] = array
            self._point_states(a, name, array)

    def _point_states(self, a: Arguments, name: str, array: Tensor) -> None:
        row = self.batch * array.shape[-1]
        a.offset(f"before:{name}", array, row if self.job.setting.reverse else 0)
        a.offset(f"after:{name}", array, 0 if self.job.setting.reverse else row)

    def _after(self, name: str) -> Tensor:
        """(T, B, Hp): a state after each step."""
        return self.states[name][:-1] if self.job.setting.reverse else self.states[name][1:]

    def _before(self, name: str) -> Tensor:
        return self.states[name][1:] if self.job.setting.reverse else self.states[name][:-1]

    def _input_bias(self, b_ih: Tensor | None, b_hh: Tensor | None) -> Tensor | None:
        """b_ih, and b_hh where the two parts are only read together; (G Hp,)."""
        if b_ih is None:
            return None
        law = self.layout.law
        bias = pad_rows(b_ih, len(law.pre), self.size)
        if self.layout.apart or not law.recurrent_blocks:
            return bias.to(self.stored)
        assert b_hh is not None
        hidden = pad_rows(b_hh, len(law.recurrent_blocks), self.size)
        if law.recurrent_blocks == law.pre:
            return (bias + hidden).to(self.stored)
        both = bias.view(len(law.pre), -1).clone()
        both[[law.pre.index(n) for n in law.recurrent_blocks]] += hidden.view(-1, self.size)
        return both.flatten().to(self.stored)

    def _hidden_bias(self, b_hh: Tensor | None) -> Tensor:
        blocks = len(self.layout.law.recurrent_blocks)
        if b_hh is None:
            return self._like.new_zeros(blocks * self.size, dtype=self.wide)
        return _solid(pad_rows(b_hh, blocks, self.size), self.wide)

    # --- backward --------------------------------------------------------------------------------

    def backward(
        self,
        inputs: Sequence[Tensor | None],
        gradients: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        """The gradients of all inputs."""
        layout, law = self.layout, self.layout.law
        hh = inputs[2]
        assert hh is not None
        if self._current_versions() != self._versions:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                "inplace operation: an output or a recorded value of the compiled engine"
            )
        a = self._common(forward=False)
        blocks, rows = len(law.recurrent_blocks), self.steps * self.batch
        for name, array in self.states.items():
            self._point_states(a, name, array)
        for slot, kept in self.kept.items():
            a.point(slot, kept)
        a.point("d_output", self._padded_gradient(gradients[0]))
        d_states = {
            n: a.point(f"d:{n}", self._state_gradient(n, g))
            for n, g in zip(law.states, gradients[1:], strict=True)
        }
        a.values["dh_row"] = blocks * self.size
        a.values["depth"] = blocks * self.size // self.kind.factors
        dh = a.point("dh", ARENA.empty((rows, blocks * self.size), self.stored))
        same = not layout.apart and law.recurrent_blocks == law.pre
        dx = dh
        if not same:
            width = len(law.pre) * self.size
            dx = a.point("dx", ARENA.empty((rows, width), self.stored))
        if blocks:
            panels = backward_panels(hh, blocks, self.size, self.kind)
            a.point("weights", panels)
        workers = self._workers(blocks)
        self._point_space(a, forward=False)
        each = workers if layout.by_rows else 1  # threads that own rows sum apart
        zeros = self._like.new_zeros(each, self.size, dtype=self.wide)
        d_params = {n: a.point(f"d_param:{n}", zeros.clone()) for n in self._params}
        self._products.point_back(a, self._array)
        a.values["panels"] = -(-self.sizes[self._outer] // (BACKWARD_WIDE * self.kind.lanes))
        assert self.job.made.backward is not None
        self.job.made.backward(a.values, workers)
        d_own = {n: d.sum(0)[: self.units] for n, d in d_params.items()}
        d_own |= self._products.gradients(self.wide)
        return self._collect(inputs, wanted, dx, dh, d_own, d_states)

    def _collect(
        self,
        inputs: Sequence[Tensor | None],
        wanted: Sequence[bool],
        dx: Tensor,
        dh: Tensor,
        d_own: Mapping[str, Tensor],
        d_states: Mapping[str, Tensor],
    ) -> list[Tensor | None]:
        law, (flat, weight) = self.layout.law, self._inputs
        x, ih, hh, b_ih, b_hh = inputs[:5]
        assert x is not None and ih is not None and hh is not None
        count, blocks = len(law.pre), len(law.recurrent_blocks)
        found: list[Tensor | None] = [None] * len(inputs)
        if wanted[0]:
            found[0] = product(dx, weight).view(x.shape)
        if wanted[1]:
            found[1] = self._rows(transposed_product(dx, flat), count)
        if wanted[2] and not blocks:
            found[2] = torch.zeros_like(hh)
        elif wanted[2]:
            before = self._before("operand" if self.layout.operand else self.layout.hidden)
            before = before.flatten(0, 1)[:, : hh.shape[1]]
            found[2] = self._rows(transposed_product(dh, before), blocks)
        # one sum where both parts have the same gradient
        d_bias_x = d_bias_h = None
        if b_ih is not None and (wanted[3] or (dx is dh and wanted[4])):
            d_bias_x = d_bias_h = column_sums(dx, self.kind)
        if b_hh is not None and dx is not dh and wanted[4]:
            d_bias_h = column_sums(dh, self.kind)
        if d_bias_x is not None and wanted[3]:
            found[3] = self._rows(d_bias_x, count)
        if d_bias_h is not None and wanted[4]:
            found[4] = self._rows(d_bias_h, blocks)
        for k, name in enumerate(law.params):
            found[5 + k] = d_own[name]
        offset = 5 + len(law.params)
        for k, name in enumerate(law.states):
            if not wanted[offset + k]:
                continue
            d = d_states[name][:, : self._units(f"d:{name}")]
            if name == self.layout.hidden and blocks:
                first = self.steps - 1 if self.job.setting.reverse else 0
                rows = dh.view(self.steps, self.batch, -1)[first]
                d = d + rows @ pad_rows(hh.to(self.stored), blocks, self.size)
            found[offset + k] = d
        pairs = zip(found, inputs, strict=True)
        return [None if d is None or t is None else d.to(t.dtype) for d, t in pairs]

    def _rows(self, value: Tensor, blocks: int) -> Tensor:
        """(blocks Hp, ...) without the padding."""
        if self.units == self.size:
            return value
        split = value.reshape(blocks, self.size, *value.shape[1:])
        return split[:, : self.units].flatten(0, 1)

    def _padded_gradient(self, given: Tensor | None) -> Tensor:
        if given is None:
            return self._array("d_output").zero_()
        return pad(_solid(given, self.stored), self.sizes[self._outer])

    def _state_gradient(self, name: str, given: Tensor | None) -> Tensor:
        """What the kernel starts from, and changes."""
        d = self._like.new_zeros(self.batch, self._size(f"d:{name}"), dtype=self.wide)
        if given is not None:
            d[:, : given.shape[-1]] = given
        return d

    # --- both ------------------------------------------------------------------------------------

    def _common(self, forward: bool) -> Arguments:
        a, job, law = Arguments(), self.job, self.layout.law
        ascending = forward != job.setting.reverse
        a.values |= {
            "T": self.steps,
            "B": self.batch,
            "most": max(self.sizes[w] for w in self.layout.widths.all),
            "xs_row": len(law.pre) * self.size,
            "t0": 0 if ascending else self.steps - 1,
            "dir": 1 if ascending else -1,
        }
        for w in self.layout.widths.all:
            row = self.batch * self.sizes[w]
            a.values |= {w: self.widths[w], f"{w}p": self.sizes[w], f"step:{w}": row}
            a.values[f"once:{w}"] = row if self.layout.variant.grad else 0
            a.values[f"panels:{w}"] = -(-self.sizes[w] // (BETWEEN_WIDE * self.kind.lanes))
        a.point("barrier", torch.zeros(8, dtype=torch.int64))
        for name, value in self._params.items():
            a.point(f"param:{name}", value)
        for name, (alpha, beta) in job.setting.controls.items():
            shape, size = alpha.shape, padded(alpha.shape[-1], self.kind.lanes)
            a.point(f"alpha:{name}", pad(_solid(alpha, self.wide), size))
            a.point(f"beta:{name}", pad(_solid(beta, self.wide), size))
            a.values[f"control_b:{name}"] = size if shape[1] > 1 else 0
            a.values[f"control_t:{name}"] = shape[1] * size if shape[0] > 1 else 0
        for name, zoneout in job.setting.zoneout.items():
            if isinstance(zoneout, Tensor):
                size = padded(zoneout.shape[-1], self.kind.lanes)
                a.point(f"zoneout:{name}", pad(_solid(zoneout, torch.uint8), size))
            else:
                share = self._like.new_full((1,), zoneout, dtype=self.wide)
                a.point(f"zoneout:{name}", share)
        for name, flags in (("valid", job.setting.valid), ("cut", job.setting.cut)):
            if flags is not None:
                a.point(name, _solid(flags, torch.uint8))
        return a

    def _array(self, name: str, steps: int | None = None) -> Tensor:
        """(T, B, units), of the numbers that the argument `name` is made of."""
        dtype = self.stored if self.layout.is_narrow(name) else self.wide
        units = () if name[:2] == "m:" else (self._size(name),)
        return ARENA.empty((steps or self.steps, self.batch, *units), dtype)

    def _units(self, name: str) -> int:
        """The units of an array, by the name of its argument."""
        return self.widths[self.layout.width(name)]

    def _size(self, name: str) -> int:
        """The same, padding included."""
        return self.sizes[self.layout.width(name)]

    def _point_space(self, a: Arguments, *, forward: bool) -> None:
        """What waits between the stages of a step, row by row."""
        if self.layout.by_rows:
            cut = self.layout.forward_cut if forward else self.layout.backward_cut
            row = room(cut, a.values["most"], self.kind)
            a.point("space", ARENA.empty((self.batch, row), self.wide))

    def _workers(self, blocks: int) -> int:
        work = self.batch * self.units * max(1, blocks) * self.units
        most = self.batch if self.layout.by_rows else forks.count()
        return 1 if work < _SMALL else min(most, forks.count())


def _solid(value: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Contiguous, of a dtype, without a graph."""
    assert value is not None
    return value.detach().to(dtype).contiguous()


def _copied(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype, copy=True)
