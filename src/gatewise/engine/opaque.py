"""A run as one operator, for programs that torch.compile and torch.export trace.

A tracer sees `gatewise::unroll`: tensors in, tensors out, shapes known without running. When the program
runs, the operator chooses an engine as ever, which may call kernels of its own. What is no number goes
along as text (`Form`), so that a program means the same in another process.

For the backward pass the operator gives out a token. Its memory belongs to what the engine kept
(`_Token`), which is freed with it: a program that never goes backward leaks nothing. Where a token has been
copied and its original freed, the run is computed once more.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gatewise.cells.base import Law, Weights, law_of
from gatewise.engine.base import Direction, Plan, Result, States, autocast_dtype, check_lengths
from gatewise.engine.choose import choose

Tensors: TypeAlias = "list[Tensor]"

OPAQUE = "opaque"
"""The name of the engine as a traced program sees it."""


def run_opaque(plan: Plan, x: Tensor, states: States, engine: str) -> Result:
    """What an engine gives for the plan, as one operator of the traced program.

    The plan has no record and no control: those are run outside of the program.
    """
    tensors = [x]
    lines = [_head(plan, x, engine)]
    for direction, state in zip(plan.directions, states, strict=True):
        lines.append(_describe(direction, tensors))
        tensors += state.values()
    for extra in (plan.lengths, plan.reset, *plan.masks):
        if extra is not None:
            tensors.append(extra)
    found = torch.ops.gatewise.unroll(tensors, "\n".join(lines))
    names = [list(state) for state in states]
    finals, place = [], 1
    for own in names:
        finals.append(dict(zip(own, found[place : place + len(own)], strict=True)))
        place += len(own)
    return Result(found[0], tuple(finals))


def _head(plan: Plan, x: Tensor, engine: str) -> str:
    """engine, autocast, whether gradients are wanted, layers, and which tensors there are."""
    low = autocast_dtype(x)
    masks = "".join("01"[mask is not None] for mask in plan.masks)
    there = "".join("01"[t is not None] for t in (plan.lengths, plan.reset))
    width = len(plan.layers[0])
    grad = int(plan.grad)
    return f"{engine} {str(low).removeprefix('torch.')} {grad} {width} {there} {masks or '-'}"


def _describe(direction: Direction, tensors: Tensors) -> str:
    """One direction as text; its tensors are appended in the order of `Form.read`."""
    w, zoneout = direction.weights, []
    optional = (w.b_ih, w.b_hh, w.hr)
    tensors += [w.ih, w.hh, *(t for t in optional if t is not None), *w.params.values()]
    if direction.start is not None:
        tensors += direction.start.values()
    for state, keep in direction.zoneout.items():
        if isinstance(keep, Tensor):
            tensors.append(keep)
            zoneout.append(f"{state}=mask")
        else:
            zoneout.append(f"{state}={keep}")
    there = "".join("01"[t is not None] for t in (*optional, direction.start))
    marks = f"{direction.path or '-'} {direction.layer} {int(direction.reverse)} {there}"
    return f"{direction.law.key} {marks} {' '.join(zoneout)}".rstrip()


@dataclass(frozen=True)
class _Line:
    """One direction, read back."""

    law: Law
    path: str
    layer: int
    reverse: bool
    there: tuple[bool, ...]
    zoneout: tuple[tuple[str, float | None], ...]

    def read(self, tensors: Any) -> tuple[Direction, dict[str, Tensor]]:
        """The direction and its state, from an iterator of tensors."""
        ih, hh = next(tensors), next(tensors)
        b_ih, b_hh, hr = (next(tensors) if here else None for here in self.there[:3])
        params = {name: next(tensors) for name in self.law.params}
        start = {name: next(tensors) for name in self.law.states} if self.there[3] else None
        zoneout = {n: next(tensors) if share is None else share for n, share in self.zoneout}
        weights = Weights(ih, hh, b_ih, b_hh, hr, params)
        direction = Direction(
            self.law, weights, self.path, self.layer, self.reverse, start, zoneout
        )
        return direction, {name: next(tensors) for name in self.law.states}


@dataclass(frozen=True)
class Form:
    """Everything about a run but its tensors."""

    engine: str
    low: torch.dtype | None
    grad: bool
    width: int
    ragged: bool
    cut: bool
    masks: tuple[bool, ...]
    lines: tuple[_Line, ...]

    def read(self, tensors: Sequence[Tensor]) -> tuple[Plan, Tensor, States]:
        """The plan, x, and the states."""
        rest = iter(tensors)
        x = next(rest)
        directions, states = zip(*(line.read(rest) for line in self.lines), strict=True)
        layers = [directions[k : k + self.width] for k in range(0, len(directions), self.width)]
        lengths = next(rest) if self.ragged else None
        reset = next(rest) if self.cut else None
        masks = tuple(next(rest) if here else None for here in self.masks)
        return Plan(tuple(layers), lengths, reset, masks=masks), x, states

    def autocast(self, x: Tensor) -> AbstractContextManager[Any]:
        """As it was where the program was traced: compiled programs run without."""
        kind = x.device.type
        if self.low is None:
            on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
            return torch.autocast(kind, enabled=False) if on else nullcontext()
        return torch.autocast(kind, dtype=self.low)


@lru_cache(maxsize=1024)
def _form(text: str) -> Form:
    head, *rest = text.split("\n")
    engine, low, grad, width, there, masks = head.split(" ")
    lines = []
    for line in rest:
        key, path, layer, reverse, here, *zoneout = line.split(" ")
        kept = [z.split("=") for z in zoneout]
        lines.append(
            _Line(
                law_of(key),
                "" if path == "-" else path,
                int(layer),
                reverse == "1",
                tuple(c == "1" for c in here),
                tuple((n, None if how == "mask" else float(how)) for n, how in kept),
            )
        )
    return Form(
        engine,
        None if low == "None" else getattr(torch, low),
        grad == "1",
        int(width),
        there[0] == "1",
        there[1] == "1",
        tuple(c == "1" for c in masks.strip("-")),
        tuple(lines),
    )


# --- what runs -----------------------------------------------------------------------------------


def _run(tensors: Sequence[Tensor], form: Form) -> Tensors:
    """h and the last states, by an engine."""
    plan, x, states = form.read(tensors)
    check_lengths(plan.lengths, x.shape[0])
    with form.autocast(x):
        plan = replace(plan, grad=torch.is_grad_enabled())
        result = choose(plan, x, form.engine).run(plan, x, states)
    outputs = [result.h, *(v for final in result.states for v in final.values())]
    return [v.to(d) for v, d in zip(outputs, _dtypes(form, x, states), strict=True)]


def _dtypes(form: Form, x: Tensor, states: States) -> list[torch.dtype]:
    """Of h and the last states: under autocast h is of its dtype, other states are float32."""
    if form.low is None:
        return [x.dtype] * (1 + sum(len(state) for state in states))
    low = {"h": form.low}
    return [form.low, *(low.get(n, torch.float32) for state in states for n in state)]


class _Kept:
    """A run that can be gone back through, as often as its token lives."""

    def __init__(self, tensors: Sequence[Tensor], form: Form) -> None:
        self.leaves = [t.detach().requires_grad_(_can(t)) for t in tensors]
        with torch.enable_grad(), _with_autograd():
            self.outputs = _run(self.leaves, form)

    def backward(self, gradients: Sequence[Tensor]) -> Tensors:
        """Of every tensor that can have one."""
        pairs = [(o, g) for o, g in zip(self.outputs, gradients, strict=True) if o.requires_grad]
        leaves = [t for t in self.leaves if t.requires_grad]
        if not pairs:
            return [torch.zeros_like(t) for t in leaves]
        found = torch.autograd.grad(
            [o for o, _ in pairs],
            leaves,
            [g for _, g in pairs],
            retain_graph=True,
            allow_unused=True,
        )
        return [
            torch.zeros_like(t) if g is None else _own(g)
            for g, t in zip(found, leaves, strict=True)
        ]


def _with_autograd() -> AbstractContextManager[Any]:
    """A block in which operators note how to go back: within an operator they do not."""
    key, left = torch._C.DispatchKey, torch._C._dispatch_tls_local_exclude_set()
    for own in (key.AutogradFunctionality, key.AutogradOther, key.ADInplaceOrView):
        left = left.remove(own)
    guard: AbstractContextManager[Any] = torch._C._ForceDispatchKeyGuard(
        torch._C._dispatch_tls_local_include_set(), left
    )
    return guard


def _can(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point


class _Token(np.ndarray[Any, Any]):
    """A number in memory, and what lives as long as that memory."""

    kept: _Kept


_LIVE: weakref.WeakValueDictionary[int, _Kept] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count(1)


def _token(kept: _Kept) -> Tensor:
    number = next(_NUMBERS)
    _LIVE[number] = kept
    memory = np.array([number], dtype=np.int64).view(_Token)
    memory.kept = kept
    return torch.from_numpy(memory)


def _own(value: Tensor) -> Tensor:
    """A plain tensor as the tracer was promised."""
    return value.detach().contiguous()


def _apart(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensors:
    """The outputs, none of which shares memory with an input or another output."""
    taken = {t.untyped_storage().data_ptr() for t in inputs}
    found = []
    for value in map(_own, outputs):
        place = value.untyped_storage().data_ptr()
        found.append(value.clone() if place in taken else value)
        taken.add(place)
    return found


@torch.library.custom_op("gatewise::unroll", mutates_args=())
def unroll(tensors: list[Tensor], form: str) -> list[Tensor]:
    """h, the last states, and a token."""
    read = _form(form)
    if not read.grad:
        with torch.no_grad():
            outputs = _run(tensors, read)
        return [*_apart(outputs, tensors), torch.zeros(1, dtype=torch.int64)]
    kept = _Kept(tensors, read)
    return [*_apart(kept.outputs, tensors), _token(kept)]


@unroll.register_fake
def _(tensors: list[Tensor], form: str) -> list[Tensor]:
    read = _form(form)
    plan, x, states = read.read(tensors)
    width = sum(d.weights.output_size for d in plan.layers[-1])
    shapes = [(x.shape[0], x.shape[1], width)]
    shapes += [tuple(v.shape) for state in states for v in state.values()]  # type: ignore[misc]
    dtypes = _dtypes(read, x, states)
    found = [x.new_empty(s, dtype=d) for s, d in zip(shapes, dtypes, strict=True)]
    return [*found, torch.empty(1, dtype=torch.int64)]


# The outputs are given too: what an engine kept may share their memory, which nobody then reuses.
@torch.library.custom_op("gatewise::unroll_backward", mutates_args=())
def unroll_backward(
    gradients: list[Tensor], outputs: list[Tensor], tensors: list[Tensor], form: str
) -> list[Tensor]:
    """The gradients of those of `tensors` that are not whole numbers or flags."""
    kept = _LIVE.get(int(outputs[-1]))
    if kept is None:
        kept = _Kept(tensors, _form(form))
    return _apart(kept.backward(gradients), [*gradients, *tensors])


@unroll_backward.register_fake
def _(
    gradients: list[Tensor], outputs: list[Tensor], tensors: list[Tensor], form: str
) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors if _can(t)]


def _setup(ctx: Any, inputs: tuple[Tensors, str], output: Tensors) -> None:
    tensors, ctx.form = inputs
    ctx.count = len(tensors)
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[-1])


def _backward(ctx: Any, gradients: Sequence[Tensor | None]) -> tuple[list[Tensor | None], None]:
    saved = list(ctx.saved_tensors)
    tensors, outputs = saved[: ctx.count], saved[ctx.count :]
    given = [
        torch.zeros_like(o) if g is None else g
        for g, o in zip(gradients[:-1], outputs[:-1], strict=True)
    ]
    found = iter(torch.ops.gatewise.unroll_backward(given, outputs, tensors, ctx.form))
    return [next(found) if _can(t) else None for t in tensors], None


unroll.register_autograd(_backward, setup_context=_setup)
