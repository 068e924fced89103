"""h[t] = a[t] h[t-1] + b[t] for all t: a scan on torch's operators, with gradients of any order.

Knows tensors only. On a CPU one operator a step is as fast as memory allows, once a step has some thousand
numbers; where it has few, or where each operator costs a launch, time is cut into about sqrt(T) chunks which are
run side by side: first what each makes of any start (its product of a, and h from 0), then the start of
each, then all of them again from there. Nothing is ever divided by a product of factors, so factors of 0
and long sequences lose nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_FULL = {"cpu": 1 << 13}
"""Device -> numbers in a step from which on a step at a time is best."""
_FULL_ELSEWHERE = 1 << 20
_FEW = 16  # steps: too few to cut


def scan(
    a: Tensor, b: Tensor, first: Tensor, cut: Tensor | None = None, reverse: bool = False
) -> Tensor:
    """h (T, ...) of h[t] = a[t] h[t-1] + b[t].

    Args:
        a: factors, (T, ...).
        b: what is added, (T, ...).
        first: h before the first step, (...).
        cut: (T, ...) bool: where True h[t] is b[t], even if h[t-1] is not a number. None: nowhere.
        reverse: h[t] = a[t] h[t+1] + b[t] instead.
    """
    if b.shape[0] == 0:
        return b
    return _Scan.apply(a, b, first, cut, reverse)  # type: ignore[no-any-return, no-untyped-call]


def previous(h: Tensor, first: Tensor, reverse: bool = False) -> Tensor:
    """h[t-1] for each t (h[t+1] in reverse), (T, ...)."""
    row = first.unsqueeze(0)
    return torch.cat([h[1:], row]) if reverse else torch.cat([row, h[:-1]])


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor, first: Tensor, cut: Tensor | None, reverse: bool) -> Tensor:
        h = torch.empty_like(b, memory_format=torch.contiguous_format)
        _run(a, b, first, cut, reverse, h)
        return h

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, _, first, cut, ctx.reverse = inputs
        ctx.save_for_backward(a, first, cut, output)
        ctx.save_for_forward(a, first, cut, output)

    @staticmethod
    def backward(ctx: Any, d_h: Tensor) -> tuple[Tensor | None, ...]:
        a, first, cut, h = ctx.saved_tensors
        gradients = _gradients if torch.is_grad_enabled() else _plain_gradients
        d_b, d_a, d_first = gradients(a, first, cut, h, d_h, ctx.reverse)
        return d_a, d_b, d_first, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        a, first, cut, h = ctx.saved_tensors
        d_a, d_b, d_first = (
            torch.zeros_like(like) if t is None else t
            for t, like in zip(tangents[:3], (h, h, first), strict=True)
        )
        moved = d_a * previous(h, first, ctx.reverse)
        if cut is not None:
            moved = torch.where(cut, torch.zeros_like(moved), moved)
        return scan(a, moved + d_b, d_first, cut, ctx.reverse)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        def aligned(value: Tensor | None, dim: int | None, place: int) -> Tensor | None:
            """The mapped dimension after time: units do not meet, so it is one more of them."""
            if value is None:
                return None
            if dim is not None:
                return value.movedim(dim, place)
            sizes = [-1] * (value.ndim + 1)
            sizes[place] = info.batch_size
            return value.unsqueeze(place).expand(sizes)

        *tensors, reverse = inputs
        a, b, first, cut = (
            aligned(v, d, p) for v, d, p in zip(tensors, in_dims, (1, 1, 0, 1), strict=False)
        )
        assert a is not None and b is not None and first is not None
        return scan(a, b, first, cut, reverse), 1


def _gradients(
    a: Tensor, first: Tensor, cut: Tensor | None, h: Tensor, d_h: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of b, a and first: the gradient of b is a scan the other way. Differentiable in its turn."""
    later = (slice(None, -1) if reverse else slice(1, None),)
    end = 0 if reverse else -1
    others = slice(1, None) if reverse else slice(None, -1)
    rest = scan(a[later], d_h[others], d_h[end], None if cut is None else cut[later], not reverse)
    row = d_h[end].unsqueeze(0)
    d_b = torch.cat([row, rest] if reverse else [rest, row])
    d_a, d_first = d_b * previous(h, first, reverse), a[-1 - end] * d_b[-1 - end]
    if cut is not None:
        d_a = torch.where(cut, torch.zeros_like(d_a), d_a)
        d_first = torch.where(cut[-1 - end], torch.zeros_like(d_first), d_first)
    return d_b, d_a, d_first


def _plain_gradients(
    a: Tensor, first: Tensor, cut: Tensor | None, h: Tensor, d_h: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_gradients`, each written where it stays."""
    d_b, d_a = torch.empty_like(h), torch.empty_like(h)
    end, begin = (0, -1) if reverse else (-1, 0)
    later = slice(None, -1) if reverse else slice(1, None)
    others = slice(1, None) if reverse else slice(None, -1)
    d_b[end] = d_h[end]
    rest = None if cut is None else cut[later]
    _run(a[later], d_h[others], d_h[end], rest, not reverse, d_b[others])
    torch.mul(d_b[later], h[others], out=d_a[later])
    torch.mul(d_b[begin], first, out=d_a[begin])
    d_first = a[begin] * d_b[begin]
    if cut is not None:
        d_a.masked_fill_(cut, 0)
        d_first.masked_fill_(cut[begin], 0)
    return d_b, d_a, d_first


# --- numbers alone ---------------------------------------------------------------------------------


def _run(
    a: Tensor, b: Tensor, first: Tensor, cut: Tensor | None, reverse: bool, out: Tensor
) -> None:
    """Fill `out`."""
    steps = b.shape[0]
    size = _chunk(steps, first.numel(), b.device.type)
    if size >= steps:
        _steps(a, b, first, cut, reverse, out)
        return
    count, whole = steps // size, steps // size * size
    head = slice(steps - whole, None) if reverse else slice(0, whole)
    tail = slice(0, steps - whole) if reverse else slice(whole, None)
    cuts = None if cut is None else cut[head]

    def chunks(value: Tensor) -> Tensor:
        """(steps of a chunk, chunks, ...): a step of all chunks is one row."""
        return value.view(count, size, *value.shape[1:]).transpose(0, 1)

    inner, added = chunks(a[head]), chunks(b[head])
    inner_cut = None if cuts is None else chunks(cuts)
    starts = _starts(inner, added, first, inner_cut, reverse)
    if starts is None:
        _steps(a, b, first, cut, reverse, out)
        return
    _steps(inner, added, starts, inner_cut, reverse, chunks(out[head]))
    if whole < steps:
        last = out[head][0 if reverse else -1]
        _steps(a[tail], b[tail], last, None if cut is None else cut[tail], reverse, out[tail])


def _steps(
    a: Tensor, b: Tensor, first: Tensor, cut: Tensor | None, reverse: bool, out: Tensor
) -> None:
    """One operator for each step."""
    rows = list(zip(a.unbind(), b.unbind(), out.unbind(), strict=True))
    cuts = [None] * len(rows) if cut is None else list(cut.unbind())
    h = first
    for (factor, added, row), closed in (
        zip(reversed(rows), reversed(cuts), strict=True)
        if reverse
        else zip(rows, cuts, strict=True)
    ):
        if closed is not None:
            h = h.masked_fill(closed, 0)
        torch.addcmul(added, factor, h, out=row)
        h = row


def _starts(
    a: Tensor, b: Tensor, first: Tensor, cut: Tensor | None, reverse: bool
) -> Tensor | None:
    """h before each chunk, (chunks, ...), from the chunks' rows (steps, chunks, ...).

    None where a product of a chunk's factors, some above 1, is no number or has vanished, though its product
    with h may be one: then only one step after the other is right.
    """
    product, h = torch.ones_like(b[0]), torch.zeros_like(b[0])
    for t in reversed(range(a.shape[0])) if reverse else range(a.shape[0]):
        if cut is not None:
            product, h = product.masked_fill(cut[t], 0), h.masked_fill(cut[t], 0)
        product = product * a[t]
        h = torch.addcmul(b[t], a[t], h)
    spoiled = ~product.isfinite() | (product == 0)
    if bool(spoiled.any()) and bool((a.abs() > 1).any()):
        return None
    closed = None if cut is None else cut.any(0)
    starts = torch.empty_like(h)
    count = a.shape[1]
    order = range(count - 1, -1, -1) if reverse else range(count)
    before = first
    for k in order:
        starts[k] = before
        kept = before if closed is None else before.masked_fill(closed[k], 0)
        before = torch.addcmul(h[k], product[k], kept)
    return starts


def _chunk(steps: int, width: int, device: str) -> int:
    """How many steps a chunk has; `steps`: no chunks."""
    if steps <= _FEW or width >= _FULL.get(device, _FULL_ELSEWHERE):
        return steps
    return max(2, math.isqrt(steps))
