"""The plain recurrent cell (Elman 1990), with tanh or relu."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations, relu, tanh

Step = tuple[dict[str, Expr], dict[str, Expr]]


def _tanh(a: PreActivations, s: Names) -> Step:
    return {"h": tanh(a.s)}, {}


def _relu(a: PreActivations, s: Names) -> Step:
    return {"h": relu(a.s)}, {}


_PAPER = "Elman 1990, Finding structure in time"


class RNN(Cell):
    """h[t] = tanh(W x[t] + b_ih + R h[t-1] + b_hh): torch.nn.RNN's cell.

    Its one pre-activation is ``s.pre``. It has no gate, so no memory control.
    """

    law = Law("rnn_tanh", _tanh, ("s",), {"h": 0.0}, paper=_PAPER)


class ReluRNN(Cell):
    """h[t] = relu(W x[t] + b_ih + R h[t-1] + b_hh): torch.nn.RNN(nonlinearity="relu")'s cell."""

    law = Law("rnn_relu", _relu, ("s",), {"h": 0.0}, paper=_PAPER)
