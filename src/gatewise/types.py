"""Type aliases, and the few operations on a recurrent state that every stage needs.

A state is opaque outside the core: a tensor, None, or a (nested) tuple of states. Wherever a tensor
stands in it, the batch is its dimension -2: (B, H) for a cell, (L, B, H) for a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

State: TypeAlias = "Tensor | tuple[State, ...] | None"
Index: TypeAlias = "int | slice | list[int] | range | Tensor"


def map_state(fn: Callable[[Tensor], Tensor], state: State) -> State:
    """`state` with `fn` applied to each of its tensors."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return fn(state)
    return tuple(map_state(fn, part) for part in state)


def state_tensors(state: State) -> Iterator[Tensor]:
    """The tensors of `state`, in order."""
    if isinstance(state, Tensor):
        yield state
    elif state is not None:
        for part in state:
            yield from state_tensors(part)


def detach(state: State) -> State:
    """`state` cut from the graph: the boundary of truncated back-propagation through time."""
    return map_state(torch.Tensor.detach, state)


def select(state: State, index: Tensor) -> State:
    """The columns `index` (B',) of `state`, copied; repeats are allowed (beams, samples)."""
    return map_state(lambda s: s.index_select(-2, index.to(s.device)), state)


def mixed(columns: Tensor, chosen: State, others: State) -> State:
    """Of two states of one form, the columns (B,) bool of `chosen`, and the other columns of `others`."""
    if isinstance(others, Tensor):
        assert isinstance(chosen, Tensor)
        here = columns.to(others.device).unsqueeze(-1)
        return torch.where(here, chosen.to(others.dtype), others)
    if others is None:
        return None
    assert isinstance(chosen, tuple)
    return tuple(mixed(columns, a, b) for a, b in zip(chosen, others, strict=True))


def clone(state: State) -> State:
    """A copy of `state` that shares no memory with it."""
    return map_state(torch.Tensor.clone, state)


def version_of(tensor: Tensor) -> int:
    """How often `tensor` was changed in place; 0 for one of inference mode, which does not count."""
    return 0 if tensor.is_inference() else tensor._version
