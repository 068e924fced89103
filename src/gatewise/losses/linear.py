"""The decoder's linear map and the cross entropy as one function that never holds N x V scores.

Knows matrices and class indices; it knows no model and no time. The rows of h are taken in chunks. One
buffer of chunk x V holds the scores, then their exponentials; what the gradients need of it goes at
once into dh, dW and db, so the gradient exists when the forward pass ends and nothing large is saved.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from gatewise.errors import DataError, OptionError, ShapeError, unknown
from gatewise.losses import chunks, compiled
from gatewise.losses.chunks import Gradients, Plan

_REDUCTIONS = ("mean", "sum", "none")
_CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}  # measured by benchmarks/softmax.py --chunks
_TILE = {"cpu": 2048}  # classes; elsewhere one tile: asking where the targets lie would wait
_MAX_ROWS = {"cpu": 4096}  # more rows gain nothing, and leave the cache where V is small
_SMALL_BYTES = 1 << 20  # scores that fit in a cache: torch's few calls cost less than the chunks'
_MIN_ROWS = 16  # fewer rows than this leave a matrix product bound by reading W


def linear_cross_entropy(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    reduction: str = "mean",
    ignore_index: int = -100,
    chunk: int | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy of ``h @ weight.T + bias`` with the classes `target`, without N x V memory.

    loss[i] = log sum_v exp z[i, v] - (1 - e) z[i, y[i]] - (e / V) sum_v z[i, v], z = h W^T + b and
    e = label_smoothing. Same result as torch's `linear` followed by `cross_entropy`.

    Under autocast the products run in its dtype; scores are widened, and the softmax, the sums and
    the accumulated gradients are float32. Inputs of 16 bits are treated likewise, and give a float32
    loss. Derivatives of a higher order, forward mode, torch.func transforms and torch.compile are
    computed by the plain formula, with its memory.

    Args:
        h: inputs of the decoder, (N, H).
        weight: (V, H).
        bias: (V,), or None.
        target: class indices, int64 (N,).
        reduction: "mean" over the targets that count, "sum", or "none". With "none" the gradient is
            computed in the backward pass from recomputed scores.
        ignore_index: targets of this value count for nothing; their rows of h are not read.
        chunk: rows per chunk. Default: as many as make a buffer of 64 MiB (CPU; 4096 at most) or
            256 MiB (GPU); none where all scores together take less than 1 MiB.
        label_smoothing: e, in [0, 1].
    Returns:
        loss in nats: a scalar, or (N,) for "none" (0 where ignored). The mean over no targets at all
        is NaN, as torch's, and its gradients are zero; the sum is 0.
    Raises:
        ShapeError: if shapes, dtypes or devices do not fit.
        DataError: if a target is no class (on the CPU; on a GPU its own check stops the kernel).
        OptionError: if chunk or label_smoothing is out of range.
    """
    _check_options(reduction, chunk, label_smoothing)
    _check_tensors(h, weight, bias, target)
    all_count = _check_classes(target, len(weight), ignore_index)
    plan = _plan(h, weight, chunk, label_smoothing)
    small = chunk is None and len(h) * len(weight) * h.element_size() <= _SMALL_BYTES
    if small or _needs_plain():
        return plain_linear_cross_entropy(
            h,
            weight,
            bias,
            target,
            reduction=reduction,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
        )
    if reduction != "none" and _waits(target):
        return _masked(h, weight, bias, target, reduction, ignore_index, plan)
    size, kept = len(target), None
    if not all_count:
        kept = (target != ignore_index).nonzero()[:, 0]
        h, target = h[kept], target[kept]
    if reduction == "none":
        losses = _apply(h, weight, bias, target, None, plan)
        return losses if kept is None else losses.new_zeros(size).index_copy(0, kept, losses)
    count = float(len(target))
    factor = 1.0 if reduction == "sum" else 1 / count if count else float("nan")
    return _apply(h, weight, bias, target, factor, plan)


def _waits(target: Tensor) -> bool:
    """Whether to ask how many targets count would wait for a device."""
    return target.device.type != "cpu"


def _masked(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    reduction: str,
    ignore_index: int,
    plan: Plan,
) -> Tensor:
    """The sum or the mean over the targets that count, all rows computed.

    Numbers go in by `masked_fill`: `where` would bring them to the device, and wait.
    """
    left = target == ignore_index
    h, target = h.masked_fill(left[:, None], 0), target.masked_fill(left, 0)
    counts = ~left
    total = _apply(h, weight, bias, target, 1.0, plan, counts)
    if reduction == "sum":
        return total
    number = counts.sum()
    mean = total / number.clamp(min=1)
    return mean + torch.zeros_like(total).masked_fill_(number == 0, torch.nan)


def plain_linear_cross_entropy(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The same by torch's `linear` and `cross_entropy`: the plain truth, with N x V memory.

    Args:
        h: (N, H); weight, bias, target and the options as for `linear_cross_entropy`.
    Returns:
        loss in nats: a scalar, or (N,) for "none".
    """
    logits = functional.linear(h, weight, bias)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(
        wide,
        target,
        reduction=reduction,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
    )


def _apply(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    factor: float | None,
    plan: Plan,
    counts: Tensor | None = None,
) -> Tensor:
    wanted = [t is not None and t.requires_grad for t in (h, weight, bias)]
    if torch.is_grad_enabled() and any(wanted):
        result: Tensor = _Chunked.apply(  # type: ignore[no-untyped-call]
            h, weight, bias, target, factor, plan, counts
        )
        return result
    losses, _ = _compute(h, weight, bias, target, None, 1.0, plan, (False, False, False))
    return losses if factor is None else _total(losses, counts) * factor


def _total(losses: Tensor, counts: Tensor | None) -> Tensor:
    return (losses if counts is None else losses.masked_fill(~counts, 0)).sum()


def _compute(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    row_weights: Tensor | None,
    factor: float,
    plan: Plan,
    wants: tuple[bool, ...],
) -> tuple[Tensor, Gradients]:
    """By the compiled softmax where it can, else by torch's operators."""
    compute = compiled.compute if compiled.serves(h, plan) else chunks.compute
    return compute(h, weight, bias, target, row_weights, factor, plan, wants)


class _Chunked(torch.autograd.Function):
    """Row losses (factor None), or factor times the sum of those that count (None: all)."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        factor: float | None,
        plan: Plan,
        counts: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(h, weight, bias, target, counts)
        ctx.factor, ctx.plan, ctx.gradients = factor, plan, None
        if factor is None:  # the row weights are known only in the backward pass
            none = (False, False, False)
            return _compute(h, weight, bias, target, None, 1.0, plan, none)[0]
        wants = ctx.needs_input_grad[:3]
        losses, ctx.gradients = _compute(h, weight, bias, target, counts, factor, plan, wants)
        return _total(losses, counts) * factor

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        h, weight, bias, target, counts = ctx.saved_tensors
        wants = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # create_graph: the gradient itself must be differentiable
            return *_plain_gradients(ctx, grad, wants), None, None, None, None
        if ctx.factor is None:
            _, found = _compute(h, weight, bias, target, grad, 1.0, ctx.plan, wants)
            return *_narrowed(found, (h, weight, bias)), None, None, None, None
        found, ctx.gradients = ctx.gradients, None
        if found is None:  # a second pass over a retained graph: they were handed over in the first
            _, found = _compute(h, weight, bias, target, counts, ctx.factor, ctx.plan, wants)
        scaled = grad.device.type != "cpu" or grad.item() != 1
        parts = [p if p is None or not scaled else p.mul_(grad.to(p.dtype)) for p in found]
        # a loss scaler's factor must come before the gradients are made narrow
        return *_narrowed(parts, (h, weight, bias)), None, None, None, None


def _narrowed(
    gradients: Iterable[Tensor | None], inputs: Iterable[Tensor | None]
) -> list[Tensor | None]:
    """The gradients in the dtypes of the inputs."""
    pairs = zip(gradients, inputs, strict=True)
    return [None if g is None or t is None else g.to(t.dtype) for g, t in pairs]


def _plain_gradients(ctx: Any, grad: Tensor, wants: tuple[bool, ...]) -> list[Tensor | None]:
    """The gradients through the plain formula, as a graph."""
    h, weight, bias, target, counts = ctx.saved_tensors
    plan = ctx.plan
    narrow = plan.matmul != plan.accumulate and weight.dtype == plan.accumulate
    with torch.autocast(h.device.type, plan.matmul if narrow else None, enabled=narrow):
        losses = plain_linear_cross_entropy(
            h, weight, bias, target, reduction="none", label_smoothing=plan.smoothing
        )
    loss = losses if ctx.factor is None else _total(losses, counts) * ctx.factor
    inputs = [t for t, want in zip((h, weight, bias), wants, strict=True) if want]
    found = iter(torch.autograd.grad(loss, inputs, grad.to(loss.dtype), create_graph=True))
    return [next(found) if want else None for want in wants]


def _plan(h: Tensor, weight: Tensor, chunk: int | None, smoothing: float) -> Plan:
    device = h.device.type
    accumulate = torch.float64 if h.dtype == torch.float64 else torch.float32
    matmul = h.dtype
    if torch.is_autocast_enabled(device) and matmul != torch.float64:
        matmul = torch.get_autocast_dtype(device)
    if chunk is None:
        budget = _CHUNK_BYTES.get(device, _CHUNK_BYTES["cuda"])
        rows = budget // (len(weight) * accumulate.itemsize)
        chunk = max(_MIN_ROWS, rows - rows % _MIN_ROWS)
        chunk = min(chunk, _MAX_ROWS.get(device, chunk))
    return Plan(chunk, _TILE.get(device, len(weight)), matmul, accumulate, smoothing)


def _needs_plain() -> bool:
    """Whether something looks at the computation that the chunked function cannot serve."""
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    if active is None:  # without the question, never guess: the plain formula is always right
        return True
    forward_mode = getattr(forward_ad, "_current_level", -1) >= 0
    return bool(active()) or forward_mode or torch.compiler.is_compiling()


def _check_options(reduction: str, chunk: int | None, smoothing: float) -> None:
    if reduction not in _REDUCTIONS:
        raise unknown("reduction", reduction, _REDUCTIONS)
    if chunk is not None and chunk < 1:
        raise OptionError(f"chunk: expected at least 1 row, found {chunk}; leave it out to choose")
    if not 0 <= smoothing <= 1:
        raise OptionError(f"label_smoothing: expected 0 to 1, found {smoothing}; use 0 for none")


def _check_tensors(h: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> None:
    if h.dim() != 2 or weight.dim() != 2 or h.shape[1] != weight.shape[1] or len(weight) == 0:
        found = f"{tuple(h.shape)} and {tuple(weight.shape)}"
        raise ShapeError(f"h and weight: expected (N, H) and (V, H), found {found}; flatten (T, B)")
    if target.shape != h.shape[:1] or target.dtype != torch.int64:
        found = f"{target.dtype} {tuple(target.shape)}"
        raise ShapeError(
            f"target: expected int64 ({len(h)},), found {found}; use one class per row"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"bias: expected ({len(weight)},), found {tuple(bias.shape)}")
    others = [t for t in (weight, bias) if t is not None]
    mixed = any(t.dtype != h.dtype for t in others) and not torch.is_autocast_enabled(h.device.type)
    if mixed or not all(t.is_floating_point() for t in (h, *others)):
        found = ", ".join(str(t.dtype) for t in (h, *others))
        raise ShapeError(f"dtypes: expected one floating dtype, found {found}; convert or autocast")
    if any(t.device != h.device for t in (*others, target)):
        found = ", ".join(str(t.device) for t in (h, *others, target))
        raise ShapeError(f"devices: expected one, found {found}; move them with .to()")


def _check_classes(target: Tensor, classes: int, ignore_index: int) -> bool:
    """Raise DataError for what is no class; whether every target is known to count."""
    if len(target) == 0 or _needs_plain():
        return len(target) == 0
    if target.device.type == "cpu":
        low, high = (int(v) for v in torch.aminmax(target))
        if low >= 0 and high < classes and not low <= ignore_index <= high:
            return True  # what a training step asks, in one pass
    wrong = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if target.device.type != "cpu":  # without waiting for the device
        torch._assert_async(~wrong.any())
    elif bool(wrong.any()):
        found = int(target[wrong][0])
        raise DataError(
            f"target: expected classes 0 to {classes - 1} or {ignore_index} to ignore, found {found};"
            " were the tokens made by another vocabulary?"
        )
    return False
