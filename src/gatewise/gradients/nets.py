"""A net as a map from one step to the next, whatever holds its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from gatewise.cells.base import Cell, Law
from gatewise.errors import OptionError, ShapeError
from gatewise.probe import Control
from gatewise.stack import Layers
from gatewise.types import State, map_state, state_tensors
from gatewise.unrolling import Unrolled, check_input, unroll

Net: TypeAlias = "Cell | Layers"


class Steps:
    """What the gradients of a net need of it.

    Args:
        net: a cell of `gatewise.cells` or of `gw.cell`, a `gw.Stack`, or an RNN, LSTM or GRU of
            `gatewise.nn`.

    Raises:
        OptionError: if it is none of these.
    """

    def __init__(self, net: Net) -> None:
        if not isinstance(net, Cell | Layers):
            raise OptionError(
                "expected a cell, a gw.Stack or a layer of gatewise.nn (of a loaded run: run.model.stack), "
                f"found {type(net).__name__}"
            )
        self.net = net
        self.input_size = net.input_size

    @property
    def law(self) -> Law:
        """The cell's."""
        return self.net.law if isinstance(self.net, Cell) else self.net.directions()[0].law

    @property
    def num_layers(self) -> int:
        """1 for a cell."""
        return 1 if isinstance(self.net, Cell) else self.net.num_layers

    @property
    def bidirectional(self) -> bool:
        """Whether a step depends on later ones."""
        return isinstance(self.net, Layers) and self.net.bidirectional

    @property
    def projected(self) -> bool:
        """Whether what is carried on as h is a projection, which has the name "proj"."""
        return self.net.proj_size > 0

    def width(self, layer: int, name: str) -> int:
        """Units of a value of a layer that can be controlled."""
        if isinstance(self.net, Cell):
            return self.net.proj_size if name == "proj" else self.net.hidden_size
        return self.net.directions()[layer * self.net.num_directions].width(name)

    def layer(self, layer: int) -> int:
        """`layer` counted from 0.

        Raises:
            OptionError: if there is no such layer.
        """
        count = self.num_layers
        if isinstance(layer, bool) or not isinstance(layer, int) or not -count <= layer < count:
            raise OptionError(
                f"layer: expected {-count} to {count - 1} of {count} layers, found {layer!r}"
            )
        return layer % count

    def wrt(self, wrt: str) -> tuple[str, ...]:
        """The names of the values that are carried on as "h", "c" or, all of them, "state".

        Raises:
            OptionError: if the cell has no such state.
        """
        states = tuple(self.law.states)
        if wrt not in (*states, "state"):
            named = ", ".join((*states, "state"))
            raise OptionError(f"wrt: expected one of {named} of {self.law.name}, found {wrt!r}")
        asked = states if wrt == "state" else (wrt,)
        return tuple("proj" if name == "h" and self.projected else name for name in asked)

    def check(self, x: Tensor, state: State) -> None:
        """Raise ShapeError unless the net takes these."""
        check_input(x, self.input_size)
        if not x.shape[0] or not x.shape[1]:
            raise ShapeError(
                f"expected x of at least one step and one column, found {tuple(x.shape)}"
            )

    def begin(self, x: Tensor, state: State) -> State:
        """The state before the first step: `state`, or the start's."""
        if state is not None:
            return map_state(torch.Tensor.detach, state)
        with torch.no_grad():
            empty = x.new_zeros(0, x.shape[1], x.shape[2])
            if isinstance(self.net, Layers):
                return map_state(torch.Tensor.clone, self.net.zero_state(x.shape[1]))
            return map_state(torch.Tensor.clone, unroll(self.net, empty).state)

    def run(
        self,
        x: Tensor,
        state: State = None,
        *,
        start: int = 0,
        engine: str = "reference",
        control: Control | None = None,
    ) -> Unrolled:
        """The net over time; see `gatewise.unroll`."""
        if isinstance(self.net, Cell):
            return unroll(self.net, x, state, start=start, engine=engine, control=control)
        return self.net.run(x, state, start=start, engine=engine, control=control)


def flatten(state: State, columns: int) -> Tensor:
    """A state as one vector a column, (B, S): its tensors in order, layers within each."""
    return torch.cat([_column_first(part, columns) for part in state_tensors(state)], dim=1)


def _column_first(part: Tensor, columns: int) -> Tensor:
    return (part if part.ndim == 2 else part.transpose(0, 1)).reshape(columns, -1)


def unflatten(vectors: Tensor, like: State) -> State:
    """The state of the vectors (B, S) that `flatten` made of a state of the form of `like`."""
    return refilled(like, _pieces(vectors, list(state_tensors(like))))


def refilled(state: State, parts: Iterable[Tensor]) -> State:
    """A state of the form of `state`, of these tensors."""
    given = iter(parts)
    return map_state(lambda _: next(given), state)


def _pieces(vectors: Tensor, like: Sequence[Tensor]) -> Iterator[Tensor]:
    begin = 0
    for part in like:
        size = part.numel() // vectors.shape[0]
        piece = vectors[:, begin : begin + size]
        begin += size
        if part.ndim == 3:
            layers, columns, units = part.shape
            piece = piece.reshape(columns, layers, units).transpose(0, 1)
        yield piece
