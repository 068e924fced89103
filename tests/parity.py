"""One row for each cell and each engine: what every parity test runs over.

A new cell is one row of `CELLS` (its step by hand in float64 NumPy), a new engine one row of `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gatewise.types import State, state_tensors

Array: TypeAlias = NDArray[np.float64]
Step: TypeAlias = Callable[[Mapping[str, Array], Array, Mapping[str, Array]], dict[str, Array]]


def sigmoid(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


def _blocks(w: Mapping[str, Array], x: Array, h: Array, count: int) -> tuple[list[Array], ...]:
    """W x + b_ih and R h + b_hh, block by block."""
    input_part = x @ w["weight_ih"].T + w["bias_ih"]
    hidden_part = h @ w["weight_hh"].T + w["bias_hh"]
    return np.split(input_part, count, -1), np.split(hidden_part, count, -1)


def rnn(w: Mapping[str, Array], x: Array, s: Mapping[str, Array], g: Any) -> dict[str, Array]:
    (wx,), (rh,) = _blocks(w, x, s["h"], 1)
    return {"s.pre": wx + rh, "h": g(wx + rh)}


def lstm(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    wx, rh = _blocks(w, x, s["h"], 4)
    pi, pf, pg, po = (a + b for a, b in zip(wx, rh, strict=True))
    i, f, g, o = sigmoid(pi), sigmoid(pf), np.tanh(pg), sigmoid(po)
    c = f * s["c"] + i * g
    pre = {"i.pre": pi, "f.pre": pf, "g.pre": pg, "o.pre": po}
    return {**pre, "i": i, "f": f, "g": g, "o": o, "c": c, "h": o * np.tanh(c)}


def gru(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    (xr, xz, xn), (hr, hz, hn) = _blocks(w, x, s["h"], 3)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    before = xn + r * hn
    n = np.tanh(before)
    values = {"r.pre": xr + hr, "z.pre": xz + hz, "n.x": xn, "n.h": hn, "n.pre": before}
    return {**values, "r": r, "z": z, "n": n, "h": (1 - z) * n + z * s["h"]}


def gru_paper(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    xr, xz, xn = np.split(x @ w["weight_ih"].T + w["bias_ih"], 3, -1)
    hr, hz = np.split(s["h"] @ w["weight_hh"].T + w["bias_hh"], 2, -1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    before = xn + (r * s["h"]) @ w["weight_hn"].T
    n = np.tanh(before)
    values = {"r.pre": xr + hr, "z.pre": xz + hz, "n.x": xn, "n.pre": before}
    return {**values, "r": r, "z": z, "n": n, "h": z * s["h"] + (1 - z) * n}


def lstm_layer_norm(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    def norm(v: Array, name: str) -> Array:
        centred = v - v.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return centred / deviation * w[f"scale_{name}"] + w[f"shift_{name}"]

    wx, rh = _blocks(w, x, s["h"], 4)
    pre = {n: a + b for n, a, b in zip("ifgo", wx, rh, strict=True)}
    i, f, o = (sigmoid(norm(pre[n], n)) for n in "ifo")
    g = np.tanh(norm(pre["g"], "g"))
    c = f * s["c"] + i * g
    values = {f"{n}.pre": v for n, v in pre.items()}
    return {**values, "i": i, "f": f, "g": g, "o": o, "c": c, "h": o * np.tanh(norm(c, "c"))}


def lstm_peephole(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    wx, rh = _blocks(w, x, s["h"], 4)
    pi, pf, pg, po = (a + b for a, b in zip(wx, rh, strict=True))
    pi, pf = pi + w["p_i"] * s["c"], pf + w["p_f"] * s["c"]
    i, f, g = sigmoid(pi), sigmoid(pf), np.tanh(pg)
    c = f * s["c"] + i * g
    po = po + w["p_o"] * c
    o = sigmoid(po)
    pre = {"i.pre": pi, "f.pre": pf, "g.pre": pg, "o.pre": po}
    return {**pre, "i": i, "f": f, "g": g, "o": o, "c": c, "h": o * np.tanh(c)}


def lstm_coupled(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    wx, rh = _blocks(w, x, s["h"], 3)
    pf, pg, po = (a + b for a, b in zip(wx, rh, strict=True))
    f, g, o = sigmoid(pf), np.tanh(pg), sigmoid(po)
    c = f * s["c"] + (1 - f) * g
    pre = {"f.pre": pf, "g.pre": pg, "o.pre": po}
    return {**pre, "i": 1 - f, "f": f, "g": g, "o": o, "c": c, "h": o * np.tanh(c)}


def janet(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    wx, rh = _blocks(w, x, s["h"], 2)
    before, pg = (a + b for a, b in zip(wx, rh, strict=True))
    f, i, g = sigmoid(before), 1 - sigmoid(before - 1), np.tanh(pg)
    values = {"f.pre": before, "g.pre": pg, "i": i, "f": f, "g": g}
    return {**values, "h": f * s["h"] + i * g}


def light_gru(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    wx, rh = _blocks(w, x, s["h"], 2)
    pz, pn = (a + b for a, b in zip(wx, rh, strict=True))
    z, n = sigmoid(pz), np.maximum(pn, 0)
    return {"z.pre": pz, "n.pre": pn, "z": z, "n": n, "h": z * s["h"] + (1 - z) * n}


def indrnn(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    before = x @ w["weight_ih"].T + w["u"] * s["h"] + w["bias_ih"]
    return {"s.pre": before, "h": np.maximum(before, 0)}


def slstm(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    wx, rh = _blocks(w, x, s["h"], 4)
    pi, pf, pg, po = (a + b for a, b in zip(wx, rh, strict=True))
    log_past = np.where(s["n"] > 0, pf + s["m"], pi)  # nothing written: on the scale of the input
    m = np.maximum(log_past, pi)
    i, f = np.exp(pi - m), np.exp(log_past - m)
    g, o = np.tanh(pg), sigmoid(po)
    c, n = f * s["c"] + i * g, f * s["n"] + i
    h = o * c / np.where(n > 0, n, 1)
    pre = {"i.pre": pi, "f.pre": pf, "g.pre": pg, "o.pre": po}
    return {**pre, "i": i, "f": f, "g": g, "o": o, "c": c, "n": n, "m": m, "h": h}


def minlstm(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    pi, pf, g = np.split(x @ w["weight_ih"].T + w["bias_ih"], 3, -1)
    total = sigmoid(pf) + sigmoid(pi)
    i, f = sigmoid(pi) / total, sigmoid(pf) / total
    pre = {"i.pre": pi, "f.pre": pf, "g.pre": g}
    return {**pre, "i": i, "f": f, "h": f * s["h"] + i * g}


def mingru(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    pz, n = np.split(x @ w["weight_ih"].T + w["bias_ih"], 2, -1)
    z = sigmoid(pz)
    return {"z.pre": pz, "n.pre": n, "z": z, "h": (1 - z) * s["h"] + z * n}


def mogrifier(w: Mapping[str, Array], x: Array, s: Mapping[str, Array]) -> dict[str, Array]:
    h, names = s["h"], {}
    x = names["x.mog1"] = 2 * sigmoid(h @ w["q1"].T) * x
    h = names["h.mog2"] = 2 * sigmoid(x @ w["r2"].T) * h
    x = names["x.mog3"] = 2 * sigmoid(h @ w["q3"].T) * x
    h = names["h.mog4"] = 2 * sigmoid(x @ w["r4"].T) * h
    x = names["x.mog5"] = 2 * sigmoid(h @ w["q5"].T) * x
    return names | lstm(w, x, {"h": h, "c": s["c"]})


@dataclass(frozen=True)
class Row:
    """One cell: its step by hand, its class in torch.nn, what else it can do."""

    step: Step
    torch: type[torch.nn.RNNBase] | None = None
    options: Mapping[str, Any] = ()  # type: ignore[assignment]
    projects: bool = False
    positive: tuple[str, ...] = ()  # states that are sums of weights


CELLS: dict[str, Row] = {
    "rnn_tanh": Row(lambda w, x, s: rnn(w, x, s, np.tanh), torch.nn.RNN),
    "rnn_relu": Row(
        lambda w, x, s: rnn(w, x, s, lambda v: np.maximum(v, 0)),
        torch.nn.RNN,
        {"nonlinearity": "relu"},
    ),
    "lstm": Row(lstm, torch.nn.LSTM, projects=True),
    "gru": Row(gru, torch.nn.GRU),
    "gru_paper": Row(gru_paper),
    "lstm_layer_norm": Row(lstm_layer_norm, projects=True),
    "lstm_peephole": Row(lstm_peephole, projects=True),
    "lstm_coupled": Row(lstm_coupled, projects=True),
    "janet": Row(janet),
    "light_gru": Row(light_gru),
    "indrnn": Row(indrnn),
    "slstm": Row(slstm, projects=True, positive=("n",)),
    "minlstm": Row(minlstm),
    "mingru": Row(mingru),
    "mogrifier": Row(mogrifier, projects=True),
}

_COMPILED = tuple(name for name in CELLS if name != "mogrifier")
_UNIT_BY_UNIT = tuple(n for n in _COMPILED if n not in ("lstm_layer_norm", "gru_paper"))

ENGINES: dict[str, tuple[str, ...]] = {
    "reference": tuple(CELLS),
    "closed": ("rnn_tanh", "rnn_relu", "lstm", "gru"),
    "compiled": _COMPILED,
    "cuda": _UNIT_BY_UNIT,
    "scan": ("minlstm", "mingru"),
}
"""Engine -> the cells that it runs."""

PAIRS = [(engine, cell) for engine, cells in ENGINES.items() for cell in cells]


def spread(module: torch.nn.Module, scale: float = 0.5) -> None:
    """Weights away from their start, so that every one of them matters (norms, biases)."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, dtype=p.dtype) * scale)


def flat(state: State) -> list[Tensor]:
    return list(state_tensors(state))


def random_state(module: Any, batch: int) -> Any:
    """A state of a stack that is not zero, and that its cell can come to."""
    from gatewise.types import map_state

    state, law = map_state(torch.randn_like, module.zero_state(batch)), module._law
    positive = CELLS[law.name].positive if law.name in CELLS else ()
    if not positive:
        return state

    def mended(parts: Any) -> Any:
        named = zip(law.states, parts, strict=True)
        return tuple(part.abs() + 0.5 if name in positive else part for name, part in named)

    return mended(state) if isinstance(state[0], Tensor) else tuple(map(mended, state))
