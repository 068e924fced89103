"""The independently recurrent network (Li et al. 2018): each unit remembers itself alone."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations, relu


def equations(a: PreActivations, s: Names, p: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """Eq. 2; s.pre is what the relu takes."""
    before = a.s + p.u * s.h
    return {"h": relu(before)}, {"s.pre": before}


class IndRNN(Cell):
    """h = relu(W x + u h' + b), u a vector (H,): units meet in the next layer only.

    There is no recurrent matrix: weight_hh is (0, H). u starts at 1, in the paper's range for a long
    memory, where a unit neither decays nor grows; the paper's bound on abs(u) is not imposed. No gate, so
    no memory control.
    """

    law = Law(
        "indrnn",
        equations,
        ("s",),
        {"h": 0.0},
        recurrent=(),
        params={"u": "vector"},
        starts={"u": 1.0},
        paper="Li et al. 2018, arXiv 1803.04831",
    )
