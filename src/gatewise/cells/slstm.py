"""The sLSTM of xLSTM (Beck et al. 2024): exponential gates, a normaliser, a stabiliser."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import (
    Expr,
    Names,
    PreActivations,
    exp,
    maximum,
    sigmoid,
    tanh,
    where,
)

_CLOSED = -1e4
"""A pre-activation whose exponential is 0, and which float16 can hold."""


def equations(a: PreActivations, s: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """Eq. 8 to 17; i and f are the stabilised gates, which multiply g and the last c."""
    past = where(s.n > 0, a.f + s.m, a.i)
    m = maximum(past, a.i)
    i, f = exp(a.i - m), exp(past - m)
    g, o = tanh(a.g), sigmoid(a.o)
    c, n = f * s.c + i * g, f * s.n + i
    h = o * (c / where(n > 0, n, 1.0))
    return {"h": h, "c": c, "n": n, "m": m}, {"i": i, "f": f, "g": g, "o": o}


class SLSTM(Cell):
    """m = max(a_f + m', a_i), i = exp(a_i - m), f = exp(a_f + m' - m), g = tanh(...), o = sigmoid(...),
    c = f c' + i g, n = f n' + i, h = o c / n.

    Gates in stacking order i f g o (g is the paper's z); of the paper's two forget gates the exponential
    one, and one head. m sets the scale exp(m) of c and n, so that no exponential overflows; h does not
    depend on it.

    All states start at 0. Where n' is 0 nothing has been written, and c' and n' take the scale of what
    comes: m = a_i, i = f = 1, h = o g. That is the first step exactly, for inputs of any size and with
    gradients that are numbers, as m starting at minus infinity has not. Where n is 0 (after a reset)
    nothing is read, h = 0, not 0 / 0.

    Memory controls, whatever stands in x and, for the last two, in the memory: keep (c, n and m stay, bit
    for bit), reset (c = n = m = 0: the start state) and write (c = g, n = 1, m = 0). Zoneout is best
    asked for h alone: c / n is a mean only as long as both are kept, or neither.
    """

    law = Law(
        "slstm",
        equations,
        ("i", "f", "g", "o"),
        {"h": 0.0, "c": 0.0, "n": 0.0, "m": 0.0},
        controls={
            "keep": {"f.pre": 0.0, "i.pre": _CLOSED, "f": 1.0, "i": 0.0},
            "reset": {"f": 0.0, "i": 0.0, "m": 0.0},
            "write": {"f": 0.0, "i": 1.0, "m": 0.0},
        },
        paper="Beck et al. 2024, arXiv 2405.04517",
    )
