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


@dataclass(frozen=True)
class Row:
    """One cell: its step by hand, its class in torch.nn, what else it can do."""

    step: Step
    torch: type[torch.nn.RNNBase] | None = None
    options: Mapping[str, Any] = ()  # type: ignore[assignment]
    projects: bool = False


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
}

ENGINES: dict[str, tuple[str, ...]] = {
    "reference": tuple(CELLS),
    "closed": ("rnn_tanh", "rnn_relu", "lstm", "gru"),
    "compiled": ("rnn_tanh", "rnn_relu", "lstm", "gru"),
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
    """A state of a stack that is not zero."""
    from gatewise.types import map_state

    return map_state(torch.randn_like, module.zero_state(batch))
