"""What one writes by hand to see inside of a cell: loops over time of torch's operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Mapping[str, Tensor]], State]


def lstm_step(x: Tensor, state: State, w: Mapping[str, Tensor]) -> State:
    """One step of an LSTM from its equations; gates i f g o."""
    h, c = state
    gates = x @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
    i, f, g, o = gates.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(x: Tensor, state: State, w: Mapping[str, Tensor]) -> State:
    """One step of torch's GRU from its equations; gates r z n."""
    (h,) = state
    xr, xz, xn = (x @ w["weight_ih"].T + w["bias_ih"]).chunk(3, -1)
    hr, hz, hn = (h @ w["weight_hh"].T + w["bias_hh"]).chunk(3, -1)
    z = torch.sigmoid(xz + hz)
    n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    return ((1 - z) * n + z * h,)


def coupled_step(x: Tensor, state: State, w: Mapping[str, Tensor]) -> State:
    """One step of an LSTM with coupled gates, i = 1 - f; blocks f o g."""
    h, c = state
    gates = x @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
    f, o, g = gates.chunk(3, -1)
    f = torch.sigmoid(f)
    c = f * c + (1 - f) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


class EquationLoop:
    """A loop over the equations of a cell, layer by layer.

    Args:
        step: of the cell.
        layers: the weights of each layer, by torch's names without a suffix.
        states: how many the cell has.
    """

    def __init__(self, step: Step, layers: Sequence[Mapping[str, Tensor]], states: int) -> None:
        self._step, self._states = step, states
        self._layers = [
            {n: v.detach().clone().requires_grad_() for n, v in layer.items()} for layer in layers
        ]

    @property
    def weights(self) -> list[Tensor]:
        """Layer by layer, in the order in which they were given."""
        return [weight for layer in self._layers for weight in layer.values()]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """h of the last layer and the last states, (L, B, H) each."""
        finals = []
        for weights in self._layers:
            hidden = weights["weight_hh"].shape[-1]
            state: State = (x.new_zeros(x.shape[1], hidden),) * self._states
            outputs = []
            for one in x.unbind():
                state = self._step(one, state, weights)
                outputs.append(state[0])
            x = torch.stack(outputs)
            finals.append(state)
        return [x, *(torch.stack(part) for part in zip(*finals, strict=True))]


class CellLoop(nn.Module):
    """A loop over torch's own cell.

    Args:
        cell: nn.LSTMCell or nn.GRUCell.
        layers: the weights of each layer, by the cell's names.
    """

    def __init__(self, cell: type[nn.Module], layers: Sequence[Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.cells = nn.ModuleList()
        for weights in layers:
            rows, size = weights["weight_hh"].shape
            one = cell(weights["weight_ih"].shape[1], size)
            assert rows % size == 0
            one.load_state_dict(dict(weights))
            self.cells.append(one)

    def forward(self, x: Tensor) -> list[Tensor]:
        """h of the last layer and the last states, (L, B, H) each."""
        finals = []
        for cell in self.cells:
            state, outputs = None, []
            for one in x.unbind():
                state = cell(one, state)
                outputs.append(state[0] if isinstance(state, tuple) else state)
            x = torch.stack(outputs)
            finals.append(state if isinstance(state, tuple) else (state,))
        return [x, *(torch.stack(part) for part in zip(*finals, strict=True))]
