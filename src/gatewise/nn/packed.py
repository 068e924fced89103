"""Packed, unbatched and listed input, brought into the one form that the stack knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from gatewise.errors import ShapeError
from gatewise.types import State

NO_TIMES = torch.zeros(0, dtype=torch.int64, device="cpu")


def plain(state: Any) -> State:
    """Lists become tuples: torch takes both."""
    return tuple(state) if isinstance(state, list) else state


def add_batch(state: Tensor) -> Tensor:
    """A state (L D, H) given without a batch, as (L D, 1, H)."""
    if state.ndim != 2:
        raise ShapeError(
            f"for input without a batch expected a state (L D, H), found {tuple(state.shape)}"
        )
    return state.unsqueeze(1)


def _places(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """The (step, column) of each row of the packed data, columns in the caller's order."""
    sizes = packed.batch_sizes
    steps = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    firsts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    columns = torch.arange(int(sizes.sum()), device=sizes.device) - firsts
    device = packed.data.device
    steps, columns = steps.to(device), columns.to(device)
    order = packed.sorted_indices
    return steps, columns if order is None else order[columns]


def unpack(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """(T, B, I) padded with 0, and the lengths, columns in the caller's order."""
    steps, columns = _places(packed)
    batch = int(packed.batch_sizes[0])
    shape = (len(packed.batch_sizes), batch, *packed.data.shape[1:])
    x = packed.data.new_zeros(shape).index_put((steps, columns), packed.data)
    return x, torch.bincount(columns, minlength=batch)


def repack(h: Tensor, like: PackedSequence) -> PackedSequence:
    """h (T, B, H), columns in the caller's order, packed as `like` is."""
    steps, columns = _places(like)
    return PackedSequence(
        h[steps, columns], like.batch_sizes, like.sorted_indices, like.unsorted_indices
    )
