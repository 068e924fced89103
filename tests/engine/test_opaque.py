"""Layers inside programs of torch.compile and torch.export: one operator, with the numbers of eager."""

from __future__ import annotations

import gc
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gatewise as gw
from gatewise.engine import opaque
from gatewise.errors import OptionError
from parity import CELLS, spread
from tolerances import assert_close

# torch's own, while it traces and compiles
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.usefixtures("fresh"),
]


@pytest.fixture
def fresh() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Net(nn.Module):
    """Something before and after the layers, which a compiler may fuse and write over."""

    def __init__(self, layers: nn.Module, width: int) -> None:
        super().__init__()
        self.layers = layers
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor, *state: Any, **call: Any) -> Tensor:
        out = self.layers(x * 2, *state, **call)
        h = out[0] if isinstance(out, tuple) else out.h
        return self.last(h.relu())


@gw.cell
def coupled(a: Any, s: Any) -> Any:
    f, o, g = gw.sigmoid(a.f), gw.sigmoid(a.o), gw.tanh(a.g)
    c = f * s.c + (1 - f) * g
    return {"h": o * gw.tanh(c), "c": c}, {"f": f, "o": o, "g": g}


def results(function: Any, net: nn.Module, x: Tensor, *state: Any, **call: Any) -> list[Tensor]:
    torch.manual_seed(5)
    x = x.clone().requires_grad_()
    y = function(x, *state, **call)
    return [y, *torch.autograd.grad(y.pow(2).sum(), [x, *net.parameters()])]


def check(net: nn.Module, *sizes: tuple[int, int], backend: str = "aot_eager", **call: Any) -> None:
    compiled = torch.compile(net, backend=backend, fullgraph=True)
    for steps, batch in sizes:
        x = torch.randn(steps, batch, 3)
        pairs = zip(results(compiled, net, x, **call), results(net, net, x, **call), strict=True)
        for mine, eager in pairs:
            assert_close(mine, eager, gradient=True)


@pytest.mark.parametrize("cell", [*CELLS, "user"])
def test_every_cell_is_one_operator(cell: str) -> None:
    stack = gw.Stack(coupled if cell == "user" else cell, 3, 5, 2)
    spread(stack, 0.2)
    check(Net(stack, 5), (4, 2))


def test_drop_ins_of_any_shape_are_compiled_twice_at_most() -> None:
    net = Net(gw.nn.GRU(3, 13, bidirectional=True), 26)
    count = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(net, backend=count, fullgraph=True)
    for steps, batch in ((5, 2), (7, 3), (9, 4), (6, 8)):
        x = torch.randn(steps, batch, 3)
        for mine, eager in zip(results(compiled, net, x), results(net, net, x), strict=True):
            assert_close(mine, eager, gradient=True)
    assert count.frame_count <= 2


@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a compiler")
def test_inductor() -> None:
    """It writes over what it takes for its own: what an engine kept must not be among that."""
    check(Net(gw.nn.LSTM(3, 64, 2), 64), (16, 4), backend="inductor")


def test_dropout_draws_the_same_masks() -> None:
    stack = gw.Stack("lstm", 3, 5, 2, dropout=0.4, zoneout=0.3, weight_drop=0.2)
    check(Net(stack, 5), (6, 3))
    compiled = torch.compile(stack, backend="aot_eager", fullgraph=True)
    x = torch.randn(6, 3, 3)
    assert not torch.equal(compiled(x).h, compiled(x).h)


def test_states_lengths_and_resets() -> None:
    stack = gw.Stack("lstm", 3, 5, learned_state=True)
    check(Net(stack, 5), (6, 3), lengths=torch.tensor([6, 0, 2]), reset=torch.rand(6, 3) < 0.3)
    compiled = torch.compile(stack, backend="aot_eager", fullgraph=True)
    x = torch.randn(6, 3, 3)
    whole, first = compiled(x), compiled(x[:2])
    assert whole.engine == "opaque"
    assert_close(compiled(x[2:], first.state, start=2).h, whole.h[2:])
    assert_close(whole.state[1], stack(x).state[1])
    with pytest.raises(OptionError, match="expected lengths from 0 to T = 6, found 0 to 9"):
        compiled(x, lengths=torch.tensor([0, 9, 1]))


def test_unroll_and_without_gradients() -> None:
    cell, x = coupled(3, 4), torch.randn(5, 2, 3)
    compiled = torch.compile(
        lambda x: gw.unroll(cell, x, engine="reference").h, backend="aot_eager", fullgraph=True
    )
    with torch.no_grad():
        assert_close(compiled(x), gw.unroll(cell, x).h)
    assert not opaque._LIVE


def test_autocast() -> None:
    stack = gw.Stack("gru", 3, 5)
    x = torch.randn(4, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine = torch.compile(stack, backend="aot_eager", fullgraph=True)(x)
        eager = stack(x)
    assert mine.h.dtype == torch.bfloat16
    assert_close(mine.h, eager.h)


def test_records_and_controls_leave_the_program() -> None:
    stack = gw.Stack("lstm", 3, 5)
    x, record, control = torch.randn(4, 2, 3), gw.Record("f"), gw.Control.off("o")

    def run(x: Tensor) -> Any:
        return stack(x * 2, record=record, control=control)

    mine, eager = torch.compile(run, backend="aot_eager")(x), run(x)
    assert_close(mine.record["layers.0.f"], eager.record["layers.0.f"])
    assert not mine.h.any()
    net = torch.compile(stack, backend="aot_eager")
    assert net(x).h.any()
    with stack.controlled(control):
        assert not net(x).h.any()
    assert net(x).h.any()


def test_nothing_is_kept_once_its_token_is_gone() -> None:
    stack = gw.Stack("lstm", 3, 5)
    compiled = torch.compile(stack, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 2, 3)
    out = compiled(x)  # never goes backward
    assert len(opaque._LIVE) == 1
    h = compiled(x).h
    first = torch.autograd.grad(h.sum(), stack.weight_hh_l0, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(h.sum(), stack.weight_hh_l0)[0], first)
    del out, h
    gc.collect()
    assert not opaque._LIVE


def test_a_copied_token_is_made_good_by_another_run() -> None:
    stack = gw.Stack("lstm", 3, 5)
    compiled = torch.compile(stack, backend="aot_eager", fullgraph=True)
    h = compiled(torch.randn(4, 2, 3)).h
    expected = torch.autograd.grad(h.sum(), stack.weight_hh_l0, retain_graph=True)[0]
    opaque._LIVE.clear()
    assert_close(torch.autograd.grad(h.sum(), stack.weight_hh_l0)[0], expected)


def test_export() -> None:
    net = Net(gw.nn.LSTM(3, 5), 5).eval()
    x = torch.randn(4, 2, 3)
    program = torch.export.export(net, (x,))
    assert "gatewise.unroll" in str(program.graph)
    assert_close(program.module()(x), net(x))


def test_the_operator_keeps_torch_s_rules() -> None:
    stack = gw.Stack("gru", 3, 4)
    calls: list[Any] = []

    def note(tensors: list[Tensor], form: str) -> list[Tensor]:
        calls.append((tensors, form))
        return real(tensors, form)

    real = torch.ops.gatewise.unroll
    plan, x, states = _plan(stack)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.ops.gatewise, "unroll", note)
        opaque.run_opaque(plan, x, states, "auto")
    (arguments,) = calls
    torch.library.opcheck(
        real, arguments, test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
    )


def _plan(stack: gw.Stack) -> Any:
    from gatewise.engine import Plan

    directions = stack.directions()
    x = torch.randn(3, 2, 3)
    states = ({"h": torch.zeros(2, 4)},)
    return Plan((tuple(directions),), grad=True), x, states


def test_a_program_of_unknown_equations() -> None:
    with pytest.raises(LookupError, match="expected that the module which defines it is imported"):
        opaque._form("auto None 0 1 00 -\nmine:0123 - 0 0 1100")
