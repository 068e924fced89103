"""Weights and arrays in the order in which the kernels read them. Knows shapes only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.engine.cpu.lanes import Kind
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
    """(blocks H, H) as panels: for each register of units, pass after pass, (depth, registers, lanes)."""
    lanes = kind.lanes
    rows = pad_rows(weight, blocks, size)
    if kind.narrow:
        rows = pairs(rows)
    rows = rows.reshape(blocks, size // lanes, lanes, -1)
    parts, done = [], 0
    for count in passes(blocks, kind):
        part = rows[done : done + count].permute(1, 3, 0, 2)
        parts.append(part.reshape(size // lanes, -1))
        done += count
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0].contiguous()


def backward_panels(weight: Tensor, blocks: int, size: int, kind: Kind) -> Tensor:
    """(blocks H, H) as panels of units that are read: (units / 2 lanes, depth, 2 lanes)."""
    wide = BACKWARD_WIDE * kind.lanes
    rows = pad(pad_rows(weight, blocks, size), padded(size, wide))
    if kind.narrow:
        rows = pairs(rows.reshape(-1, 2, rows.shape[-1]).transpose(1, 2)).squeeze(-1)
    return rows.reshape(rows.shape[0], -1, wide).permute(1, 0, 2).contiguous()
