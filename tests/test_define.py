# ruff: noqa: C408  # dict(h=...) is how a cell is written, here as in the documentation
"""Cells that a user writes down: they run like ours, and a mistake is said where it is made."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import gatewise as gw
from gatewise.cells.law import Law
from gatewise.errors import OptionError, UnknownNameError
from gatewise.types import state_tensors
from tolerances import assert_close

T, B, I, H = 5, 2, 3, 4  # noqa: E741


@gw.cell(controls={"keep": {"f": 1.0}, "write": {"f": 0.0}})
def coupled(a, s):
    """An LSTM whose input gate is 1 - f."""
    f, o, g = gw.sigmoid(a.f), gw.sigmoid(a.o), gw.tanh(a.g)
    c = f * s.c + (1 - f) * g
    return dict(h=o * gw.tanh(c), c=c), dict(f=f, o=o, g=g)


@gw.cell(states={"m": -math.inf})
def stabilised(a, s):
    """Exponential gates with a running maximum, which starts below everything."""
    m = gw.maximum(a.f + s.m, a.i)
    i, f = gw.exp(a.i - m), gw.exp(a.f + s.m - m)
    c = f * s.c + i * gw.tanh(a.g)
    n = f * s.n + i
    h = gw.sigmoid(a.o) * c / n
    return dict(h=h, c=c, n=n, m=m), dict(i=i, f=f)


@gw.cell(params={"p_f": "vector", "p_o": "vector"})
def peephole(a, s, p):
    """Gates that see the memory; f.pre is the user's own name."""
    before = a.f + p.p_f * s.c
    f = gw.sigmoid(before)
    c = f * s.c + (1 - f) * gw.tanh(a.g)
    o = gw.sigmoid(a.o + p.p_o * c)
    return dict(h=o * gw.tanh(c), c=c), {"f.pre": before, "f": f, "o": o}


@gw.cell(params={"mix": "matrix", "again": "recurrent", "slope": "vector"})
def parts(a, s, p):
    """The two parts of a pre-activation apart, matrices, every function there is."""
    r = gw.sigmoid(a.x.r) * gw.softplus(a.h.r)
    n = gw.tanh(a.x.n + r * a.h.n + p.again @ (r * s.h))
    leak = gw.where(n > 0, n, p.slope * n)
    size = gw.sqrt(gw.minimum(gw.exp(p.mix @ n), 4.0) + 1) + gw.log(gw.relu(leak) + 1.5)
    return dict(h=leak / size), dict(r=r, n=n, size=size)


@gw.cell
def gru(a, s):
    """Called as one of torch's kernels, and something else."""
    z = gw.sigmoid(a.z)
    return dict(h=z * s.h + (1 - z) * gw.relu(a.n)), dict(z=z)


@gw.cell
def parallel(a, s):
    """Gates of the input alone: no recurrent weights."""
    z = gw.sigmoid(a.x.z)
    return dict(h=(1 - z) * s.h + z * a.x.n), dict(z=z)


@gw.cell(params={"level": "vector"})
def constant(a, s, p):
    """A gate and states made of parameters and numbers alone."""
    f = gw.sigmoid(p.level)
    return dict(h=f * gw.tanh(a.g), c=p.level, k=1), dict(f=f)


CELLS = [coupled, stabilised, peephole, parts, gru, parallel, constant]
EACH = pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.__name__)


def _x() -> Tensor:
    return torch.randn(T, B, I, dtype=torch.float64)


@EACH
def test_it_runs_records_and_resumes(cell: Any) -> None:
    net, x = cell(I, H, dtype=torch.float64), _x()
    names = net.law.names()
    assert len(set(names)) == len(names)
    out = gw.unroll(net, x, record=gw.Record(*names))
    assert out.engine == "reference"
    assert gw.unroll(net, x).engine == "reference"
    for name in names:
        assert out.record[name].shape == (T, B, H), name
    assert torch.equal(out.record["h"], out.h)
    first = gw.unroll(net, x[:2])
    assert_close(gw.unroll(net, x[2:], first.state).h, out.h[2:])
    state: Any = None
    for t in range(T):
        state = net(x[t], state)
    for one, last in zip(state_tensors(state), state_tensors(out.state), strict=True):
        assert_close(one, last)
    ragged = gw.unroll(net, x, lengths=[2, T])
    assert_close(ragged.h[:2], out.h[:2])
    assert not ragged.h[2:, 0].any()


@EACH
def test_it_is_controlled_by_every_name(cell: Any) -> None:
    net, x = cell(I, H, dtype=torch.float64), _x()
    for name in net.law.names():
        value = torch.rand(B, H, dtype=torch.float64) + 0.5
        control = gw.Control.set(name, value, time=[1])
        out = gw.unroll(net, x, record=gw.Record(name), control=control)
        assert torch.equal(out.record[name][1], value), name
        assert not torch.equal(out.record[name][0], value), name


@EACH
def test_its_gradients(cell: Any) -> None:
    torch.manual_seed(2)
    net = cell(I, H, dtype=torch.float64)
    names, weights = zip(*net.named_parameters(), strict=True)
    theta = torch.cat([w.detach().flatten() for w in weights]).requires_grad_()

    def run(x: Tensor, theta: Tensor) -> Tensor:
        split = theta.split([w.numel() for w in weights])
        values = {n: s.view_as(w) for n, s, w in zip(names, split, weights, strict=True)}
        return torch.func.functional_call(_Unroll(net), values, (x,))

    x = torch.randn(2, B, I, dtype=torch.float64, requires_grad=True)
    assert gradcheck(run, (x, theta), fast_mode=True)
    assert gradgradcheck(run, (x, theta), fast_mode=True)


def _Unroll(net: Any) -> torch.nn.Module:
    """The net, unrolled when called."""

    class Unroll(type(net)):
        def forward(self, x: Tensor) -> Tensor:
            return gw.unroll(self, x).h

    other = copy.copy(net)
    other.__class__ = Unroll
    return other


@EACH
def test_it_stacks_copies_and_pickles(cell: Any) -> None:
    x = torch.randn(T, B, I)
    stack = gw.Stack(cell, I, H, 2, bidirectional=True)
    h = stack(x).h
    net = cell(I, H)
    for copied in (copy.deepcopy(stack), pickle.loads(pickle.dumps(stack))):
        assert torch.equal(copied(x).h, h)
    again = pickle.loads(pickle.dumps(net))
    assert type(again) is cell
    assert torch.equal(gw.unroll(again, x).h, gw.unroll(net, x).h)
    other = gw.Stack(cell, I, H, 2, bidirectional=True)
    other.load_state_dict(stack.state_dict(), strict=True)
    assert torch.equal(other(x).h, h)
    assert net.double().weight_ih.dtype == torch.float64
    assert cell.__doc__
    assert repr(net) == f"{cell.__name__}(3, 4)"


def test_coupled_is_what_it_says() -> None:
    net, x = coupled(I, H, dtype=torch.float64), _x()
    assert net.law.pre == ("f", "o", "g")
    lstm = gw.cells.LSTM(I, H, dtype=torch.float64)
    out = gw.unroll(net, x, record=gw.Record("f"))
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            f, o, g = getattr(net, name).chunk(3)
            getattr(lstm, name).copy_(torch.cat([f, f, g, o]))
    same = gw.unroll(lstm, x, control=gw.Control.patch("i", 1 - out.record["f"]))
    assert_close(same.h, out.h)


def test_memory_controls_as_declared() -> None:
    net, x = coupled(I, H), torch.randn(T, B, I)
    kept = gw.unroll(net, x, control=gw.Control.keep(time=slice(1, 4)), record=gw.Record("c", "g"))
    for t in (1, 2, 3):
        assert torch.equal(kept.record["c"][t], kept.record["c"][0])
    written = gw.unroll(net, x, control=gw.Control.write(), record=gw.Record("c", "g"))
    assert torch.equal(written.record["c"], written.record["g"])
    with pytest.raises(OptionError, match=r"cannot express memory reset \(it has keep, write\)"):
        gw.unroll(net, x, control=gw.Control.reset())


def test_start_values_and_learned_ones() -> None:
    net = stabilised(I, H, learned_state=False)
    assert gw.unroll(net, torch.randn(T, B, I)).h.isfinite().all()
    stack = gw.Stack(stabilised, I, H, 2)
    h, c, n, m = stack.zero_state(B)
    assert h.shape == (2, B, H)
    assert (m == -math.inf).all()
    assert not any(s.any() for s in (h, c, n))
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[2] = True
    x = torch.randn(T, B, I)
    assert_close(stack(x, reset=reset).h[2:], stack(x[2:]).h)
    ragged = stack(x, lengths=[0, T]).state
    assert (ragged[3][:, 0] == -math.inf).all()


def test_blocks_without_recurrent_weights() -> None:
    assert parallel(I, H).weight_hh.shape == (0, H)
    assert parallel(I, H).weight_ih.shape == (2 * H, I)
    assert parts(I, H).weight_hh.shape == (2 * H, H)
    assert "n.h" in parts(I, H).law.names()
    assert "z.h" not in parallel(I, H).law.names()


def test_ones_own_name_of_an_input_wins() -> None:
    """f.pre is what the user says it is, once, not W x + R h + b as well."""
    net, x = peephole(I, H, dtype=torch.float64), _x()
    out = gw.unroll(net, x, record=gw.Record("f.pre", "f"))
    assert_close(out.record["f"], torch.sigmoid(out.record["f.pre"]))
    assert [n for n in net.law.names() if n.endswith(".pre")].count("f.pre") == 1


def test_parameters_and_their_kinds() -> None:
    net = parts(I, H, weight_drop=0.9)
    assert net.mix.shape == net.again.shape == (H, H)
    assert net.slope.shape == (H,)
    stack = gw.Stack(parts, I, H, 2)
    assert stack.slope_l1.shape == (H,)


@gw.cell
def projectable(a, s):
    """Does not read h itself."""
    c = gw.sigmoid(a.f) * s.c + gw.tanh(a.g)
    return dict(h=gw.tanh(c), c=c), {}


def test_projection_of_a_cell_of_ones_own() -> None:
    net, x = projectable(I, H, proj_size=2), torch.randn(T, B, I)
    out = gw.unroll(net, x, record=gw.Record("h", "proj"))
    assert out.h.shape == (T, B, 2)
    assert out.record["h"].shape == (T, B, H)
    state: Any = None
    for t in range(T):
        state = net(x[t], state)
    assert_close(state[0], out.h[-1])


# --- Mistakes -----------------------------------------------------------------------------------


def _branch(a: Any, s: Any) -> Any:
    return dict(h=a.f if a.f > 0 else -a.f), {}


def _equal(a: Any, s: Any) -> Any:
    return dict(h=gw.where(a.f == 0, a.f, s.h)), {}


def _read_not_returned(a: Any, s: Any) -> Any:
    return dict(h=gw.tanh(a.f) * s.c), {}


def _unused(a: Any, s: Any) -> Any:
    return dict(h=gw.tanh(a.f)), dict(g=gw.tanh(a.g))


def _twice(a: Any, s: Any) -> Any:
    h = gw.tanh(a.f)
    return dict(h=h, c=h), {}


def _three(a: Any, s: Any, p: Any) -> Any:
    return dict(h=gw.tanh(a.f) * p.q), {}


MISTAKES: list[tuple[Any, str]] = [
    (_branch, r"cannot branch on a value: expected gw\.where"),
    (lambda a, s: (dict(h=max(a.f, a.g)), {}), "cannot branch on a value"),
    (lambda a, s: (dict(h=a.f and a.g), {}), "cannot branch on a value"),
    (_equal, "cannot compare for equality"),
    (lambda a, s: (dict(h=torch.tanh(a.f)), {}), "found torch's tanh on a symbolic value"),
    (lambda a, s: (dict(h=torch.ones(3) * a.f), {}), "on a symbolic value"),
    (lambda a, s: (dict(h=a.f * torch.ones(3)), {}), "found Tensor; use gw.sigmoid"),
    (lambda a, s: (dict(h=np.tanh(a.f)), {}), "found numpy's tanh on a symbolic value"),
    (lambda a, s: (dict(h=math.tanh(a.f)), {}), r"found float\(\) or a function of math"),
    (lambda a, s: (dict(h=gw.tanh(a)), {}), r"expected a\.f, found the whole group"),
    (lambda a, s: (dict(h=gw.tanh("f")), {}), "found str"),
    (lambda a, s: (dict(c=gw.tanh(a.f)), {}), "h among them"),
    (lambda a, s: dict(h=gw.tanh(a.f)), "expected `return dict.*found dict"),
    (lambda a, s: (gw.tanh(a.f), {}), "expected `return dict"),
    (lambda a, s: (dict(h=a.f), {}, {}), "expected `return dict"),
    (lambda a, s: None, "expected `return dict"),
    (lambda a, s: (dict(h=s.h), {}), "expected pre-activations such as a.f, found none"),
    (lambda a: (dict(h=a.f), {}), r"expected a function \(a, s\)"),
    (_read_not_returned, "state 'c' is read, and its next value not returned"),
    (_unused, "gate 'g' is returned but changes no state"),
    (lambda a, s: (dict(h=gw.tanh(a.f)), dict(f=a.f)), "which has its name already"),
    (_twice, "'h' and 'c' name the same value"),
    (lambda a, s: (dict(h=gw.tanh(a.f), c=a.g), dict(c=gw.tanh(a.g))), "found 'c' as both"),
    (lambda a, s: (dict(h=gw.tanh(a.f)), {"my gate": a.f}), "cannot be a name in a path"),
    (lambda a, s: (dict(h=gw.tanh(a.f)), {3: a.f}), "cannot be a name in a path"),
    (_three, r"or \(a, s, p\) where there are params"),
]


@pytest.mark.parametrize(("function", "message"), MISTAKES)
def test_mistakes_are_said_in_one_line(function: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        gw.cell(function)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"params": {"q": "scalar"}}, "one of vector, matrix, recurrent; found 'scalar'"),
        ({"params": {"bias": "vector"}}, "cannot be called 'bias': it is taken"),
        ({"params": {"weight_hh": "vector"}}, "cannot be called 'weight_hh'"),
        ({"params": {"forward": "vector"}}, "cannot be called 'forward'"),
        ({"params": {"start_h": "vector"}}, "cannot be called 'start_h'"),
        ({"params": {"a b": "vector"}}, "cannot be called 'a b'"),
        ({"params": {"q": "vector"}, "states": {"m": 1.0}}, "state 'm' is read, and its next"),
        ({"params": {"q": "vector"}, "controls": {"keep": {"f": 1.0}}}, "for named gates"),
        ({"params": {"q": "vector"}, "controls": {"hold": {}}}, "controls are keep, reset and"),
    ],
)
def test_wrong_declarations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        gw.cell(**options)(_three)


def test_an_unknown_parameter_has_its_neighbour_named() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown param value 'q'.*'q1'"):
        gw.cell(params={"q1": "vector"})(_three)


def test_numbers_of_other_libraries_are_numbers() -> None:
    @gw.cell
    def scaled(a, s):
        h = np.float64(2) * a.f + np.float32(1) - a.f / np.float64(4)
        return dict(h=h), {}

    net, x = scaled(I, H, dtype=torch.float64), _x()
    out = gw.unroll(net, x, record=gw.Record("f.pre"))
    assert_close(out.h, 1.75 * out.record["f.pre"] + 1)


def test_laws_that_differ_in_a_late_digit_have_keys_of_their_own() -> None:
    def law(factor: float) -> Law:
        @gw.cell
        def leaky(a, s):
            return dict(h=factor * s.h + gw.tanh(a.u)), {}

        return leaky(2, 3).law

    assert law(0.123456).key == law(0.123456).key
    assert law(0.123456).key != law(0.1234561).key
