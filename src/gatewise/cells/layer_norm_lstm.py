"""An LSTM with layer normalisation (Ba et al. 2016), each gate normalised by itself."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations, layer_norm, sigmoid, tanh
from gatewise.cells.lstm import MEMORY

_NORMED = ("i", "f", "g", "o", "c")


def equations(a: PreActivations, s: Names, p: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """Each pre-activation normalised over its units, and the cell state on its way out."""
    i = sigmoid(layer_norm(a.i, p.scale_i, p.shift_i))
    f = sigmoid(layer_norm(a.f, p.scale_f, p.shift_f))
    o = sigmoid(layer_norm(a.o, p.scale_o, p.shift_o))
    g = tanh(layer_norm(a.g, p.scale_g, p.shift_g))
    c = f * s.c + i * g
    h = o * tanh(layer_norm(c, p.scale_c, p.shift_c))
    return {"h": h, "c": c}, {"i": i, "f": f, "g": g, "o": o}


class LayerNormLSTM(Cell):
    """The LSTM with LN(W x + R h + b) per gate and LN(c) before the last tanh.

    Variant: one normalisation per gate over the whole pre-activation (scale_i, shift_i, ...), where
    Ba et al. 2016 (arXiv 1607.06450, eq. 20 to 22) normalise W x and R h apart. The state c itself
    is not normalised, so the memory controls hold exactly.
    """

    law = Law(
        "lstm_layer_norm",
        equations,
        ("i", "f", "g", "o"),
        {"h": 0.0, "c": 0.0},
        params={f"{kind}_{n}": "vector" for n in _NORMED for kind in ("scale", "shift")},
        starts={f"{kind}_{n}": v for n in _NORMED for kind, v in (("scale", 1.0), ("shift", 0.0))},
        controls=MEMORY,
        paper="Ba, Kiros & Hinton 2016, arXiv 1607.06450",
    )
