"""The LSTM with peepholes (Gers & Schmidhuber 2000): its gates see the memory."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations, sigmoid, tanh
from gatewise.cells.lstm import MEMORY


def equations(a: PreActivations, s: Names, p: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """i and f see the last c, o the new one; i.pre is what the sigmoid takes, peephole included."""
    i_pre, f_pre = a.i + p.p_i * s.c, a.f + p.p_f * s.c
    i, f, g = sigmoid(i_pre), sigmoid(f_pre), tanh(a.g)
    c = f * s.c + i * g
    o_pre = a.o + p.p_o * c
    o = sigmoid(o_pre)
    gates = {"i.pre": i_pre, "f.pre": f_pre, "o.pre": o_pre, "i": i, "f": f, "g": g, "o": o}
    return {"h": o * tanh(c), "c": c}, gates


class PeepholeLSTM(Cell):
    """i, f = sigmoid(... + p c'), g = tanh(...), c = f c' + i g, o = sigmoid(... + p_o c), h = o tanh(c).

    The peepholes p_i, p_f, p_o are vectors (H,): a unit's gates see its own memory. tanh on the way
    in and out as in Greff et al. 2017, where the paper has other squashing functions. Memory controls
    as of the LSTM, and as exact: the peepholes act on the gates alone.
    """

    law = Law(
        "lstm_peephole",
        equations,
        ("i", "f", "g", "o"),
        {"h": 0.0, "c": 0.0},
        params={"p_i": "vector", "p_f": "vector", "p_o": "vector"},
        controls=MEMORY,
        paper="Gers & Schmidhuber 2000, Recurrent nets that time and count",
    )
