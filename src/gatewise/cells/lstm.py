"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000)."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations, sigmoid, tanh


def equations(a: PreActivations, s: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """The lecture's gated cell; g is its c~."""
    i, f, o = sigmoid(a.i), sigmoid(a.f), sigmoid(a.o)
    g = tanh(a.g)
    c = f * s.c + i * g
    return {"h": o * tanh(c), "c": c}, {"i": i, "f": f, "g": g, "o": o}


MEMORY = {
    "keep": {"f": 1.0, "i": 0.0},
    "reset": {"f": 0.0, "i": 0.0},
    "write": {"f": 0.0, "i": 1.0},
}


class LSTM(Cell):
    """i, f, o = sigmoid(...), g = tanh(...), c = f c' + i g, h = o tanh(c): torch.nn.LSTM's cell.

    Gates in stacking order i f g o. Memory controls: keep (f=1, i=0: c[t] = c[t-1], bit for bit),
    reset (f=0, i=0: c[t] = 0) and write (f=0, i=1: c[t] = g[t]).
    """

    law = Law(
        "lstm",
        equations,
        ("i", "f", "g", "o"),
        {"h": 0.0, "c": 0.0},
        controls=MEMORY,
        paper="Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000",
    )
