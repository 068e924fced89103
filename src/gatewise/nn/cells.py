"""Drop-ins for torch.nn.RNNCell, LSTMCell and GRUCell: one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gatewise import cells
from gatewise.cells.base import Cell, Weights, initialise, previous_state, weight_shapes
from gatewise.engine.base import Direction, Plan
from gatewise.errors import OptionError, ShapeError
from gatewise.nn.packed import NO_TIMES, plain
from gatewise.probe import Control, Record, Records, active_control, controlled
from gatewise.types import State, map_state
from gatewise.unrolling import run_plan


class _DropInCell(nn.Module):
    """What RNNCell, LSTMCell and GRUCell share: one step."""

    def __init__(
        self,
        cell: type[Cell],
        input_size: int,
        hidden_size: int,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self._cell = cell  # the class, not its law: it is pickled by reference
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            self.register_parameter(name, None)
        for name, shape in weight_shapes(cell.law, input_size, hidden_size, bias).items():
            empty = torch.empty(shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(empty))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weights anew; the same seed gives the same weights as torch.nn."""
        weights = {n: p for n, p in self._parameters.items() if p is not None}
        initialise(self._cell.law, weights, self.hidden_size)

    def forward(
        self,
        input: Tensor,  # torch's name, so that keyword calls work
        hx: State = None,
        *,
        start: int | Tensor = 0,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> Any:
        """One step.

        Args:
            input: (B, I) or (I).
            hx: h, or (h, c), each (B, H) or (H). Default: zeros.
            start: the time of this step.
            engine, record, control: as in `gatewise.unroll`.
        Returns:
            The next state, and the records, each (1, B, H), as a second where `record` is given.
        """
        if not isinstance(input, Tensor):
            raise ShapeError(f"expected a tensor, found {type(input).__name__}")
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__}: expected input of shape (B, {self.input_size}) or "
                f"({self.input_size},), found {tuple(input.shape)}"
            )
        batched = input.ndim == 2
        x = input.unsqueeze(0) if batched else input.view(1, 1, -1)
        given = plain(hx) if batched else map_state(lambda s: s.unsqueeze(0), plain(hx))
        direction = Direction(self._cell.law, self._cell_weights())
        previous = previous_state(direction.law, direction.weights, given, x.shape[1], x, None)
        out = run_plan(
            Plan(((direction,),)),
            x,
            (previous,),
            lengths=None,
            reset=None,
            start=start,
            engine=engine,
            record=record,
            control=active_control(self, control),
        )
        assert isinstance(out.state, tuple)
        state = out.state[0] if batched else map_state(lambda s: s.squeeze(0), out.state[0])
        return state if record is None else (state, out.record or Records({}, NO_TIMES))

    def _cell_weights(self) -> Weights:
        return Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)  # type: ignore[arg-type]

    def controlled(self, control: Control) -> Any:
        """A block in which `control` acts in every call."""
        return controlled([self], control)

    def extra_repr(self) -> str:
        """As torch.nn's."""
        s = f"{self.input_size}, {self.hidden_size}"
        return s if self.bias else f"{s}, bias={self.bias}"


class RNNCell(_DropInCell):
    """torch.nn.RNNCell with its values open."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise OptionError(f"unknown nonlinearity {nonlinearity!r}: expected 'tanh' or 'relu'")
        cell: type[Cell] = cells.RNN if nonlinearity == "tanh" else cells.ReluRNN
        super().__init__(cell, input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def extra_repr(self) -> str:
        """As torch.nn's."""
        s = super().extra_repr()
        return s if self.nonlinearity == "tanh" else f"{s}, nonlinearity={self.nonlinearity}"


class LSTMCell(_DropInCell):
    """torch.nn.LSTMCell with its gates open."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(cells.LSTM, input_size, hidden_size, bias, device, dtype)


class GRUCell(_DropInCell):
    """torch.nn.GRUCell with its gates open."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(cells.GRU, input_size, hidden_size, bias, device, dtype)
