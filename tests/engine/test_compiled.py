"""The compiled engine against the plain loop: every cell, control, record, mask and length."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import or_
from typing import Any

import pytest
import torch
from hypothesis import given, settings
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


USERS = {"coupled": coupled, "peephole": peephole, "many operations": many_operations}
CELLS = [*ENGINES["compiled"], *USERS]


def build(cell: str, dtype: torch.dtype = torch.float64, **options: Any) -> gw.Stack:
    kind = USERS.get(cell, cell)
    stack = gw.Stack(kind, INPUT, **{"hidden_size": UNITS, "dtype": dtype, **options})
    spread(stack, 0.2)
    return stack


def results(stack: gw.Stack, x: Tensor, state: Any, engine: str, **call: Any) -> dict[str, Tensor]:
    torch.manual_seed(7)  # the same masks
    x = x.clone().requires_grad_()
    given = None if state is None else [s.clone().requires_grad_() for s in state_tensors(state)]
    out = stack(x, None if given is None else as_state(given), engine=engine, **call)
    assert out.engine == engine
    found = {"h": out.h} | {f"state {k}": v for k, v in enumerate(state_tensors(out.state))}
    cost = sum(((k + 1) * torch.sin(v)).sum() for k, v in enumerate(found.values()))
    leaves = {"x": x} | dict(stack.named_parameters())
    leaves |= {f"given {k}": v for k, v in enumerate(given or ())}
    cost = cost + 0 * x.sum()  # a control may cut all else off
    gradients = torch.autograd.grad(cost, list(leaves.values()), allow_unused=True)
    for name, g in zip(leaves, gradients, strict=True):
        found[f"gradient of {name}"] = torch.zeros_like(leaves[name]) if g is None else g
    if out.record is not None:
        found |= {f"recorded {path}": value for path, value in out.record.items()}
    return found


def compare(stack: gw.Stack, x: Tensor, state: Any = None, **call: Any) -> None:
    expected = results(stack, x, state, "reference", **call)
    actual = results(stack, x, state, "compiled", **call)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(actual[name], value, gradient=True, what=name)


def numbers(dtype: torch.dtype = torch.float64, steps: int = STEPS) -> Tensor:
    return torch.randn(steps, BATCH, INPUT, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", CELLS)
def test_two_layers_both_ways(cell: str, dtype: torch.dtype) -> None:
    stack = build(cell, dtype, num_layers=2, bidirectional=True)
    compare(stack, numbers(dtype), random_state(stack, BATCH))


@pytest.mark.parametrize("cell", CELLS)
def test_every_name_is_recorded(cell: str) -> None:
    stack = build(cell, bidirectional=True)
    names = stack.directions()[0].names
    for record in (
        gw.Record(*names),
        gw.Record(*names, every=2, units=[0, 12]),
        gw.Record(names[-1], time=slice(2, 4)),
    ):
        compare(stack, numbers(), record=record, lengths=[7, 0, 1, 6, 3], start=3)


@pytest.mark.parametrize("cell", CELLS)
def test_ragged_lengths_and_resets(cell: str) -> None:
    stack = build(cell, num_layers=2, bidirectional=True)
    names = stack.directions()[0].names
    reset = torch.rand(STEPS, BATCH) < 0.3
    for call in (
        {"lengths": [7, 0, 1, 6, 3]},
        {"reset": reset},
        {"reset": reset, "lengths": [7, 0, 1, 6, 3], "record": gw.Record(*names)},
    ):
        compare(stack, numbers(), random_state(stack, BATCH), **call)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_noise(cell: str, training: bool) -> None:
    stack = build(cell, num_layers=2, zoneout=0.3, weight_drop=0.2, dropout=0.4, bidirectional=True)
    names = stack.directions()[0].names
    stack.train(training)
    compare(stack, numbers(), lengths=[7, 0, 1, 6, 3], record=gw.Record(*names))


@pytest.mark.parametrize(("steps", "units"), [(1, 1), (63, 1), (2, 8), (3, 16), (2, 17), (5, 31)])
@pytest.mark.parametrize("cell", CELLS)
def test_sizes(cell: str, steps: int, units: int) -> None:
    stack = build(cell, hidden_size=units)
    compare(stack, numbers(steps=steps), random_state(stack, BATCH))


@pytest.mark.parametrize("cell", CELLS)
def test_without_bias_and_with_a_learned_start(cell: str) -> None:
    compare(build(cell, bias=False, learned_state=True, bidirectional=True), numbers())


def _controls() -> dict[str, Any]:
    wave = torch.rand(3, 1, UNITS, dtype=torch.float64)
    return {
        "on": lambda n: gw.Control.on(n),
        "off": lambda n: gw.Control.off(n, units=slice(0, 5), batch=[0, 3]),
        "set": lambda n: gw.Control.set(n, 0.3, time=slice(4, 7)),
        "scale": lambda n: gw.Control.scale(n, 1.7, units=[1, 12]),
        "add": lambda n: gw.Control.add(n, 0.1, batch=2),
        "patch": lambda n: gw.Control.patch(n, wave, time=slice(5, 8)),
        "composed": lambda n: (
            gw.Control.set(n, 0.2, units=slice(0, 6))
            | gw.Control.scale(n, 1.5, time=[5, 6])
            | gw.Control.add(n, torch.arange(13.0) / 50)
        ),
    }


@pytest.mark.parametrize("cell", CELLS)
def test_every_name_is_controlled(cell: str) -> None:
    """One kernel in which all names have a control, most of which change nothing."""
    stack = build(cell, bidirectional=True)
    names = stack.directions()[0].names
    neutral = reduce(or_, (gw.Control.scale(n, 1.0) for n in names))
    makes = list(_controls().values())
    for k, name in enumerate(names):
        for make in (makes[k % len(makes)], makes[(3 * k + 1) % len(makes)]):
            control = neutral | make(name)
            compare(stack, numbers(), control=control, record=gw.Record(*names), start=3)


@pytest.mark.slow
@pytest.mark.parametrize("control", _controls())
@pytest.mark.parametrize("cell", CELLS)
def test_every_name_is_controlled_alone(cell: str, control: str) -> None:
    """A kernel for each name: minutes of compilation."""
    stack = build(cell, num_layers=2, bidirectional=True)
    make = _controls()[control]
    names = stack.directions()[0].names
    for name in names:
        compare(stack, numbers(), control=make(name), record=gw.Record(*names), start=3)


@pytest.mark.parametrize("memory", ["keep", "reset", "write"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_memory_controls(cell: str, memory: str) -> None:
    stack = build(cell, num_layers=2, zoneout=0.2)
    control = getattr(gw.Control, memory)(layer=1, units=slice(0, 9), time=slice(2, 5))
    starts = torch.tensor([0, 1, 2, 0, 3])
    compare(stack, numbers(), control=control, start=starts, lengths=[7, 0, 1, 6, 3])


def test_keep_is_exact() -> None:
    stack = build("lstm", torch.float32)
    record = gw.Record("c")
    control = gw.Control.keep(units=slice(0, 6), time=slice(2, 5))
    out = stack(numbers(torch.float32), engine="compiled", control=control, record=record)
    c = out.record["layers.0.c"]
    assert torch.equal(c[2:5, :, :6], c[1:2, :, :6].expand(3, -1, -1))


def test_a_closed_gate_lets_no_nan_through() -> None:
    stack = build("lstm")
    x = numbers()
    x[3] = float("nan")
    control = gw.Control.keep(time=3) | gw.Control.off("o", time=3)
    for engine in ("reference", "compiled"):
        out = stack(x, engine=engine, control=control, record=gw.Record("c", "h"))
        assert bool(out.record["layers.0.c"].isfinite().all()), engine


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_gradients(cell: str) -> None:
    stack = build(cell, hidden_size=3)
    x = torch.randn(3, 2, INPUT, dtype=torch.float64, requires_grad=True)

    def run(value: Tensor) -> Tensor:
        return stack(value, engine="compiled", control=gw.Control.scale("h", 0.9)).h

    assert torch.autograd.gradcheck(run, (x,))
    assert torch.autograd.gradgradcheck(run, (x,))


def test_a_result_changed_in_place_is_noticed() -> None:
    stack = build("lstm")
    out = stack(numbers().requires_grad_(), engine="compiled", record=gw.Record("f"))
    cost = out.h.sum()
    with torch.no_grad():
        out.h.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        cost.backward()


def test_inference_mode_and_strided_tensors() -> None:
    stack = build("lstm")
    x = torch.randn(INPUT, BATCH, STEPS, dtype=torch.float64).permute(2, 1, 0)
    with torch.no_grad():
        for name, p in stack.named_parameters():
            if p.ndim == 2:
                setattr(stack, name, torch.nn.Parameter(p.t().contiguous().t()))
    compare(stack, x, random_state(stack, BATCH))
    with torch.inference_mode():
        out = stack(x, engine="compiled", record=gw.Record("f"))
        assert_close(out.h, stack(x, engine="reference").h)


def test_two_python_threads_at_once() -> None:
    stack = build("gru", hidden_size=64)
    inputs = [numbers() for _ in range(4)]
    expected = [stack(x, engine="compiled").h for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: stack(x, engine="compiled").h, inputs * 8))
    assert all(torch.equal(a, expected[k % 4]) for k, a in enumerate(found))


def test_a_graph_is_used_twice() -> None:
    stack = build("gru")
    x = numbers().requires_grad_()
    cost = stack(x, engine="compiled").h.sum()
    first = torch.autograd.grad(cost, x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(cost, x)[0])


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "projection": ({"proj_size": 2}, {}, "there is a projection"),
    "layer norm": ({"cell": "lstm_layer_norm"}, {}, "layer_norm reads other units"),
    "record with gradient": ({}, {"record": gw.Record("f", grad=True)}, "carry gradients"),
    "learned control": (
        {},
        {"control": gw.Control.set("f", torch.ones(4, requires_grad=True))},
        "asks for a gradient",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_do_it_says(case: str) -> None:
    options, call, reason = REFUSED[case]
    stack = gw.Stack(**{"cell": "lstm", "input_size": 3, "hidden_size": 4, **options})
    with pytest.raises(EngineError, match=reason):
        stack(torch.zeros(5, 2, 3), engine="compiled", **call)


LEAVES = ["a.p", "a.q", "a.x.r", "a.h.r", "s.h", "s.c", "number"]
UNARY = ["sigmoid", "tanh", "relu", "softplus", "exp"]
BINARY = ["+", "-", "*", "minimum", "maximum", "where"]


def expressions() -> st.SearchStrategy[Any]:
    """Trees of the operations of equations."""
    return st.recursive(
        st.sampled_from(LEAVES),
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(UNARY), inner),
            st.tuples(st.sampled_from(BINARY), inner, inner),
        ),
        max_leaves=6,
    )


def evaluate(tree: Any, a: Any, s: Any) -> Any:
    if isinstance(tree, str):
        leaves = {"a.p": a.p, "a.q": a.q, "a.x.r": a.x.r, "a.h.r": a.h.r, "s.h": s.h, "s.c": s.c}
        return leaves.get(tree, 0.7)
    op, *parts = tree
    values = [evaluate(p, a, s) for p in parts]
    if op in "+-*":
        x, y = values
        return x + y if op == "+" else x - y if op == "-" else x * y
    if op == "where":
        return gw.where(values[0] > values[1] + 0.1 * s.c, *values)
    if op == "exp":
        return gw.exp(-gw.softplus(values[0]))
    return getattr(gw, op)(*values)


@settings(max_examples=10)
@given(expressions(), expressions(), st.integers(0, 10**6))
def test_random_cells(first: Any, second: Any, seed: int) -> None:
    def law(a: Any, s: Any) -> Any:
        gate = gw.sigmoid(evaluate(first, a, s) + a.p)
        c = gate * s.c + gw.tanh(evaluate(second, a, s) + a.q + a.x.r - a.h.r)
        return {"h": gw.tanh(c), "c": c}, {"gate": gate}

    torch.manual_seed(seed)
    stack = gw.Stack(gw.cell(law), INPUT, 3, dtype=torch.float64)
    compare(
        stack, numbers(steps=3), record=gw.Record("gate"), control=gw.Control.scale("gate", 0.9)
    )
