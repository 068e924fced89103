"""The large matrix products around the kernels, into memory that is used again. Knows matrices alone.

float32 runs on our own kernel where it is faster than torch's (registers of 512 bits), all else on torch's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gatewise.engine.cpu.arena import ARENA
from gatewise.engine.cpu.kinds import Kind
from gatewise.engine.cpu.making import kind_of
from gatewise.engine.cpu.moving import mover, workers
from gatewise.engine.cpu.multiply import GROUP, VECTORS, strip_of
from gatewise.engine.cpu.packing import column_panels, moved_rows

_DEPTH = 512  # of one pass: a panel of B and a strip of A stay in a core's own caches
_SMALL = 1 << 20  # products below which torch's call costs less


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b: (M, K), (N, K), (N,) to (M, N)."""
    (M, K), N = x.shape, weight.shape[0]
    if not _ours(x, weight, M, N, K):
        out = ARENA.empty((M, N), x.dtype)
        if bias is None:
            return torch.mm(x, weight.t(), out=out)
        return torch.addmm(bias, x, weight.t(), out=out)
    kind = kind_of("float32")
    return _multiplied(x, N, K, bias, lambda first, depth: _row_panels(weight, first, depth, kind))


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b: (M, K), (K, N) to (M, N)."""
    (M, K), N = a.shape, b.shape[1]
    if not _ours(a, b, M, N, K):
        return torch.mm(a, b, out=ARENA.empty((M, N), a.dtype))
    return _multiplied(a, N, K, None, lambda first, depth: _column_panels(b, first, depth))


def transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """a^T b: (K, M), (K, N) to (M, N)."""
    (K, M), N = a.shape, b.shape[1]
    if not _ours(a, b, M, N, K):
        return torch.mm(a.t(), b, out=ARENA.empty((M, N), a.dtype))
    return _multiplied(a, N, K, None, lambda first, depth: _column_panels(b, first, depth), True)


def column_sums(a: Tensor, kind: Kind) -> Tensor:
    """The sum of the rows of a (M, N), in wide numbers; N is a multiple of the register."""
    if a.dtype == torch.float64 or not a.is_contiguous():
        return a.sum(0, dtype=torch.float32 if kind.narrow else a.dtype)
    out = torch.empty(a.shape[1], dtype=torch.float32)
    values = {"a": a.data_ptr(), "out": out.data_ptr(), "rows": a.shape[0]}
    values |= {"columns": a.shape[1], "ld": a.shape[1]}
    mover(kind, "sums")(values, workers(a.numel()))
    return out


def _ours(a: Tensor, b: Tensor, M: int, N: int, K: int) -> bool:
    """Whether our kernel computes it, and gains."""
    if a.dtype != torch.float32 or M * N * K < _SMALL or a.stride(1) != 1 or b.stride(1) != 1:
        return False
    kind = kind_of("float32")
    return kind.registers == 32 and kind.lanes == 16


def _row_panels(weight: Tensor, first: int, depth: int, kind: Kind) -> Tensor:
    return moved_rows(weight[:, first : first + depth], VECTORS[kind.registers], kind)


def _column_panels(b: Tensor, first: int, depth: int) -> Tensor:
    kind = kind_of("float32")
    part = b[first : first + depth]
    return column_panels(part, depth, VECTORS[kind.registers], kind, (depth, depth))


def _multiplied(
    a: Tensor,
    N: int,
    K: int,
    bias: Tensor | None,
    panels: Callable[[int, int], Tensor],
    by_columns: bool = False,
) -> Tensor:
    """start + A B, a pass for each `_DEPTH` of k."""
    kind, M = kind_of("float32"), a.shape[1 if by_columns else 0]
    out = ARENA.empty((M, N), a.dtype)
    start = torch.zeros(N) if bias is None else bias.contiguous()
    kernel = mover(kind, "multiply columns" if by_columns else "multiply")
    threads, rows = workers(M * N), strip_of(kind)
    passes = -(-K // _DEPTH)
    for k in range(passes):
        first = K * k // passes
        depth = K * (k + 1) // passes - first
        packed = panels(first, depth)
        offset = first * (a.stride(0) if by_columns else 1) * a.element_size()
        values = {
            "a": a.data_ptr() + offset,
            "lda": a.stride(0),
            "b": packed.data_ptr(),
            "c": out.data_ptr(),
            "ldc": N,
            "start": out.data_ptr() if k else start.data_ptr(),
            "lds": N if k else 0,
            "M": M,
            "N": N,
            "depth": depth,
            "strips": -(-M // rows),
            "panels": packed.shape[0],
        }
        if by_columns:
            room = threads * (GROUP * rows * depth + kind.lanes)
            space = ARENA.empty((room,), a.dtype)
            values["space"] = space.data_ptr()
        kernel(values, threads)
    return out
