"""The path that a net's whole state takes along sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from gatewise.errors import OptionError, ShapeError
from gatewise.gradients.nets import flatten, unflatten
from gatewise.modes import evaluating
from gatewise.probe import Control, Record
from gatewise.stack import Layers
from gatewise.types import State


def states_along(
    stack: Layers, x: Tensor, *, control: Control | None = None, engine: str = "auto"
) -> Tensor:
    """The state after each step, of all layers, as one vector.

    Args:
        stack: of one direction.
        x: inputs, (T, B, I).
        control: what to set.
        engine: of the recurrent layers.
    Returns:
        (T, B, S), each as `gatewise.gradients.flatten` lays a state out.
    Raises:
        OptionError: the stack is bidirectional.
        ShapeError: x is not (T, B, I), or has no step.
    """
    if stack.bidirectional:
        raise OptionError("expected a net of one direction: backwards there is no state in time")
    if x.ndim != 3 or not x.shape[0]:
        raise ShapeError(f"expected inputs (T, B, I) of a step or more, found {tuple(x.shape)}")
    names = [
        [f"layers.{layer}.{_named(stack, state)}" for state in stack.directions()[layer].law.states]
        for layer in range(stack.num_layers)
    ]
    wanted = Record(*(path for layer in names for path in layer))
    with evaluating(stack), torch.no_grad():
        record = stack(x, engine=engine, record=wanted, control=control).record
    assert record is not None
    steps, columns = x.shape[:2]
    parts: list[State] = []
    for layer in names:
        values = [record[path].flatten(0, 1) for path in layer]
        parts.append(tuple(values) if len(values) > 1 else values[0])
    whole = stack.state_form.whole(parts)
    return flatten(whole, steps * columns).view(steps, columns, -1)


def as_states(stack: Layers, vectors: Tensor) -> State:
    """States of columns from vectors (N, S) of `states_along`, such as `slow_points` begins at."""
    return unflatten(vectors, stack.zero_state(len(vectors)))


def _named(stack: Layers, state: str) -> str:
    return "proj" if state == "h" and stack.proj_size else state
