"""The scan engine against the plain loop: cells that are linear recurrences, whatever the plan."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call, grad, jacfwd, jacrev, vmap

import gatewise as gw
from gatewise.cells.base import as_state
from gatewise.cells.linear import refusal
from gatewise.engine import recurrence
from gatewise.errors import EngineError
from gatewise.types import state_tensors
from linear_cells import LINEAR, NEARLY
from parity import spread
from tolerances import assert_close

STEPS, BATCH, INPUT, UNITS = 19, 5, 3, 6
LENGTHS = [19, 0, 1, 16, 7]
CELLS = ["minlstm", "mingru", *LINEAR]


@pytest.fixture(autouse=True, params=["steps", "chunks"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One operator a step, and time in chunks."""
    full = 0 if request.param == "steps" else 1 << 30
    monkeypatch.setattr(recurrence, "_FULL", {"cpu": full})


def build(cell: str, dtype: torch.dtype = torch.float64, **options: Any) -> gw.Stack:
    kind = LINEAR.get(cell, cell)
    stack = gw.Stack(kind, INPUT, **{"hidden_size": UNITS, "dtype": dtype, **options})
    spread(stack, 0.3)
    return stack


def given_state(stack: gw.Stack) -> Any:
    """Not zero, and for sums of weights positive."""
    state = stack.zero_state(BATCH)
    random = [torch.rand_like(s) + 0.5 for s in state_tensors(state)]
    return as_state(random)


def results(stack: gw.Stack, x: Tensor, state: Any, engine: str, **call: Any) -> dict[str, Tensor]:
    torch.manual_seed(7)  # the same masks
    x = x.clone().requires_grad_()
    given = None if state is None else [s.clone().requires_grad_() for s in state_tensors(state)]
    out = stack(x, None if given is None else as_state(given), engine=engine, **call)
    assert out.engine == engine
    found = {"h": out.h} | {f"state {k}": v for k, v in enumerate(state_tensors(out.state))}
    cost = sum(((k + 1) * torch.sin(v)).sum() for k, v in enumerate(found.values()))
    if out.record is not None:
        found |= {f"recorded {path}": value for path, value in out.record.items()}
        cost = cost + sum(v.cos().sum() for v in out.record.values() if v.requires_grad)
    leaves = {"x": x} | dict(stack.named_parameters())
    leaves |= {f"given {k}": v for k, v in enumerate(given or ())}
    cost = cost + 0 * x.sum()  # a control may cut all else off
    gradients = torch.autograd.grad(cost, list(leaves.values()), allow_unused=True)
    for name, g in zip(leaves, gradients, strict=True):
        found[f"gradient of {name}"] = torch.zeros_like(leaves[name]) if g is None else g
    return found


def compare(stack: gw.Stack, x: Tensor, state: Any = None, **call: Any) -> None:
    expected = results(stack, x, state, "reference", **call)
    actual = results(stack, x, state, "scan", **call)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(actual[name], value, gradient=True, what=name)


def numbers(dtype: torch.dtype = torch.float64, steps: int = STEPS) -> Tensor:
    return torch.randn(steps, BATCH, INPUT, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", CELLS)
def test_two_layers_both_ways(cell: str, dtype: torch.dtype) -> None:
    stack = build(cell, dtype, num_layers=2, bidirectional=True)
    compare(stack, numbers(dtype), given_state(stack))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_every_name_is_recorded(cell: str, grad: bool) -> None:
    stack = build(cell, bidirectional=True)
    names = stack.directions()[0].names
    for record in (
        gw.Record(*names, grad=grad),
        gw.Record(*names, every=2, units=[0, 5], grad=grad),
        gw.Record(names[-1], time=slice(2, 4), grad=grad),
    ):
        compare(stack, numbers(), given_state(stack), record=record, lengths=LENGTHS, start=3)
    compare(stack, numbers(), record=gw.Record(*names, grad=grad))


@pytest.mark.parametrize("cell", CELLS)
def test_ragged_lengths_and_resets(cell: str) -> None:
    stack = build(cell, num_layers=2, bidirectional=True)
    names = stack.directions()[0].names
    reset = torch.rand(STEPS, BATCH) < 0.3
    for call in (
        {"lengths": LENGTHS},
        {"reset": reset},
        {"reset": reset, "lengths": LENGTHS, "record": gw.Record(*names)},
    ):
        compare(stack, numbers(), given_state(stack), **call)


@pytest.mark.parametrize("cell", CELLS)
def test_resets_to_a_learned_start(cell: str) -> None:
    stack = build(cell, num_layers=2, learned_state=True, bidirectional=True)
    reset = torch.rand(STEPS, BATCH) < 0.3
    compare(stack, numbers(), reset=reset)
    compare(stack, numbers(), reset=reset, lengths=LENGTHS)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_noise(cell: str, training: bool) -> None:
    stack = build(cell, num_layers=2, zoneout=0.3, weight_drop=0.2, dropout=0.4, bidirectional=True)
    names = stack.directions()[0].names
    stack.train(training)
    compare(stack, numbers(), given_state(stack), lengths=LENGTHS, record=gw.Record(*names))
    compare(stack, numbers(), given_state(stack), record=gw.Record(*names))


@pytest.mark.parametrize(("steps", "units"), [(1, 1), (63, 1), (17, 8)])
@pytest.mark.parametrize("cell", CELLS)
def test_sizes_and_no_bias(cell: str, steps: int, units: int) -> None:
    stack = build(cell, hidden_size=units, bias=False)
    compare(stack, numbers(steps=steps), given_state(stack))


def _controls() -> dict[str, Any]:
    wave = torch.rand(3, 1, UNITS, dtype=torch.float64)
    return {
        "on": lambda n: gw.Control.on(n),
        "off": lambda n: gw.Control.off(n, units=slice(0, 5), batch=[0, 3]),
        "set": lambda n: gw.Control.set(n, 0.3, time=slice(4, 7)),
        "scale": lambda n: gw.Control.scale(n, 0.7, units=[1, 5]),
        "add": lambda n: gw.Control.add(n, 0.1, batch=2),
        "patch": lambda n: gw.Control.patch(n, wave, time=slice(5, 8)),
        "composed": lambda n: (
            gw.Control.set(n, 0.2, units=slice(0, 3))
            | gw.Control.scale(n, 1.5, time=[5, 6])
            | gw.Control.add(n, torch.arange(6.0) / 50)
        ),
    }


@pytest.mark.parametrize("control", _controls())
@pytest.mark.parametrize("cell", CELLS)
def test_every_name_is_controlled(cell: str, control: str) -> None:
    stack = build(cell, bidirectional=True)
    names = stack.directions()[0].names
    make = _controls()[control]
    for name in names:
        compare(stack, numbers(), control=make(name), record=gw.Record(*names), start=3)


@pytest.mark.parametrize("cell", CELLS)
def test_all_names_are_controlled_at_once(cell: str) -> None:
    stack = build(cell, num_layers=2, zoneout=0.2)
    names = stack.directions()[0].names
    control = reduce(or_, (gw.Control.scale(n, 0.9, time=slice(2, 9)) for n in names))
    control |= gw.Control.set("h", 0.5, units=[1], time=12)
    starts = torch.tensor([0, 1, 2, 0, 3])
    compare(stack, numbers(), control=control, start=starts, lengths=LENGTHS)


@pytest.mark.parametrize("cell", ["minlstm", "mingru"])
@pytest.mark.parametrize("memory", ["keep", "reset", "write"])
def test_memory_controls(cell: str, memory: str) -> None:
    stack = build(cell, num_layers=2)
    control = getattr(gw.Control, memory)(layer=1, units=slice(0, 4), time=slice(2, 15))
    compare(stack, numbers(), control=control, lengths=LENGTHS)
    record = gw.Record("h", "layers.0.h")
    out = stack(numbers(), control=control, engine="scan", record=record)
    h = out.record["layers.1.h"][..., :4]
    if memory == "keep":
        assert torch.equal(h[2:15], h[1:2].expand(13, -1, -1))
    if memory == "reset":
        assert (h[2:15] == 0).all()


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_flow_into_a_control(cell: str) -> None:
    stack = build(cell)
    x, found = numbers(), []
    for engine in ("reference", "scan"):
        values = [torch.linspace(0.1, 0.9, UNITS, dtype=torch.float64) for _ in range(3)]
        a, b, c = (v.requires_grad_() for v in values)
        control = gw.Control.set("h.new", a, time=[3, 9]) | gw.Control.scale("h", b)
        name = stack.directions()[0].names[0]
        control |= gw.Control.add(name, c, time=slice(4, 8))
        h = stack(x, engine=engine, control=control).h
        found.append(torch.autograd.grad(h.sin().sum(), (a, b, c)))
    for mine, other in zip(*found, strict=True):
        assert_close(mine, other, gradient=True)


@pytest.mark.parametrize("memory", ["reset", "write"])
@pytest.mark.parametrize("cell", ["minlstm", "mingru"])
def test_a_closed_gate_lets_no_nan_through(cell: str, memory: str) -> None:
    stack = build(cell)
    x = numbers()
    x[3] = float("nan")
    state = torch.full((1, BATCH, UNITS), float("nan"), dtype=torch.float64)
    control = getattr(gw.Control, memory)(time=0) | gw.Control.keep(time=3)
    for engine in ("reference", "scan"):
        out = stack(x, state, engine=engine, control=control)
        assert bool(out.h.isfinite().all()), engine
    reset = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    reset[4] = True
    for call in ({"reset": reset}, {"control": gw.Control.set("h", 0.3, time=4)}):
        h = [stack(x, engine=engine, **call).h for engine in ("reference", "scan")]
        assert torch.equal(h[0].isnan(), h[1].isnan())
        assert bool(h[1][4:].isfinite().all())


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_gradients(cell: str) -> None:
    torch.manual_seed(5)
    stack = build(cell, hidden_size=3, bidirectional=True)
    x = torch.randn(5, 2, INPUT, dtype=torch.float64, requires_grad=True)
    names, weights = zip(*stack.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        return functional_call(stack, given, (x,), {"engine": "scan", "lengths": [5, 3]}).h

    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (x, *weights), fast_mode=True)


# torch's own, when forward-mode AD loads its decompositions.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("cell", CELLS)
def test_transforms(cell: str) -> None:
    stack = build(cell, hidden_size=2)
    weights = {n: p.detach() for n, p in stack.named_parameters()}
    xs = torch.randn(3, 9, 1, INPUT, dtype=torch.float64)

    def cost(w: dict[str, Tensor], x: Tensor, engine: str = "scan") -> Tensor:
        return functional_call(stack, w, (x,), {"engine": engine}).h.pow(2).sum()

    def of_weights(w: dict[str, Tensor]) -> Tensor:
        return sum(cost(w, x, "reference") for x in xs)  # type: ignore[return-value]

    def run(x: Tensor) -> Tensor:
        return stack(x, engine="scan").h

    each = vmap(grad(cost), in_dims=(None, 0))(weights, xs)
    for name, expected in grad(of_weights)(weights).items():
        assert_close(each[name].sum(0), expected, gradient=True)
    assert_close(jacfwd(run)(xs[0]), jacrev(run)(xs[0]), gradient=True)
    second = jacfwd(jacrev(lambda x: cost(weights, x)))(xs[0])
    expected = jacrev(jacrev(lambda x: cost(weights, x, "reference")))(xs[0])
    assert_close(second, expected, gradient=True)


def test_it_is_taken_where_the_compiled_engine_cannot_run() -> None:
    stack = gw.Stack("mingru", 3, 64)
    x = torch.randn(64, 4, 3, requires_grad=True)
    seen = []

    def run(x: Tensor) -> Tensor:
        out = stack(x)
        seen.append(out.engine)
        return out.h

    vmap(run)(x.unsqueeze(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        run(x)
    assert seen[0] == "scan"
    assert gw.Stack("mingru", 3, 4)(torch.randn(2, 1, 3)).engine == "reference"


@pytest.mark.parametrize("name", NEARLY)
def test_other_cells_are_refused_with_the_reason(name: str) -> None:
    kind, reason = NEARLY[name]
    with pytest.raises(EngineError) as caught:
        gw.Stack(kind, INPUT, 4)(torch.zeros(9, 2, INPUT), engine="scan")
    assert f"is not a linear recurrence: {refusal(kind.law)}" in str(caught.value)
    assert reason in str(caught.value)


def test_large_factors_of_a_state_that_is_zero() -> None:
    """Their product over a chunk is too large for a number; the state stays 0."""
    a, b = torch.full((64, 3), 1e9), torch.zeros(64, 3)
    assert (recurrence.scan(a, b, torch.zeros(3)) == 0).all()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("tiny", [False, True])
def test_factors_whose_product_is_no_number_where_the_state_is_one(
    reverse: bool, tiny: bool
) -> None:
    """A chunk multiplies by 1e45 what is 1e-30, or by 1e-45 what is 1e30: neither factor fits float32."""
    grow, shrink, first = (0.1, 10.0, 1e30) if tiny else (10.0, 0.1, 1e-30)
    a = torch.ones(2025, 1)
    a[:45], a[45:90] = grow, shrink
    a = a.flip(0) if reverse else a
    start = torch.tensor([first])
    found = recurrence.scan(a, torch.zeros(2025, 1), start, reverse=reverse)
    torch.testing.assert_close(found[0 if reverse else -1], start, rtol=1e-4, atol=0.0)


def test_sixteen_bits_sum_in_float32() -> None:
    stack = build("mingru", torch.float32)
    x = numbers(torch.float32)
    exact = stack(x, engine="reference").h
    stack, x = stack.to(torch.bfloat16), x.to(torch.bfloat16)
    h = stack(x, engine="scan").h
    assert h.dtype == torch.bfloat16
    assert_close(h, exact.to(torch.bfloat16))


LEAVES = ["a.x.p", "a.x.q", "u", "number", "s.c", "c"]


def plain() -> st.SearchStrategy[Any]:
    """Trees over inputs, a parameter, and the other state, which is solved first."""
    return st.recursive(
        st.sampled_from(LEAVES),
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(["sigmoid", "tanh", "softplus"]), inner),
            st.tuples(st.sampled_from(["+", "-", "*", "maximum", "where"]), inner, inner),
        ),
        max_leaves=4,
    )


def lines() -> st.SearchStrategy[Any]:
    """Trees that are affine in the state h."""
    return st.recursive(
        st.just("s.h"),
        lambda inner: st.one_of(
            st.tuples(st.just("times"), plain(), inner),
            st.tuples(st.just("over"), inner, plain()),
            st.tuples(st.sampled_from(["+", "-"]), inner, plain()),
            st.tuples(st.sampled_from(["+", "-"]), plain(), inner),
            st.tuples(st.sampled_from(["+", "-"]), inner, inner),
            st.tuples(st.just("where"), inner, plain()),
            st.tuples(st.just("where"), plain(), inner),
            st.tuples(st.just("neg"), inner),
        ),
        max_leaves=3,
    )


def evaluate(tree: Any, leaves: dict[str, Any]) -> Any:
    if isinstance(tree, str):
        return leaves.get(tree, 0.6)
    op, *parts = tree
    if op == "times":
        return gw.tanh(evaluate(parts[0], leaves) + leaves["a.x.q"]) * evaluate(parts[1], leaves)
    if op == "over":
        return evaluate(parts[0], leaves) / (
            1 + gw.softplus(leaves["a.x.p"] + evaluate(parts[1], leaves))
        )
    values = [evaluate(p, leaves) for p in parts]
    if op in ("+", "-", "*"):
        x, y = values
        return x + y if op == "+" else x - y if op == "-" else x * y
    if op == "neg":
        return -values[0]
    if op == "where":
        return gw.where(leaves["a.x.p"] > leaves["a.x.q"], *values)
    if op == "maximum":
        return gw.maximum(values[0] + leaves["u"], values[1])
    return getattr(gw, op)(values[0] + leaves["u"])


@settings(max_examples=15)
@given(
    plain(), lines(), st.sampled_from(["gate", "part", "h.new", "h", "c"]), st.integers(0, 10**6)
)
def test_random_cells(first: Any, second: Any, controlled: str, seed: int) -> None:
    @gw.cell(params={"u": "vector"})
    def law(a: Any, s: Any, p: Any) -> Any:
        leaves = {"a.x.p": a.x.p, "a.x.q": a.x.q, "u": p.u, "s.c": s.c}
        c = gw.sigmoid(a.x.p) * s.c + gw.tanh(a.x.q)
        leaves["c"] = c
        gate = gw.sigmoid(evaluate(first, leaves) + a.x.p)
        part = gate * evaluate(second, leaves) + 0.1 * p.u
        return {"h": part * 0.5 + a.x.q, "c": c}, {"gate": gate, "part": part}

    torch.manual_seed(seed)
    stack = gw.Stack(law, INPUT, 3, dtype=torch.float64, zoneout={"h": 0.2})
    control = gw.Control.scale(controlled, 0.9) | gw.Control.set(controlled, 0.4, time=[2, 5])
    names = stack.directions()[0].names
    compare(
        stack,
        numbers(steps=17),
        record=gw.Record(*names),
        control=control,
        lengths=[17, 0, 9, 1, 4],
    )
