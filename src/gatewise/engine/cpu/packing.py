"""Weights and arrays in the order in which the kernels read them. Knows shapes only.

Matrices of float32 are brought into their order by kernels of their own (`packs`); others, and what
those are tested against, by torch's operators.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.engine.cpu.arena import ARENA
from gatewise.engine.cpu.kinds import Kind
from gatewise.engine.cpu.moving import mover, workers
from gatewise.engine.cpu.program import BACKWARD_WIDE, passes


def padded(units: int, lanes: int) -> int:
    """Units rounded up to whole registers."""
    return -(-units // lanes) * lanes


def pad(value: Tensor, size: int) -> Tensor:
    """Zeros after the last dimension up to `size`."""
    return value if value.shape[-1] == size else F.pad(value, (0, size - value.shape[-1]))


def pad_rows(weight: Tensor, blocks: int, size: int) -> Tensor:
    """(blocks H, ...) as (blocks Hp, ...), with rows of zeros."""
    units = weight.shape[0] // max(1, blocks)
    if units == size or blocks == 0:
        return weight
    split = weight.reshape(blocks, units, *weight.shape[1:])
    new = weight.new_zeros(blocks, size, *weight.shape[1:])
    new[:, :units] = split
    return new.flatten(0, 1)


def pairs(weight: Tensor) -> Tensor:
    """Pairs of bfloat16 along the last dimension as one number each, (..., ceil(K / 2)) int32."""
    return pad(weight, weight.shape[-1] + weight.shape[-1] % 2).contiguous().view(torch.int32)


def forward_panels(weight: Tensor, blocks: int, size: int, kind: Kind) -> Tensor:
    """(blocks H, K) as panels: for each register of units, pass after pass, (depth, registers, lanes)."""
    if weight.dtype == torch.float32 and weight.is_contiguous():
        return _forward_moved(weight, blocks, size, kind)
    return forward_panels_plain(weight, blocks, size, kind)


def forward_panels_plain(weight: Tensor, blocks: int, size: int, kind: Kind) -> Tensor:
    """The same by torch's operators."""
    lanes = kind.lanes
    rows = pad_rows(weight, blocks, size)
    if kind.narrow:
        rows = pairs(rows.to(torch.bfloat16))
    rows = rows.reshape(blocks, size // lanes, lanes, -1)
    parts, done = [], 0
    for count in passes(blocks, kind):
        part = rows[done : done + count].permute(1, 3, 0, 2)
        parts.append(part.reshape(size // lanes, -1))
        done += count
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0].contiguous()


def _forward_moved(weight: Tensor, blocks: int, size: int, kind: Kind) -> Tensor:
    units, panels, depth = weight.shape[0] // blocks, size // kind.lanes, weight.shape[1]
    packed = -(-depth // kind.factors)
    out = ARENA.empty((panels, packed * blocks * kind.lanes), packed_dtype(kind))
    done = 0
    for count in passes(blocks, kind):
        values = {
            "source": weight.data_ptr() + done * units * depth * weight.element_size(),
            "ld": depth,
            "out": out.data_ptr() + done * packed * kind.lanes * out.element_size(),
            "out_panel": packed * blocks * kind.lanes,
            "panels": panels,
            "vectors": count,
            "ps": kind.lanes,
            "vs": units,
            "es": 0,
            "rows": units,
            "K": depth,
            "depth": packed,
        }
        mover(kind, "rows")(values, workers(weight.numel()))
        done += count
    return out


def row_panels(weight: Tensor, vectors: int, kind: Kind) -> Tensor:
    """(N, K) as panels of `vectors` registers of rows side by side: (panels, depth, registers, lanes)."""
    panels = -(-weight.shape[0] // (vectors * kind.lanes))
    if weight.dtype != torch.float32 or not weight.is_contiguous():
        rows = pad_rows(weight, 1, panels * vectors * kind.lanes)
        if kind.narrow:
            rows = pairs(rows.to(torch.bfloat16))
        return rows.reshape(panels, vectors * kind.lanes, -1).transpose(1, 2).contiguous()
    return moved_rows(weight, vectors, kind)


def moved_rows(weight: Tensor, vectors: int, kind: Kind) -> Tensor:
    """The same of float32 rows that may lie apart, without a copy between: (panels, depth x registers x lanes)."""
    rows, width = weight.shape
    panels, depth = -(-rows // (vectors * kind.lanes)), -(-width // kind.factors)
    out = ARENA.empty((panels, depth * vectors * kind.lanes), packed_dtype(kind))
    values = {
        "source": weight.data_ptr(),
        "ld": weight.stride(0),
        "out": out.data_ptr(),
        "out_panel": depth * vectors * kind.lanes,
        "panels": panels,
        "vectors": vectors,
        "ps": vectors * kind.lanes,
        "vs": kind.lanes,
        "es": kind.lanes,
        "rows": rows,
        "K": width,
        "depth": depth,
    }
    mover(kind, "rows")(values, workers(weight.numel()))
    return out


def backward_panels(weight: Tensor, blocks: int, size: int, kind: Kind) -> Tensor:
    """(blocks H, N) as panels of units that are read: (units / 2 lanes, depth, 2 lanes)."""
    if weight.dtype == torch.float32 and weight.is_contiguous():
        units = weight.shape[0] // blocks
        return column_panels(weight, blocks * size, BACKWARD_WIDE, kind, (size, units))
    return backward_panels_plain(weight, blocks, size, kind)


def backward_panels_plain(weight: Tensor, blocks: int, size: int, kind: Kind) -> Tensor:
    """The same by torch's operators."""
    wide = BACKWARD_WIDE * kind.lanes
    rows = pad_rows(weight, blocks, size)
    rows = pad(rows, padded(rows.shape[-1], wide))
    if kind.narrow:
        rows = rows.to(torch.bfloat16)
        rows = pairs(rows.reshape(-1, 2, rows.shape[-1]).transpose(1, 2)).squeeze(-1)
    return rows.reshape(rows.shape[0], -1, wide).permute(1, 0, 2).contiguous()


def column_panels(
    source: Tensor, rows: int, vectors: int, kind: Kind, block: tuple[int, int]
) -> Tensor:
    """Columns in panels of `vectors` registers: (panels, depth, vectors, lanes).

    Args:
        source: float32, its rows contiguous.
        rows: rows that are packed.
        vectors: registers of a panel.
        kind: its numbers.
        block: of so many packed rows the first so many are the source's, the others 0.
    """
    columns = source.shape[1]
    panels, depth = -(-columns // (vectors * kind.lanes)), rows // kind.factors
    out = ARENA.empty((panels, depth, vectors * kind.lanes), packed_dtype(kind))
    values = {
        "source": source.data_ptr(),
        "ld": source.stride(0),
        "out": out.data_ptr(),
        "depth": depth,
        "vectors": vectors,
        "panels": panels,
        "columns": columns,
        "block": block[0],
        "rows": block[1],
    }
    mover(kind, "columns")(values, workers(rows * columns))
    return out


def packed_dtype(kind: Kind) -> torch.dtype:
    """The dtype of packed numbers."""
    return torch.int32 if kind.narrow else torch.float32
