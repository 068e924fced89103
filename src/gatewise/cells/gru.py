"""The gated recurrent unit, in torch's form and in the paper's (Cho et al. 2014)."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations, sigmoid, tanh

Step = tuple[dict[str, Expr], dict[str, Expr]]
MEMORY = {
    "keep": {"z": 1.0},
    "reset": {"z": 0.0, "n": 0.0},
    "write": {"z": 0.0},
}


def reset_after(a: PreActivations, s: Names) -> Step:
    """torch's variant: r multiplies the recurrent product, bias included."""
    r, z = sigmoid(a.r), sigmoid(a.z)
    before = a.x.n + r * a.h.n
    n = tanh(before)
    return {"h": (1 - z) * n + z * s.h}, {"r": r, "z": z, "n.pre": before, "n": n}


def reset_before(a: PreActivations, s: Names, p: Names) -> Step:
    """The paper's eq. 5 to 8: r multiplies h[t-1] before the matrix."""
    r, z = sigmoid(a.r), sigmoid(a.z)
    before = a.x.n + p.weight_hn @ (r * s.h)
    n = tanh(before)
    return {"h": (1 - z) * n + z * s.h}, {"r": r, "z": z, "n.pre": before, "n": n}


class GRU(Cell):
    """n = tanh(W x + b + r (R h' + b')), h = (1 - z) n + z h': torch.nn.GRU's cell.

    Gates in stacking order r z n. The reset is applied after the matrix, unlike the paper's
    (`PaperGRU`): one recurrent product instead of two in a row. Memory controls: keep (z=1),
    reset (z=0, n=0) and write (z=0).
    """

    law = Law(
        "gru",
        reset_after,
        ("r", "z", "n"),
        {"h": 0.0},
        controls=MEMORY,
        paper="Cho et al. 2014, arXiv 1406.1078; the reset after the matrix as in torch and cuDNN",
    )


class PaperGRU(Cell):
    """n = tanh(W x + b + R (r h')), h = z h' + (1 - z) n: Cho et al. 2014, eq. 5 to 8.

    weight_hh holds the blocks r and z; the candidate's recurrent matrix is weight_hn (H, H).
    """

    law = Law(
        "gru_paper",
        reset_before,
        ("r", "z", "n"),
        {"h": 0.0},
        recurrent=("r", "z"),
        params={"weight_hn": "recurrent"},
        controls=MEMORY,
        paper="Cho et al. 2014, arXiv 1406.1078",
    )
