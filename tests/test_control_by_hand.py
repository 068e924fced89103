"""Random controls on an LSTM against a slow NumPy reading of what the documentation says."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings

import gatewise as gw
from gatewise.probe import Control, Record
from parity import sigmoid
from tolerances import assert_close

T, B, I, H = 5, 2, 2, 3  # noqa: E741
NAMES = ("i.pre", "f.pre", "g.pre", "o.pre", "i", "f", "g", "o", "c.new", "c", "h.new", "h")
MEMORY = {"keep": {"f": 1, "i": 0}, "reset": {"f": 0, "i": 0}, "write": {"f": 0, "i": 1}}


def _indices(size: int) -> st.SearchStrategy[list[int] | None]:
    return st.none() | st.lists(st.integers(0, size - 1), unique=True, max_size=size)


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    """One rule as data: op, name, value, and where."""
    op = draw(st.sampled_from(["on", "off", "set", "scale", "add", "patch", *MEMORY]))
    where = {"units": draw(_indices(H)), "time": draw(_indices(9)), "batch": draw(_indices(B))}
    rule = {"op": op, "name": draw(st.sampled_from(NAMES)), "value": None, **where}
    if op in ("set", "scale", "add", "patch"):
        counts = [9 if where["time"] is None else len(where["time"]), B, H]
        sizes = [draw(st.sampled_from([1, n])) for n in counts]
        sizes[0] = counts[0]  # one for each selected time
        rank = draw(st.integers(0 if op != "patch" else 1, 3))
        seed = draw(st.integers(0, 99))
        rule["value"] = np.random.default_rng(seed).normal(size=sizes[3 - rank :])
    return rule


def _built(rule: dict[str, Any]) -> Control:
    where = {k: rule[k] for k in ("units", "time", "batch")}
    build = getattr(Control, rule["op"])
    if rule["op"] in MEMORY:
        return build(**where)
    if rule["value"] is None:
        return build(rule["name"], **where)
    return build(rule["name"], torch.from_numpy(np.asarray(rule["value"])), **where)


def _spelled_out(given_rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Memory controls in the terms of the gates."""
    found = []
    for rule in given_rules:
        gates = MEMORY.get(rule["op"])
        if gates is None:
            found.append(rule)
        else:
            found += [{**rule, "op": "set", "name": g, "value": v} for g, v in gates.items()]
    return found


def _act(rule: dict[str, Any], v: float, time: int, b: int, u: int) -> float:
    """One rule on one number."""
    places = {"time": time, "batch": b, "units": u}
    if any(rule[k] is not None and place not in rule[k] for k, place in places.items()):
        return v
    value = {"on": 1.0, "off": 0.0}.get(rule["op"])
    if value is None:
        array = np.asarray(rule["value"])
        index = []
        for k, size in zip(("time", "batch", "units")[3 - array.ndim :], array.shape, strict=True):
            rank = places[k] if rule[k] is None else rule[k].index(places[k])
            if k == "time" and rank >= size:
                return v
            if k == "units" and size == H:  # all of them
                rank = u if rule[k] is None or len(rule[k]) < H else rank
            if k == "batch" and size == B:
                rank = b if rule[k] is None or len(rule[k]) < B else rank
            index.append(0 if size == 1 and k != "time" else rank)
        value = float(array[tuple(index)])
    return {"scale": v * value, "add": v + value}.get(rule["op"], value)


def _by_hand(
    cell: gw.cells.LSTM, x: np.ndarray, starts: list[int], given_rules: list[dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Every value of the net, (T, B, H)."""
    w = {n: p.detach().numpy() for n, p in cell.named_parameters()}
    found = {name: np.zeros((T, B, H)) for name in NAMES}

    def control(name: str, t: int, value: np.ndarray) -> np.ndarray:
        value = value.copy()
        for rule in given_rules:
            if rule["name"] == name:
                for b in range(B):
                    for u in range(H):
                        value[b, u] = _act(rule, value[b, u], starts[b] + t, b, u)
        found[name][t] = value
        return value

    h = c = np.zeros((B, H))
    for t in range(T):
        whole = x[t] @ w["weight_ih"].T + w["bias_ih"] + h @ w["weight_hh"].T + w["bias_hh"]
        pre = dict(zip("ifgo", np.split(whole, 4, -1), strict=True))
        gates = {}
        for n in "ifgo":
            a = control(f"{n}.pre", t, pre[n])
            gates[n] = control(n, t, np.tanh(a) if n == "g" else sigmoid(a))
        c = control("c.new", t, gates["f"] * c + gates["i"] * gates["g"])
        c = control("c", t, c)
        h = control("h.new", t, gates["o"] * np.tanh(c))
        h = control("h", t, h)
    return found


@settings(max_examples=60)
@given(
    given_rules=st.lists(rules(), min_size=1, max_size=4),
    starts=st.integers(0, 6) | st.lists(st.integers(0, 6), min_size=B, max_size=B),
)
def test_controls_do_what_their_words_say(
    given_rules: list[dict[str, Any]], starts: int | list[int]
) -> None:
    cell = gw.cells.LSTM(I, H, dtype=torch.float64)
    x = torch.randn(T, B, I, dtype=torch.float64)
    control = Control()
    for rule in given_rules:
        control |= _built(rule)
    start = starts if isinstance(starts, int) else torch.tensor(starts)
    out = gw.unroll(cell, x, start=start, control=control, record=Record(*NAMES))
    columns = [starts] * B if isinstance(starts, int) else starts
    expected = _by_hand(cell, x.numpy(), columns, _spelled_out(given_rules))
    for name in NAMES:
        assert_close(out.record[name], torch.from_numpy(expected[name]), what=name)
    again = Control.from_json(control.to_json())
    assert torch.equal(gw.unroll(cell, x, start=start, control=again).h, out.h)
