"""The minimal LSTM and GRU (Feng et al. 2024): their gates read the input alone."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations, sigmoid, softplus
from gatewise.cells.lstm import MEMORY

_PAPER = "Feng et al. 2024, arXiv 2410.01201"


def min_lstm(a: PreActivations, s: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """With both gates divided by their sum."""
    ratio = softplus(-a.i) - softplus(-a.f)  # log(sigmoid(a.f) / sigmoid(a.i))
    f, i = sigmoid(ratio), sigmoid(-ratio)
    return {"h": f * s.h + i * a.g}, {"i": i, "f": f}


def min_gru(a: PreActivations, s: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """z is how much is written, as in the paper: not how much is kept, as in torch's GRU."""
    z = sigmoid(a.z)
    return {"h": (1 - z) * s.h + z * a.n}, {"z": z}


class MinLSTM(Cell):
    """f = sigmoid(a_f) / (sigmoid(a_f) + sigmoid(a_i)), i = 1 - f, h = f h' + i (W x + b).

    Blocks in stacking order i f g, all of x: there is no recurrent matrix, weight_hh is (0, H). The
    paper's vanilla variant, its candidate ``g.pre`` linear, not the one in log space, whose candidate is
    positive. i and f are the gates divided by their sum (the paper's i' and f'), computed from the log
    of their ratio, which cannot be 0 / 0. Memory controls: keep (f=1, i=0), reset (f=0, i=0) and
    write (f=0, i=1: h[t] = g.pre[t]).
    """

    law = Law(
        "minlstm",
        min_lstm,
        ("i", "f", "g"),
        {"h": 0.0},
        recurrent=(),
        controls=MEMORY,
        paper=_PAPER,
    )


class MinGRU(Cell):
    """z = sigmoid(...), h = (1 - z) h' + z (W x + b).

    Blocks in stacking order z n, both of x: there is no recurrent matrix, weight_hh is (0, H). The
    paper's vanilla variant, its candidate ``n.pre`` linear, not the one in log space. Memory controls:
    keep (z=0), reset (z=1, n.pre=0) and write (z=1).
    """

    law = Law(
        "mingru",
        min_gru,
        ("z", "n"),
        {"h": 0.0},
        recurrent=(),
        controls={"keep": {"z": 0.0}, "reset": {"z": 1.0, "n.pre": 0.0}, "write": {"z": 1.0}},
        paper=_PAPER,
    )
