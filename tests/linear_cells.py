"""User cells that are linear recurrences, and some that nearly are."""

from __future__ import annotations

from typing import Any

import gatewise as gw


@gw.cell(controls={"keep": {"f": 1.0, "i": 0.0}})
def pooling(a: Any, s: Any) -> Any:
    """QRNN's fo-pooling (Bradbury et al. 2017): c first, then h, which reads it."""
    f, o, g = gw.sigmoid(a.x.f), gw.sigmoid(a.x.o), gw.tanh(a.x.g)
    i = 1 - f
    c = f * s.c + i * g
    return {"h": o * gw.tanh(c), "c": c}, {"i": i, "f": f, "o": o, "g": g}


@gw.cell
def mean(a: Any, s: Any) -> Any:
    """A weighted mean of all that came, with a 0 of half a weight: two sums and their ratio."""
    i, f = gw.exp(-gw.softplus(a.x.i)), gw.sigmoid(a.x.f)
    n = f * s.n + i
    c = f * s.c + i * a.x.g
    return {"h": c / (n + 0.5), "n": n, "c": c}, {"i": i, "f": f}


@gw.cell(params={"u": "vector"}, states={"h": 0.5})
def leaky(a: Any, s: Any, p: Any) -> Any:
    """A factor that is a parameter alone, and steps between which it chooses."""
    kept = gw.sigmoid(p.u) * s.h
    moved = kept - (kept - a.x.v) / 3
    return {"h": gw.where(a.x.w > 0, moved, -(s.h - a.x.v))}, {"kept": kept}


@gw.cell(params={"w": "matrix", "scale": "vector", "shift": "vector"})
def mixed(a: Any, s: Any, p: Any) -> Any:
    """Other units are read, but only of what is known for all times."""
    z = gw.sigmoid(p.w @ gw.tanh(a.x.z))
    c = z * s.c + (1 - z) * a.x.n
    h = gw.layer_norm(c, p.scale, p.shift) + s.c
    return {"h": h, "c": c}, {"z": z}


@gw.cell
def nested(a: Any, s: Any) -> Any:
    """A second recurrence over the previous and next values of the first."""
    f, z = gw.sigmoid(a.x.f), gw.sigmoid(a.x.z)
    c = f * s.c + a.x.f
    gate = gw.sigmoid(s.c * c)
    h = gate * (z * s.h + (1 - z) * c) + 0.1
    return {"h": h, "c": c}, {"gate": gate, "f": f}


LINEAR = {
    "pooling": pooling,
    "mean": mean,
    "leaky": leaky,
    "mixed": mixed,
    "nested": nested,
}
"""Each with what its kind of recurrence is."""


@gw.cell
def squashed(a: Any, s: Any) -> Any:
    return {"h": gw.tanh(a.x.z * s.h + a.x.n)}, {}


@gw.cell
def gate_reads_the_state(a: Any, s: Any) -> Any:
    f = gw.sigmoid(a.x.f + s.h)
    return {"h": f * s.h + a.x.f}, {"f": f}


@gw.cell
def recurrent_matrix(a: Any, s: Any) -> Any:
    f = gw.sigmoid(a.f)
    return {"h": f * s.h + (1 - f) * a.x.g}, {"f": f}


@gw.cell
def only_the_h_part(a: Any, s: Any) -> Any:
    return {"h": 0.5 * s.h + a.x.g + a.h.g}, {}


@gw.cell
def square(a: Any, s: Any) -> Any:
    return {"h": s.h * s.h + a.x.z}, {}


@gw.cell
def divisor(a: Any, s: Any) -> Any:
    return {"h": a.x.z / (2 + s.h)}, {}


@gw.cell
def condition(a: Any, s: Any) -> Any:
    return {"h": gw.where(s.h > a.x.z, 0.5 * s.h, s.h)}, {}


@gw.cell(params={"w": "matrix"})
def matrix(a: Any, s: Any, p: Any) -> Any:
    return {"h": p.w @ (a.x.z * s.h) + a.x.z}, {}


@gw.cell
def rotation(a: Any, s: Any) -> Any:
    """Linear, but not unit by unit in one state: two states that read each other."""
    return {"h": a.x.z * s.h - s.c, "c": a.x.z * s.c + s.h}, {}


@gw.cell
def largest(a: Any, s: Any) -> Any:
    return {"h": gw.maximum(s.h, a.x.z)}, {}


NEARLY = {
    "squashed": (squashed, "its h is not linear in h[t-1]: it stands in tanh"),
    "gate": (gate_reads_the_state, "it stands in sigmoid"),
    "recurrent matrix": (recurrent_matrix, "a.f reads h[t-1] through a recurrent matrix"),
    "h part": (only_the_h_part, "a.g reads h[t-1] through a recurrent matrix"),
    "square": (square, "it is multiplied with itself"),
    "divisor": (divisor, "it is a divisor"),
    "condition": (condition, "it stands in gt"),
    "matrix": (matrix, "it stands in matmul"),
    "rotation": (rotation, "it reads s.c, which is not known for all times before it"),
    "largest": (largest, "it stands in maximum"),
}
"""A cell, and part of the reason why it is none."""
