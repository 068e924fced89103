"""One direction of a layer on a card: a matrix product and one kernel a step, large products before and after.

Knows a law, its weights and what is asked of the run; it knows no stack. The loop over t is Python's: what it
launches depends on the shapes alone, so that a CUDA graph can take its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.card import Platform
from gatewise.engine.arguments import Arguments
from gatewise.engine.cuda.kernel import Kind
from gatewise.engine.cuda.making import (
    Kernel,
    Kernels,
    KernelsTogether,
    kernels_together,
    pays_together,
)
from gatewise.engine.cuda.together import COLUMNS, Split
from gatewise.engine.differentiable import differentiable
from gatewise.engine.preparing import Setting


@dataclass(frozen=True, eq=False)
class Dtypes:
    """The dtypes of a run: of matrix products, of states and what is kept, and of arithmetic."""

    low: torch.dtype
    wide: torch.dtype
    real: torch.dtype

    @property
    def kind(self) -> Kind:
        """The same by name."""
        return Kind(*(str(d).removeprefix("torch.") for d in (self.low, self.wide)))

    @classmethod
    def of(cls, x: Tensor, low: torch.dtype | None) -> Dtypes:
        """Those for an input, under autocast to `low` or not."""
        if low is not None:
            return cls(low, torch.float32, torch.float32)
        return cls(x.dtype, x.dtype, torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a direction: where, with which kernels and dtypes, and what is asked of it."""

    platform: Platform
    made: Kernels
    dtypes: Dtypes
    setting: Setting


def run(
    job: Job,
    x: Tensor,
    weights: Sequence[Tensor | None],
    params: Mapping[str, Tensor],
    states: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """h (T, B, H) and the last states; what is recorded is left in the setting's slots.

    Args:
        job: what to run.
        x: (T, B, I).
        weights: W, R, and their biases or None.
        params: the cell's vectors.
        states: before the first step.
    """
    inputs = [x, *weights, *params.values(), *states.values()]
    h, *final = differentiable(lambda given: _Run(job, given), job.setting.again, inputs)
    return h, dict(zip(states, final, strict=True))


class _Run:
    """The arrays of one pass forward and the one back through it."""

    def __init__(self, job: Job, inputs: Sequence[Tensor | None]) -> None:
        self.job, self.layout, self.setting = job, job.made.layout, job.setting
        self.law, self.dtypes = job.made.layout.law, job.dtypes
        x, ih = inputs[:2]
        assert x is not None and ih is not None
        self.steps, self.batch = x.shape[:2]
        self.units = ih.shape[0] // len(self.law.pre)
        self.device = x.device
        self.states: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self._hidden: Tensor | None = None
        self._versions: list[int] = []

    # --- forward ---------------------------------------------------------------------------------

    def forward(self, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """h and the last states."""
        with self.job.platform.here(self.device):
            return self._forward(inputs)

    def _forward(self, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        x, ih, hh, b_ih, b_hh, *rest = inputs
        layout, blocks = self.layout, len(self.law.recurrent_blocks)
        a = self._arguments(rest)
        flat = self._low(x).reshape(-1, x.shape[-1])  # type: ignore[union-attr]
        xs = F.linear(flat, self._low(ih), self._input_bias(b_ih, b_hh))
        a.point("xs", xs)
        if layout.apart:
            a.point("bias_h", self._hidden_bias(b_hh, blocks))
        self._place_states(a, rest[len(self.law.params) :])
        for slot in layout.kept:
            self.kept[slot] = a.point(slot, self._series(self.dtypes.wide))
        for name, start in self.setting.starts.items():
            a.point(f"start:{name}", self._solid(start, self.dtypes.wide))
        separate = layout.variant.ragged or layout.variant.cut
        shown = self._low_states() if not separate else None
        output = self._after(shown) if shown is not None else self._series(self.dtypes.low)
        a.point("output", output)
        self._steps_forward(a, self._low(hh))
        for name in layout.variant.recorded:
            self.setting.slots[name] = self._recorded(layout.slot_of(name))
        self._versions = self._current_versions()
        return output, *self._finals()

    def _steps_forward(self, a: Arguments, weight: Tensor) -> None:
        if together := self._together():
            length = together.forward[1].length
            first = self._low_states()[self.steps if self.setting.reverse else 0]
            self._run_together(*together.forward, a, self._passed(length, first), weight)
            return
        blocks = len(self.law.recurrent_blocks)
        hs = a.point("hs", self._new(self.dtypes.low, self.batch, blocks * self.units))
        step = self.job.made.forward.bind(a.values, self.device)
        before, weight = self._before(self._low_states()).unbind(), weight.t()
        for t in self._times(forward=True):
            if blocks:
                torch.mm(before[t], weight, out=hs)
            step(t)

    def _finals(self) -> list[Tensor]:
        last = 0 if self.setting.reverse else self.steps
        shown = {**self.states, "h": self._low_states()}
        return [shown[name][last].clone() for name in self.law.states]

    def _recorded(self, slot: str) -> Tensor:
        if self.layout.is_state(slot):
            return self._after(self.states[slot[2:]]).clone()
        return self.kept[slot]

    def _place_states(self, a: Arguments, given: Sequence[Tensor | None]) -> None:
        first = self.steps if self.setting.reverse else 0
        for name, value in zip(self.law.states, given, strict=True):
            assert value is not None
            self.states[name] = self._states(self.dtypes.wide)
            self.states[name][first] = value
        if self.dtypes.low != self.dtypes.wide:
            self._hidden = self._states(self.dtypes.low)
            self._hidden[first] = self.states["h"][first]
            a.point("after_low:h", self._after(self._hidden))
        self._point_states(a)

    def _point_states(self, a: Arguments) -> None:
        for name, array in self.states.items():
            a.point(f"before:{name}", self._before(array))
            a.point(f"after:{name}", self._after(array))

    def _low_states(self) -> Tensor:
        """h before and after each step, as matrix products read it."""
        return self.states["h"] if self._hidden is None else self._hidden

    def _input_bias(self, b_ih: Tensor | None, b_hh: Tensor | None) -> Tensor | None:
        """b_ih, and b_hh where the two parts are only read together; (G H,)."""
        if b_ih is None:
            return None
        law, bias = self.law, b_ih
        if not self.layout.apart and law.recurrent_blocks:
            assert b_hh is not None
            if law.recurrent_blocks == law.pre:
                return self._low(b_ih + b_hh)
            rows = bias.view(len(law.pre), -1).clone()
            for place, row in enumerate(b_hh.view(len(law.recurrent_blocks), -1)):
                rows[law.pre.index(law.recurrent_blocks[place])] += row
            bias = rows.flatten()
        return self._low(bias)

    def _hidden_bias(self, b_hh: Tensor | None, blocks: int) -> Tensor:
        if b_hh is None:
            return self._new(self.dtypes.wide, blocks * self.units).zero_()
        return self._solid(b_hh, self.dtypes.wide)

    # --- backward --------------------------------------------------------------------------------

    def backward(
        self,
        inputs: Sequence[Tensor | None],
        gradients: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        """The gradients of all inputs."""
        if self._current_versions() != self._versions:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                "inplace operation: an output or a recorded value of the cuda engine"
            )
        with self.job.platform.here(self.device):
            return self._backward(inputs, gradients, wanted)

    def _backward(
        self,
        inputs: Sequence[Tensor | None],
        gradients: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        law, low, real = self.law, self.dtypes.low, self.dtypes.real
        a = self._arguments(inputs[5:])
        self._point_states(a)
        for slot, kept in self.kept.items():
            a.point(slot, kept)
        a.point("d_output", self._gradient(gradients[0], low, self.steps, self.batch, self.units))
        shape = (self.batch, self.units)
        d_states = {
            n: a.point(f"d:{n}", self._gradient(g, real, *shape, fresh=True))
            for n, g in zip(law.states, gradients[1:], strict=True)
        }
        d_params = {n: a.point(f"d_param:{n}", self._new(real, *shape).zero_()) for n in law.params}
        blocks = len(law.recurrent_blocks)
        d_h = a.point("dh", self._new(low, self.steps, self.batch, blocks * self.units))
        d_x = d_h
        if self.layout.apart or law.recurrent_blocks != law.pre:
            width = len(law.pre) * self.units
            d_x = a.point("dx", self._new(low, self.steps, self.batch, width))
        assert self.job.made.backward is not None
        rows = self._steps_back(self.job.made.backward, a, d_h, self._low(inputs[2]))
        d_states["h"] = d_states["h"] + rows
        found = _Gradients(self, inputs, wanted)
        found.of_weights(d_x, d_h)
        found.of_rest([d_params[n].sum(0) for n in law.params], list(d_states.values()))
        return found.values

    def _steps_back(self, kernel: Kernel, a: Arguments, d_h: Tensor, weight: Tensor) -> Tensor:
        """Run all steps; what reaches h before the first one through R."""
        if together := self._together():
            assert together.backward is not None
            passed = self._passed(together.backward[1].length)
            self._run_together(*together.backward, a, passed, weight)
            return d_h[-1 if self.setting.reverse else 0] @ weight
        rows = a.point("back:h", self._new(self.dtypes.low, self.batch, self.units).zero_())
        step, products = kernel.bind(a.values, self.device), d_h.unbind()
        for t in self._times(forward=False):
            step(t)
            if self.law.recurrent_blocks:
                torch.mm(products[t], weight, out=rows)
        return rows

    def _gradient(
        self, given: Tensor | None, dtype: torch.dtype, *shape: int, fresh: bool = False
    ) -> Tensor:
        """A gradient as the kernel reads it; `fresh`: it changes it."""
        if given is None:
            return self._new(dtype, *shape).zero_()
        value = self._solid(given, dtype)
        return value.clone() if fresh and value.data_ptr() == given.data_ptr() else value

    # --- both ------------------------------------------------------------------------------------

    def _together(self) -> KernelsTogether | None:
        """The kernels that run all steps in one launch, where that is quicker."""
        if not pays_together(self.steps, self.batch):
            return None
        job = self.job
        return kernels_together(
            job.platform, self.layout, self.dtypes.kind, self.units, self.device
        )

    def _passed(self, length: int, first: Tensor | None = None) -> Tensor:
        """What steps pass on, for an even and an odd step: rows of columns, padded with zeros."""
        rows = -(-self.batch // COLUMNS) * COLUMNS
        passed = self._new(self.dtypes.low, 2, rows, length).zero_()
        if first is not None:
            passed[0, : self.batch, : self.units] = first
        return passed

    def _run_together(
        self, kernel: Kernel, split: Split, a: Arguments, passed: Tensor, weight: Tensor
    ) -> None:
        """All steps; forward from the first one, backward from the last one."""
        backward = kernel.entry.name.endswith("backward")
        a.values |= {"T": self.steps, "rows": passed.shape[1]}
        a.values["reverse"] = int(self.setting.reverse != backward)
        a.point("passed", passed)
        a.point("weight", weight.contiguous())
        a.point("met", torch.zeros(1, dtype=torch.int32, device=self.device))
        kernel.run_together(a.values, split, self.device)

    def _arguments(self, rest: Sequence[Tensor | None]) -> Arguments:
        a, setting = Arguments(), self.setting
        a.values |= {"B": self.batch, "H": self.units}
        for name, value in zip(self.law.params, rest, strict=False):
            a.point(f"param:{name}", self._solid(value, self.dtypes.wide))
        for name, tables in setting.controls.items():
            for side, table in zip(("alpha", "beta"), tables, strict=True):
                a.point(f"{side}:{name}", table.contiguous())
            steps, rows, units = tables[0].shape
            a.values[f"control_t:{name}"] = rows * units if steps > 1 else 0
            a.values[f"control_b:{name}"] = units if rows > 1 else 0
        for name, share in setting.zoneout.items():
            if isinstance(share, Tensor):
                a.point(f"zoneout:{name}", self._solid(share, torch.uint8))
            else:
                full = torch.full((1,), share, dtype=self.dtypes.real, device=self.device)
                a.point(f"zoneout:{name}", full)
        for name, flags in (("valid", setting.valid), ("cut", setting.cut)):
            if flags is not None:
                a.point(name, self._solid(flags, torch.uint8))
        return a

    def _times(self, forward: bool) -> Sequence[int]:
        ascending = range(self.steps)
        return ascending if forward != self.setting.reverse else ascending[::-1]

    def _current_versions(self) -> list[int]:
        if not self.layout.variant.grad:  # and in inference mode there are none
            return []
        arrays = [*self.states.values(), *self.kept.values(), self._low_states()]
        return [t._version for t in arrays]

    def _before(self, states: Tensor) -> Tensor:
        return states[1:] if self.setting.reverse else states[:-1]

    def _after(self, states: Tensor) -> Tensor:
        return states[:-1] if self.setting.reverse else states[1:]

    def _states(self, dtype: torch.dtype) -> Tensor:
        return self._new(dtype, self.steps + 1, self.batch, self.units)

    def _series(self, dtype: torch.dtype) -> Tensor:
        return self._new(dtype, self.steps, self.batch, self.units)

    def _new(self, dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _low(self, value: Tensor | None) -> Tensor:
        assert value is not None
        return value.detach().to(self.dtypes.low)

    def _solid(self, value: Tensor | None, dtype: torch.dtype) -> Tensor:
        assert value is not None
        return value.detach().to(dtype).contiguous()


class _Gradients:
    """Collects the gradients of the inputs of a run, those that are wanted, in their own dtypes."""

    def __init__(self, run: _Run, inputs: Sequence[Tensor | None], wanted: Sequence[bool]) -> None:
        self._run, self._inputs, self._wanted = run, inputs, wanted
        self.values: list[Tensor | None] = [None] * len(inputs)

    def of_weights(self, d_x: Tensor, d_h: Tensor) -> None:
        """x, W, R and the biases, from the gradients of all pre-activations (T, B, blocks H)."""
        run = self._run
        x, ih = run._low(self._inputs[0]).flatten(0, 1), run._low(self._inputs[1])
        d_x, d_h = d_x.flatten(0, 1), d_h.flatten(0, 1)
        before = run._before(run._low_states()).flatten(0, 1)
        # where no block is recurrent R and its bias have no rows
        makes: list[Any] = [
            lambda: (d_x @ ih).view(self._inputs[0].shape),  # type: ignore[union-attr]
            lambda: d_x.t() @ x,
            lambda: d_h.t() @ before,
            lambda: d_x.sum(0, dtype=run.dtypes.wide),
            lambda: d_h.sum(0, dtype=run.dtypes.wide),
        ]
        for place, make in enumerate(makes):
            if self._wanted[place]:
                self._put(place, make())

    def of_rest(self, params: Sequence[Tensor], states: Sequence[Tensor]) -> None:
        """The cell's vectors, and the states before the first step."""
        for place, value in enumerate((*params, *states), 5):
            if self._wanted[place]:
                self._put(place, value)

    def _put(self, place: int, value: Tensor) -> None:
        like = self._inputs[place]
        assert like is not None
        self.values[place] = value.to(like.dtype)
