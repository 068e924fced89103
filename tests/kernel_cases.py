"""What engines of kernels are compared on: cells, plans, and all that comes out of a run."""

from __future__ import annotations

import copy
from functools import reduce
from operator import or_
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

import gatewise as gw
from gatewise.cells.base import as_state
from gatewise.errors import EngineError
from gatewise.types import state_tensors
from parity import ENGINES, random_state, spread
from tolerances import assert_close

STEPS, BATCH, INPUT, UNITS = 7, 5, 3, 13


@gw.cell
def coupled(a: Any, s: Any) -> Any:
    f, o, g = gw.sigmoid(a.f), gw.sigmoid(a.o), gw.tanh(a.g)
    c = f * s.c + (1 - f) * g
    return {"h": o * gw.tanh(c), "c": c}, {"f": f, "o": o, "g": g}


@gw.cell(params={"p_i": "vector", "p_o": "vector"})
def peephole(a: Any, s: Any, p: Any) -> Any:
    i, f = gw.sigmoid(a.i + p.p_i * s.c), gw.sigmoid(a.f)
    c = f * s.c + i * gw.tanh(a.g)
    o = gw.sigmoid(a.o + p.p_o * c)
    return {"h": o * gw.tanh(c), "c": c}, {"i": i, "f": f, "o": o}


@gw.cell(states={"n": 1.0, "m": -1.0})
def many_operations(a: Any, s: Any) -> Any:
    z = gw.softplus(a.z) + gw.exp(gw.minimum(a.y, 1.0)) / 3
    m = gw.maximum(s.m - z / 9, gw.log(1 + z) - 2)
    n = gw.where(a.x.w > a.h.w, s.n * 0.5, gw.sqrt(z + 1)) - gw.relu(m)
    return {"h": gw.tanh(n - s.h) * z / (1 + z), "n": n, "m": m}, {"z": z}


@gw.cell(params={"scale": "vector", "shift": "vector"})
def normed(a: Any, s: Any, p: Any) -> Any:
    """Norms of a state, of a part, of what is named, and of each other."""
    n = gw.layer_norm(a.x.n - gw.layer_norm(a.h.n, p.shift, p.scale), p.scale, p.shift)
    z = gw.sigmoid(a.z + gw.layer_norm(s.c, p.scale, p.shift))
    c = z * s.c + (1 - z) * gw.tanh(n)
    h = gw.layer_norm(gw.where(c > a.y, c, 0.5 * a.y) * z, p.scale, p.shift)
    return {"h": 0.5 * s.h + h, "c": c}, {"n": n, "z": z}


@gw.cell(params={"u": "recurrent", "v": "matrix", "w": "matrix", "p": "vector"})
def matrices(a: Any, s: Any, p: Any) -> Any:
    """Products of a state, of a vector, of another product, with one matrix twice, beside a norm."""
    n = gw.tanh(p.u @ (a.x.n + 0.3 * (p.v @ s.c)) - a.h.n)
    z = gw.sigmoid(a.z + p.w @ p.p)
    c = z * s.c + (1 - z) * gw.layer_norm(gw.where(n > a.y, n, 0.5 * a.y), p.p, p.p)
    return {"h": 0.5 * s.h + p.v @ c, "c": c}, {"n": n, "z": z}


USERS = {"coupled": coupled, "peephole": peephole, "many operations": many_operations}
CELLS = [*ENGINES["cuda"], *USERS]
"""Those that are computed unit by unit."""
BY_ROWS = {"normed": normed, "matrices": matrices}
PROJECTED = ["lstm to 5"]
# what takes longest to compile; quick ones hold the same: gru_paper has matrices, normed has norms
_LONG = pytest.param("matrices", marks=pytest.mark.slow)
COMPILED = [*ENGINES["compiled"], *USERS, "normed", _LONG, *PROJECTED]


def build(cell: str, dtype: torch.dtype = torch.float64, **options: Any) -> gw.Stack:
    """A stack of a cell, by its name; "lstm to 5" has a projection of that size, or of one unit less than others."""
    cell, _, size = cell.partition(" to ")
    kind, options = (USERS | BY_ROWS).get(cell, cell), {"hidden_size": UNITS, **options}
    if size:
        options["proj_size"] = min(int(size), options["hidden_size"] - 1)
    stack = gw.Stack(kind, INPUT, **{"dtype": dtype, **options})
    spread(stack, 0.2)
    return stack


def results(stack: gw.Stack, x: Tensor, state: Any, engine: str, **call: Any) -> dict[str, Tensor]:
    torch.manual_seed(7)  # the same masks
    x = x.clone().requires_grad_()
    given = None if state is None else [s.clone().requires_grad_() for s in state_tensors(state)]
    out = stack(x, None if given is None else as_state(given), engine=engine, **call)
    assert out.engine == engine
    found = {"h": out.h} | {f"state {k}": v for k, v in enumerate(state_tensors(out.state))}
    cost = sum(((k + 1) * torch.sin(v.double())).sum() for k, v in enumerate(found.values()))
    leaves = {"x": x} | dict(stack.named_parameters())
    leaves |= {f"given {k}": v for k, v in enumerate(given or ())}
    cost = cost + 0 * x.sum()  # a control may cut all else off
    gradients = torch.autograd.grad(cost, list(leaves.values()), allow_unused=True)
    for name, g in zip(leaves, gradients, strict=True):
        found[f"gradient of {name}"] = torch.zeros_like(leaves[name]) if g is None else g
    if out.record is not None:
        found |= {f"recorded {path}": value for path, value in out.record.items()}
    return found


def compare(engine: str, stack: gw.Stack, x: Tensor, state: Any = None, **call: Any) -> None:
    """Fail unless the engine gives what the reference gives."""
    expected = results(stack, x, state, "reference", **call)
    actual = results(stack, x, state, engine, **call)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(actual[name], value, gradient=True, what=name)


def errors(
    engine: str,
    stack: gw.Stack,
    call: dict[str, Any],
    dtype: torch.dtype,
    device: str = "cpu",
    autocast: bool = False,
) -> dict[str, float]:
    """How far an engine is from the reference in float64 on the CPU, relative to each result's norm.

    Args:
        engine: its name.
        stack: float64 and on the CPU; its numbers are rounded to `dtype` before either runs.
        call: arguments of the stack.
        dtype: that the engine computes in.
        device: that it runs on.
        autocast: float32 weights under autocast to `dtype`, rather than all of `dtype`.
    """
    exact = copy.deepcopy(stack).to(dtype).double()
    x = numbers().to(dtype).double()
    state = tuple(s.to(dtype).double() for s in state_tensors(random_state(stack, BATCH)))
    expected = results(exact, x, state, "reference", **call)
    own = torch.float32 if autocast else dtype
    there = copy.deepcopy(exact).to(device, own)
    moved = tuple(s.to(device, own) for s in state)
    with torch.autocast(device, dtype, enabled=autocast):
        actual = results(there, x.to(device, own), moved, engine, **call)
    assert actual.keys() == expected.keys()
    found = {}
    for name, value in expected.items():
        away = actual[name].detach().cpu().double() - value.detach()
        found[name] = float(away.norm() / value.detach().norm().clamp(min=0.01))
    return found


def check_errors(
    engine: str, cell: str, plan: str, bound: float, device: str = "cpu", **how: Any
) -> None:
    """Within the bound, or, where a case magnifies roundings, about as near as the plain loop on the CPU."""
    options, call = plans(build(cell).directions()[0].names)[plan]
    stack = build(cell, num_layers=2, bidirectional=True, **options)
    drawn = torch.get_rng_state()
    found = errors(engine, stack, call, device=device, **how)
    torch.set_rng_state(drawn)  # the same numbers again
    far = {name: error for name, error in found.items() if not error < bound}
    plain = errors("reference", stack, call, **how) if far else {}
    for name, error in far.items():
        lost = not plain[name] < 100 * bound  # nothing is left there to compare; or NaN
        assert lost or error < 4 * plain[name], f"{name}: {error:.1e}, not {plain[name]:.1e}"


def kinks(cell: str) -> set[str]:
    """The operations of a cell that have a kink or a jump: there a last bit can decide about a gradient."""
    nodes = build(cell).directions()[0].law.graph.nodes
    return {node.op for node in nodes} & {"relu", "minimum", "maximum", "where"}


def plans(names: tuple[str, ...]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Every kind of plan: options of the stack, and arguments of a call; all names are recorded."""
    record, ragged = gw.Record(*names), [7, 0, 1, 6, 3]
    reset = torch.arange(STEPS * BATCH).reshape(STEPS, BATCH) % 3 == 1
    noise = {"zoneout": 0.5, "dropout": 0.5}
    found: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "closed": ({}, {}),
        "whole": ({}, {"record": record}),
        "ragged": ({}, {"record": record, "lengths": ragged}),
        "resets": ({}, {"record": record, "reset": reset, "lengths": ragged}),
        "noise": (noise, {"record": record}),
    }
    neutral = reduce(or_, (gw.Control.scale(n, 1.0) for n in names))
    makes = list(controls().values())
    for k, name in enumerate(names):
        made = neutral | makes[k % len(makes)](name)
        found[f"control of {name}"] = ({}, {"record": record, "control": made, "start": 3})
    return found


def numbers(dtype: torch.dtype = torch.float64, steps: int = STEPS) -> Tensor:
    return torch.randn(steps, BATCH, INPUT, dtype=dtype)


def controls(units: int = UNITS) -> dict[str, Any]:
    """Every kind of control, of a name that has so many units."""
    wave = torch.rand(3, 1, units, dtype=torch.float64)
    return {
        "on": lambda n: gw.Control.on(n),
        "off": lambda n: gw.Control.off(n, units=slice(0, 4), batch=[0, 3]),
        "set": lambda n: gw.Control.set(n, 0.3, time=slice(4, 7)),
        "scale": lambda n: gw.Control.scale(n, 1.7, units=[1, units - 1]),
        "add": lambda n: gw.Control.add(n, 0.1, batch=2),
        "patch": lambda n: gw.Control.patch(n, wave, time=slice(5, 8)),
        "composed": lambda n: (
            gw.Control.set(n, 0.2, units=slice(0, 4))
            | gw.Control.scale(n, 1.5, time=[5, 6])
            | gw.Control.add(n, torch.arange(float(units)) / 50)
        ),
    }


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "rounds": ({"cell": "mogrifier"}, {}, "x and h modulate each other"),
    "no step": ({}, {"lengths": None, "steps": 0}, "no step or no column"),
    "record with gradient": ({}, {"record": gw.Record("f", grad=True)}, "carry gradients"),
    "learned control": (
        {},
        {"control": gw.Control.set("f", torch.ones(4, requires_grad=True))},
        "asks for a gradient",
    ),
}
"""What kernels refuse: how the stack is made and called, and the reason given."""
REFUSED_BY_ROWS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "projection": ({"proj_size": 2}, {}, "there is a projection"),
    "matrix": ({"cell": "gru_paper"}, {}, "matmul reads other units"),
    "norm": ({"cell": "lstm_layer_norm"}, {}, "layer_norm reads other units"),
}
"""What those that compute unit by unit refuse beside."""


def check_refusal(engine: str, case: str) -> None:
    options, call, reason = (REFUSED | REFUSED_BY_ROWS)[case]
    stack = gw.Stack(**{"cell": "lstm", "input_size": 3, "hidden_size": 4, **options})
    call = dict(call)
    with pytest.raises(EngineError, match=reason):
        stack(torch.zeros(call.pop("steps", 5), 2, 3), engine=engine, **call)


LEAVES = ["a.p", "a.q", "a.x.r", "a.h.r", "s.h", "s.c", "number"]
UNARY = ["sigmoid", "tanh", "relu", "softplus", "exp"]
NORM = "layer_norm"
BINARY = ["+", "-", "*", "minimum", "maximum", "where"]


def expressions(*, norms: bool = False) -> st.SearchStrategy[Any]:
    """Trees of the operations of equations; `norms`: with means over the units."""
    unary = [*UNARY, *[NORM] * 3] if norms else UNARY
    return st.recursive(
        st.sampled_from(LEAVES),
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(unary), inner),
            st.tuples(st.sampled_from(BINARY), inner, inner),
        ),
        max_leaves=6,
    )


def evaluate(tree: Any, a: Any, s: Any, p: Any = None) -> Any:
    if isinstance(tree, str):
        leaves = {"a.p": a.p, "a.q": a.q, "a.x.r": a.x.r, "a.h.r": a.h.r, "s.h": s.h, "s.c": s.c}
        return leaves.get(tree, 0.7)
    op, *parts = tree
    values = [evaluate(part, a, s, p) for part in parts]
    if op in "+-*":
        x, y = values
        return x + y if op == "+" else x - y if op == "-" else x * y
    if op == "where":
        return gw.where(values[0] > values[1] + 0.1 * s.c, *values)
    if op == NORM:
        return gw.layer_norm(values[0] + 0 * s.h, p.scale, p.shift)
    if op == "exp":
        return gw.exp(-gw.softplus(values[0]))
    return getattr(gw, op)(*values)


def random_cell(first: Any, second: Any) -> Any:
    """A cell whose equations hold two trees of `expressions`."""

    def law(a: Any, s: Any, p: Any = None) -> Any:
        gate = gw.sigmoid(evaluate(first, a, s, p) + a.p)
        c = gate * s.c + gw.tanh(evaluate(second, a, s, p) + a.q + a.x.r - a.h.r)
        return {"h": gw.tanh(c), "c": c}, {"gate": gate}

    if NORM not in str((first, second)):
        return gw.cell(lambda a, s: law(a, s))

    def normed(a: Any, s: Any, p: Any) -> Any:
        states, gates = law(a, s, p)
        return {**states, "h": states["h"] + 0 * (p.scale + p.shift)}, gates

    return gw.cell(params={"scale": "vector", "shift": "vector"})(normed)
