"""The arithmetic of `linear_cross_entropy`: row losses and gradients, chunk by chunk.

Knows matrices alone; nothing of autograd, reductions or options.

With e[i, v] = exp(z[i, v] - max_v z[i, v]), s[i] = sum_v e[i, v] and row weights w[i], the softmax is
never normalised in the buffer:

    dh[i] = (w[i] / s[i]) (e W)[i] - w[i] W[y[i]]
    dW    = e^T (w / s * h)        - sum_i w[i] onehot(y[i]) h[i]^T
    db    = e^T (w / s)            - sum_i w[i] onehot(y[i])

so the division and the one-hot touch (N, H) numbers, not (N, V).
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
                weights = None if row_weights is None else row_weights[span, None].to(wide)
                _accumulate(gradients, scores, total, h[span], narrow, weights, factor, span)
        if any(wants):
            weights = torch.ones_like(losses) if row_weights is None else row_weights.to(wide)
            _subtract_targets(gradients, h, weight, target, weights[:, None] * factor, plan)
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
    """Add the softmax part of the chunk `span` to `gradients`; `e` may be overwritten."""
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
    rows = rows * factor
    first = 0.0 if span.start == 0 else 1.0  # beta 0 writes without reading
    if gradients.h is not None:
        torch.mm(e, weight, out=gradients.h[span]).mul_(rows)
    if gradients.weight is not None:
        gradients.weight.addmm_(e.t(), h.to(e.dtype) * rows, beta=first)
    if gradients.bias is not None:
        gradients.bias.addmv_(e.t(), rows[:, 0], beta=first)


def _subtract_targets(
    gradients: Gradients, h: Tensor, weight: Tensor, target: Tensor, rows: Tensor, plan: Plan
) -> None:
    """Subtract sum_i rows[i] * (target distribution of i), which is one-hot mixed with uniform."""
    wide, smoothing = plan.accumulate, plan.smoothing
    peak, flat = (1 - smoothing) * rows, smoothing / len(weight) * rows
    if gradients.h is not None:
        gradients.h.sub_(weight[target].to(wide).mul_(peak))
        if smoothing:
            gradients.h.sub_(flat * weight.sum(0, dtype=wide))
    if gradients.weight is not None:
        gradients.weight.index_add_(0, target, h.to(wide) * peak, alpha=-1)
        if smoothing:
            gradients.weight.sub_((h.to(wide) * flat).sum(0))
    if gradients.bias is not None:
        gradients.bias.index_add_(0, target, peak[:, 0], alpha=-1)
        if smoothing:
            gradients.bias.sub_(flat.sum())


def _like_inputs(gradients: Gradients, h: Tensor, weight: Tensor, bias: Tensor | None) -> Gradients:
    """`gradients` in the dtypes of the inputs."""
    pairs = zip(gradients, (h, weight, bias), strict=True)
    return Gradients(*(None if g is None or t is None else g.to(t.dtype) for g, t in pairs))
