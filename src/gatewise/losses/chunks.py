"""The arithmetic of `linear_cross_entropy`: row losses and gradients, chunk by chunk.

Knows matrices alone; nothing of autograd, reductions or options.

With e[i, v] = exp(z[i, v] - max_v z[i, v]), s[i] = sum_v e[i, v], the target distribution q[i] (one-hot,
mixed with uniform for label smoothing) and row weights w[i], the softmax is never normalised in the buffer:

    d     = e - s q
    dh[i] = (w[i] / s[i]) (d W)[i],   dW = d^T (w / s * h),   db = d^T (w / s)

so the division touches (N, H) numbers, not (N, V), and for a one-hot q the difference N. (Where V is
smaller than 2 H it is the other way round, and d is divided.)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Plan(NamedTuple):
    """How to compute: rows per chunk, dtype of the products, of everything else, smoothing."""

    rows: int
    matmul: torch.dtype
    accumulate: torch.dtype
    smoothing: float


class Gradients(NamedTuple):
    """Gradients of the sum of weighted row losses; None where not asked for."""

    h: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def compute(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    row_weights: Tensor | None,
    factor: float,
    plan: Plan,
    wants: tuple[bool, ...],
) -> tuple[Tensor, Gradients]:
    """Row losses (N,), and the gradients of factor * sum_i row_weights[i] * loss[i]."""
    with torch.no_grad(), torch.autocast(h.device.type, enabled=False):
        size, wide = len(h), plan.accumulate
        narrow = weight.to(plan.matmul)
        buffer = torch.empty(min(plan.rows, size), len(weight), dtype=wide, device=h.device)
        losses = torch.empty(size, dtype=wide, device=h.device)
        sums = [
            torch.zeros_like(t, dtype=wide, memory_format=torch.contiguous_format)
            if t is not None and want
            else None
            for t, want in zip((h, weight, bias), wants, strict=True)
        ]
        gradients = Gradients(*sums)
        for start in range(0, size, plan.rows):
            span = slice(start, min(start + plan.rows, size))
            scores = buffer[: span.stop - start]
            _scores(scores, h[span], narrow, bias)
            found = scores.gather(1, target[span, None])
            total, losses[span] = _exponentials(scores, found)
            if plan.smoothing:
                _smooth(losses[span], found, h[span], weight, bias, plan.smoothing)
            if any(wants):
                _subtract_targets(scores, total, target[span], plan.smoothing)
                weights = None if row_weights is None else row_weights[span, None].to(wide)
                _accumulate(gradients, scores, total, h[span], narrow, weights, factor, span)
        return losses, _like_inputs(gradients, h, weight, bias)


def _scores(out: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """out <- h @ weight.T + bias, the product in the dtype of `weight`."""
    if weight.dtype != out.dtype:
        out.copy_(functional.linear(h.to(weight.dtype), weight))
        if bias is not None:
            out.add_(bias)
    elif bias is None:
        torch.mm(h.to(out.dtype), weight.t(), out=out)
    else:
        torch.addmm(bias.to(out.dtype), h.to(out.dtype), weight.t(), out=out)


def _exponentials(scores: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """scores (R, V) <- exp(scores - their maximum); their sums (R, 1) and the row losses (R,).

    Args:
        found: the scores of the target classes, (R, 1).
    """
    top = scores.amax(1, keepdim=True)
    total = scores.sub_(top).exp_().sum(1, keepdim=True)
    return total, (total.log() + (top - found))[:, 0]


def _smooth(
    losses: Tensor, found: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None, share: float
) -> None:
    """losses <- losses + share * (score of the target - mean score): the uniform part's cost."""
    wide = losses.dtype
    mean = h.to(wide) @ weight.mean(0, dtype=wide)
    if bias is not None:
        mean += bias.mean(dtype=wide)
    losses.add_(found[:, 0] - mean, alpha=share)


def _accumulate(
    gradients: Gradients,
    e: Tensor,
    total: Tensor,
    h: Tensor,
    weight: Tensor,
    row_weights: Tensor | None,
    factor: float,
    span: slice,
) -> None:
    """Add what the chunk `span` has for `gradients`, from e less its targets; e may be overwritten."""
    rows = 1 / total if row_weights is None else row_weights / total
    if weight.dtype != e.dtype:  # 16 bits: normalise before narrowing, scale after widening
        e = e.mul_(rows).to(weight.dtype)
        narrow = h.to(weight.dtype)
        if gradients.h is not None:
            gradients.h[span] = (e @ weight).to(total.dtype).mul_(factor)
        if gradients.weight is not None:
            gradients.weight.add_(e.t() @ narrow, alpha=factor)
        if gradients.bias is not None:
            gradients.bias.add_(e.sum(0, dtype=total.dtype), alpha=factor)
        return
    rows, h = rows * factor, h.to(e.dtype)
    if e.shape[1] < 2 * h.shape[1]:  # few classes: dividing in the buffer touches less
        e, scaled, rows = e.mul_(rows), h, torch.ones_like(rows)
    else:
        scaled = h * rows
    first = 0.0 if span.start == 0 else 1.0  # beta 0 writes without reading
    if gradients.h is not None:
        dh = torch.mm(e, weight, out=gradients.h[span])
        if scaled is not h:
            dh.mul_(rows)
    if gradients.weight is not None:
        gradients.weight.addmm_(e.t(), scaled, beta=first)
    if gradients.bias is not None:
        gradients.bias.addmv_(e.t(), rows[:, 0], beta=first)


def _subtract_targets(e: Tensor, total: Tensor, target: Tensor, smoothing: float) -> None:
    """e <- e - total * target distribution, which is one-hot mixed with uniform."""
    e.scatter_add_(1, target[:, None], total * (smoothing - 1))
    if smoothing:
        e.sub_(total * (smoothing / e.shape[1]))


def _like_inputs(gradients: Gradients, h: Tensor, weight: Tensor, bias: Tensor | None) -> Gradients:
    """`gradients` in the dtypes of the inputs."""
    pairs = zip(gradients, (h, weight, bias), strict=True)
    return Gradients(*(None if g is None or t is None else g.to(t.dtype) for g, t in pairs))
