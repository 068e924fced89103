"""JANET, an LSTM with a forget gate alone (van der Westhuizen & Lasenby 2018)."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations, sigmoid, tanh
from gatewise.cells.lstm import MEMORY

BETA = 1.0
"""How much of the input is let in beyond what is forgotten; the paper's value."""


def equations(a: PreActivations, s: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """One pre-activation for forgetting and, moved by beta, for writing."""
    f, g = sigmoid(a.f), tanh(a.g)
    i = 1 - sigmoid(a.f - BETA)
    return {"h": f * s.h + i * g}, {"i": i, "f": f, "g": g}


class JANET(Cell):
    """s = W x + R h' + b, f = sigmoid(s), i = 1 - sigmoid(s - 1), g = tanh(...), h = f h' + i g.

    Blocks in stacking order f g; s is ``f.pre``, and i the paper's 1 - sigmoid(s - beta) with its
    beta of 1. The paper's c is its h, hence one state here. Its chrono initialisation of the forget
    bias is left to `init_bias`. Memory controls: keep (f=1, i=0: h[t] = h[t-1], bit for bit), reset
    (f=0, i=0) and write (f=0, i=1: h[t] = g[t]).
    """

    law = Law(
        "janet",
        equations,
        ("f", "g"),
        {"h": 0.0},
        controls=MEMORY,
        paper="van der Westhuizen & Lasenby 2018, arXiv 1804.04849",
    )
