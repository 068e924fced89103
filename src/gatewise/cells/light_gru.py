"""The light gated recurrent unit (Ravanelli et al. 2018)."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations, relu, sigmoid
from gatewise.cells.gru import MEMORY


def equations(a: PreActivations, s: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """A GRU without reset gate, its candidate through relu."""
    z, n = sigmoid(a.z), relu(a.n)
    return {"h": (1 - z) * n + z * s.h}, {"z": z, "n": n}


class LightGRU(Cell):
    """z = sigmoid(...), n = relu(...), h = (1 - z) n + z h': the paper's Li-GRU.

    Blocks in stacking order z n. Left out: the paper's batch normalisation of W x, which would tie the
    columns of a batch together; in the paper it keeps the relu from growing. Memory controls: keep
    (z=1), reset (z=0, n=0) and write (z=0).
    """

    law = Law(
        "light_gru",
        equations,
        ("z", "n"),
        {"h": 0.0},
        controls=MEMORY,
        paper="Ravanelli et al. 2018, arXiv 1803.10225; without its batch normalisation",
    )
