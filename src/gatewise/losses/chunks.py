"""The arithmetic of `linear_cross_entropy`: row losses and gradients, chunk by chunk and tile by tile.

Knows matrices alone; nothing of autograd, reductions or options.

A chunk is some rows of h, a tile some classes; one buffer holds the scores of a chunk, each of its tiles
as a contiguous matrix (a product into a strip of a wide matrix runs at half the speed). With m[i, k] the
largest score of row i in tile k, and e[i, v] = exp(z[i, v] - m[i, k(v)]), formed while the tile is in cache:

    c[i, k] = exp(m[i, k] - max_k m[i, k]),   s[i] = sum_k c[i, k] sum_(v in k) e[i, v]
    d[i, v] = w[i] (e[i, v] c[i, k(v)] / s[i] - q[i, v])
    dh = d W,   dW = d^T h,   db = d^T 1

with the target distribution q[i] (one-hot, mixed with uniform for label smoothing) and row weights w[i].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Plan(NamedTuple):
    """How to compute: rows per chunk, classes per tile, dtype of the products, of the rest, smoothing."""

    rows: int
    classes: int
    matmul: torch.dtype
    accumulate: torch.dtype
    smoothing: float


class Gradients(NamedTuple):
    """Gradients of the sum of weighted row losses; None where not asked for."""

    h: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


class _Tile(NamedTuple):
    """Some classes of a chunk.

    Attributes:
        span: which classes.
        scores: (R, C), later their exponentials, later the gradient.
        rows, columns: where the targets of the chunk lie in `scores`.
    """

    span: slice
    scores: Tensor
    rows: Tensor
    columns: Tensor


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
    """Row losses (N,), and the gradients of factor * sum_i row_weights[i] * loss[i], both wide."""
    with torch.no_grad(), torch.autocast(h.device.type, enabled=False):
        size, wide = len(h), plan.accumulate
        narrow = weight.to(plan.matmul)
        rows, spans = max(1, even(size, plan.rows)), _spans(len(weight), plan.classes)
        buffer = torch.empty(min(rows, size) * len(weight), dtype=wide, device=h.device)
        losses = torch.empty(size, dtype=wide, device=h.device)
        make = torch.empty_like if size else torch.zeros_like  # the first chunk writes all of it
        sums = [
            make(t, dtype=wide, memory_format=torch.contiguous_format)
            if t is not None and want
            else None
            for t, want in zip((h, weight, bias), wants, strict=True)
        ]
        gradients = Gradients(*sums)
        for start in range(0, size, rows):
            span = slice(start, min(start + rows, size))
            part = h[span].to(plan.matmul)
            tiles = _tiles(buffer, spans, target[span])
            found, shares, losses[span] = _softmax(tiles, part, narrow, bias)
            if plan.smoothing:
                _smooth(losses[span], found, h[span], weight, bias, plan.smoothing)
            if any(wants):
                mass = torch.ones_like(found) if row_weights is None else row_weights[span].to(wide)
                # 16 bits: the factor could make tiny what is narrowed, so it comes after the product
                later = 1.0 if plan.matmul == wide else factor
                mass = (mass * (factor / later))[:, None]
                for tile, share in zip(tiles, shares.unbind(1), strict=True):
                    _differentiate(tile, share[:, None] * mass, mass, len(weight), plan.smoothing)
                    _accumulate(gradients, tile, part, narrow, later, span)
        return losses, gradients


def even(size: int, limit: int) -> int:
    """The length of equal parts of `size`, a multiple of 16 unless it is one part, `limit` at most."""
    parts = max(1, -(-size // limit))
    return size if parts == 1 else min(limit, -(-size // (16 * parts)) * 16)


def _spans(classes: int, limit: int) -> list[slice]:
    width = max(1, even(classes, limit))
    return [slice(i, min(i + width, classes)) for i in range(0, classes, width)]


def _tiles(buffer: Tensor, spans: Sequence[slice], target: Tensor) -> list[_Tile]:
    """The tiles of a chunk, laid one after another in `buffer`, and where the targets are in them."""
    rows = len(target)
    views = [buffer[rows * s.start : rows * s.stop].view(rows, s.stop - s.start) for s in spans]
    if len(spans) == 1:
        every = torch.arange(rows, device=target.device)
        return [_Tile(spans[0], views[0], every, target)]
    ordered, order = target.sort()
    edges = torch.tensor([s.start for s in spans[1:]], device=target.device)
    cuts = [0, *torch.searchsorted(ordered, edges).tolist(), rows]
    return [
        _Tile(span, view, order[a:b], ordered[a:b] - span.start)
        for span, view, a, b in zip(spans, views, cuts[:-1], cuts[1:], strict=True)
    ]


def _softmax(
    tiles: Sequence[_Tile], h: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Fill the tiles with exp(z - m).

    Returns:
        the target's score z (R,), the factor of each tile's exponentials that makes them
        probabilities (R, tiles), and the row losses (R,).
    """
    wide = tiles[0].scores.dtype
    found = torch.empty(len(h), dtype=wide, device=h.device)
    tops, sums = [], []
    for tile in tiles:
        scores = tile.scores
        _scores(scores, h, weight[tile.span], None if bias is None else bias[tile.span])
        found[tile.rows] = scores[tile.rows, tile.columns]
        # a tile may hold nothing but -inf, and -inf less itself is no number
        top = scores.amax(1, keepdim=True).clamp_(min=torch.finfo(wide).min)
        sums.append(scores.sub_(top).exp_().sum(1))
        tops.append(top[:, 0])
    top, total = torch.stack(tops, 1), torch.stack(sums, 1)
    highest = top.amax(1)
    shares = top.sub_(highest[:, None]).exp_()
    mass = total.mul_(shares).sum(1)
    return found, shares.div_(mass[:, None]), mass.log() + (highest - found)


def _scores(out: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """out <- h @ weight.T + bias, the product in the dtype of `weight`."""
    if weight.dtype != out.dtype:
        out.copy_(functional.linear(h, weight))
        if bias is not None:
            out.add_(bias)
    elif bias is None:
        torch.mm(h, weight.t(), out=out)
    else:
        torch.addmm(bias.to(out.dtype), h, weight.t(), out=out)


def _smooth(
    losses: Tensor, found: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None, share: float
) -> None:
    """losses <- losses + share * (score of the target - mean score): the uniform part's cost."""
    wide = losses.dtype
    mean = h.to(wide) @ weight.mean(0, dtype=wide)
    if bias is not None:
        mean += bias.mean(dtype=wide)
    losses.add_(found - mean, alpha=share)


def _differentiate(
    tile: _Tile, share: Tensor, mass: Tensor, classes: int, smoothing: float
) -> None:
    """The tile's exponentials <- share * exponentials - mass * target distribution."""
    d = tile.scores.mul_(share)
    if smoothing:
        d.sub_(mass * (smoothing / classes))
    d[tile.rows, tile.columns] -= (1 - smoothing) * mass[tile.rows, 0]


def _accumulate(
    gradients: Gradients, tile: _Tile, h: Tensor, weight: Tensor, factor: float, span: slice
) -> None:
    """Add what `tile` of the rows `span` has for `gradients`, times `factor`."""
    classes = tile.span
    first = span.start == 0
    if gradients.bias is not None:
        _add(gradients.bias[classes], tile.scores.sum(0), factor, first=first)
    d, weight = tile.scores.to(weight.dtype), weight[classes]
    if gradients.h is not None:
        _add_product(gradients.h[span], d, weight, factor, first=classes.start == 0)
    if gradients.weight is not None:
        _add_product(gradients.weight[classes], d.t(), h, factor, first=first)


def _add_product(out: Tensor, a: Tensor, b: Tensor, factor: float, *, first: bool) -> None:
    """out <- out + factor * a @ b; the first time `out` need not be read."""
    if a.dtype == out.dtype:
        out.addmm_(a, b, beta=0 if first else 1, alpha=factor)
    else:
        _add(out, a @ b, factor, first=first)


def _add(out: Tensor, part: Tensor, factor: float, *, first: bool) -> None:
    """out <- out + factor * part; the first time `out` need not be read."""
    if first:
        out.copy_(part).mul_(factor)  # in this order: `part` may be too narrow for the product
    else:
        out.add_(part, alpha=factor)
