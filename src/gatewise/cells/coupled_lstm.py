"""The LSTM with coupled input and forget gates, CIFG (Greff et al. 2017)."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations, sigmoid, tanh


def equations(a: PreActivations, s: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """What is forgotten makes room for what is written."""
    f, o, g = sigmoid(a.f), sigmoid(a.o), tanh(a.g)
    i = 1 - f
    c = f * s.c + i * g
    return {"h": o * tanh(c), "c": c}, {"i": i, "f": f, "g": g, "o": o}


class CoupledLSTM(Cell):
    """f, o = sigmoid(...), i = 1 - f, g = tanh(...), c = f c' + i g, h = o tanh(c).

    Blocks in stacking order f g o. Greff et al. learn i and set f = 1 - i: the same cell with the sign
    of that block turned; here it is f, so that a forget bias means what it does in the LSTM. Memory
    controls: keep (f=1, so i=0), write (f=0, so i=1), and reset (f=0 and i=0: setting i uncouples it).
    """

    law = Law(
        "lstm_coupled",
        equations,
        ("f", "g", "o"),
        {"h": 0.0, "c": 0.0},
        controls={"keep": {"f": 1.0}, "reset": {"f": 0.0, "i": 0.0}, "write": {"f": 0.0}},
        paper="Greff et al. 2017, arXiv 1503.04069",
    )
