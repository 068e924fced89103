"""The printed CUDA C: what NVRTC makes of it, its numbers at the edges, and how a launch can fail."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import emulation
import gatewise as gw
from gatewise.card import driver
from gatewise.cells.derive import RULES
from gatewise.cells.equations import OPERATIONS
from gatewise.engine.cpu.lanes import ON_LANES
from gatewise.engine.cpu.layout import Layout, Variant
from gatewise.engine.cuda.kernel import Kind
from gatewise.engine.cuda.lines import IN_C
from gatewise.engine.cuda.source import program
from gatewise.errors import EngineError
from kernel_cases import CELLS, build

KINDS = [
    Kind("float32", "float32"),
    Kind("float64", "float64"),
    Kind("bfloat16", "float32"),
    Kind("float16", "float16"),
]


def everything(cell: str) -> Layout:
    """The layout of a cell whose kernels hold all that a kernel can."""
    direction = build(cell).directions()[0]
    law, names = direction.law, direction.names
    states = list(law.states)
    zoneout = ((states[0], "mask"), *((s, "share") for s in states[1:]))
    return Layout(law, Variant(names, names, zoneout, ragged=True, cut=True, grad=True))


def test_every_operation_with_a_gradient_is_in_every_language() -> None:
    assert set(RULES) == set(IN_C) == set(ON_LANES)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_nvrtc_takes_the_text(cell: str, kind: Kind) -> None:
    if driver.nvrtc() is None:
        pytest.skip("no NVRTC: it comes with torch's CUDA build, or as a package of its own")
    text = program(everything(cell), kind).text
    assert driver.compile_text(text, (9, 0))[:4] == b"\x7fELF"


def test_a_card_that_nvrtc_does_not_know_gets_portable_code() -> None:
    if driver.nvrtc() is None:
        pytest.skip("no NVRTC: it comes with torch's CUDA build, or as a package of its own")
    text = program(everything("lstm"), KINDS[0]).text
    assert b".entry gatewise_forward" in driver.compile_text(text, (99, 0))
    with pytest.raises(EngineError, match="please report it"):
        driver.compile_text("no program", (9, 0))


def test_names_that_look_alike_in_c_stay_apart() -> None:
    @gw.cell
    def dotted(a: Any, s: Any) -> Any:
        first, second = gw.sigmoid(a.p), gw.tanh(a.q)
        return {"h": first * s.h + second}, {"f.a": first, "f~a": second}

    layout = Layout(dotted.law, Variant(("f.a", "f~a"), ("f.a", "f~a"), grad=True))
    made = program(layout, KINDS[0])
    assert {"alpha:f.a", "alpha:f~a"} < set(made.entries["forward"].arguments)
    assert "wide *alpha_f_a;" in made.text
    assert "wide *alpha_f_a_2;" in made.text


def test_a_text_does_not_depend_on_the_process() -> None:
    first, second = (program(everything("gru"), KINDS[0]).text for _ in range(2))
    assert first == second


# --- numbers at the edges ------------------------------------------------------------------------

DTYPES = {torch.float32: 24, torch.float64: 53, torch.bfloat16: 8, torch.float16: 11}
ONE = {n: (getattr(gw, n), OPERATIONS[n]) for n in ("sigmoid", "tanh", "relu", "exp", "softplus")}
ONE |= {n: (getattr(gw, n), OPERATIONS[n]) for n in ("log", "sqrt")}
TWO = {n: (getattr(gw, n), OPERATIONS[n]) for n in ("minimum", "maximum")}
TWO |= {
    op: ((lambda a, b, op=op: _infix(op, a, b)), OPERATIONS[op]) for op in ("add", "mul", "div")
}
TWO["where"] = (
    lambda a, b: gw.where(a > b, a, 0.5),
    lambda a, b: torch.where(a > b, a, 0.5),
)

numbers = st.one_of(
    st.floats(width=32),
    st.sampled_from(
        [math.inf, -math.inf, math.nan, 0.0, -0.0, 1e-45, -1e-40, 3.4e38, 88.8, -104.0]
    ),
)


def _infix(op: str, a: Any, b: Any) -> Any:
    return a + b if op == "add" else a * b if op == "mul" else a / b


def _is_near(found: Tensor, expected: Tensor, digits: int) -> None:
    """Equal to a few roundings; NaN and infinity where they are expected."""
    smallest = torch.finfo(expected.dtype).smallest_normal
    torch.testing.assert_close(
        found, expected, rtol=6 * 2.0**-digits, atol=smallest * 4, equal_nan=True
    )


def _run(function: Any, *values: Tensor) -> Tensor:
    """function(values) by a cell; they come in as states, which no matrix product changes."""
    if function not in _MADE:

        def law(a: Any, s: Any) -> Any:
            operands = [s.u, s.v][: len(values)]
            return {"h": function(*operands) + 0 * a.p, "u": s.u, "v": s.v}, {}

        _MADE[function] = gw.cell(states={"u": 0.0, "v": 0.0})(law)
    first = values[0].view(-1, 1)
    net = _MADE[function](1, 1, bias=False, dtype=first.dtype)
    zero = torch.zeros_like(first)
    with torch.no_grad():
        state = (zero, first, values[-1].view(-1, 1))
        return gw.unroll(net, zero.unsqueeze(0), state, engine="cuda").h[0, :, 0]


@pytest.mark.parametrize("engine", ["cuda"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ONE)
@settings(max_examples=15)
@given(values=st.lists(numbers, min_size=1, max_size=8))
def test_a_function_ends_as_torch_s_does(
    name: str, dtype: torch.dtype, engine: str, values: list[float]
) -> None:
    symbolic, exact = ONE[name]
    x = torch.tensor(values, dtype=torch.float64).to(dtype)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    _is_near(_run(symbolic, x), exact(x.to(wide)).to(dtype), DTYPES[dtype])


@pytest.mark.parametrize("engine", ["cuda"])
@pytest.mark.parametrize("name", TWO)
@settings(max_examples=15)
@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_an_operation_ends_as_torch_s_does(
    name: str, engine: str, pairs: list[tuple[float, float]]
) -> None:
    symbolic, exact = TWO[name]
    a, b = torch.tensor(pairs, dtype=torch.float32).unbind(-1)
    _is_near(_run(symbolic, a, b), exact(a, b), 24)


_MADE: dict[Any, Any] = {}


@pytest.mark.parametrize("engine", ["cuda"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@given(bits=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=8))
def test_sixteen_bits_are_read_and_written_as_torch_does(
    engine: str, dtype: torch.dtype, bits: list[int]
) -> None:
    x = torch.tensor(bits, dtype=torch.int32).to(torch.int16).view(dtype)
    expected = (x.float() * 0.37).to(dtype)
    found = _run(_third, x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def _third(v: Any) -> Any:
    return v * 0.37


# --- launching -----------------------------------------------------------------------------------


def test_what_the_driver_refuses_is_said() -> None:
    if emulation.compiler() is None:
        pytest.skip("no C++ compiler to emulate a card with")
    platform = emulation.platform()
    made = platform.driver()
    with pytest.raises(EngineError, match="no kernel image is available"):
        made.load(b"/nowhere.so", ["nothing"])
    text = 'extern "C" __global__ void nothing(const nothing_arguments, const long long) {}'
    image = platform.compile(
        "struct nothing_arguments { long long n; };" + text, torch.device("cpu")
    )
    with pytest.raises(EngineError, match="named symbol not found"):
        made.load(image, ["another"])
    (function,) = made.load(image, ["nothing"])
    made.bind(function, [1], 1, 32, 0)(0)
    with pytest.raises(EngineError, match="the CUDA driver refuses a kernel"):
        made.bind(function, [1], 0, 32, 0)(0)


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    driver.driver.cache_clear()
    with pytest.raises(EngineError, match="was not found"):
        driver.driver()
    driver.nvrtc.cache_clear()
    assert driver.nvrtc() is None
    with pytest.raises(EngineError, match="NVRTC"):
        driver.compile_text("", (9, 0))
    driver.nvrtc.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_the_engine_says_why() -> None:
    (info,) = (e for e in gw.engines() if e.name == "cuda")
    assert not info.available
    assert info.reason in ("this torch is not built for CUDA", "there is no CUDA device")
    with pytest.raises(EngineError, match="engine cuda cannot run this: "):
        gw.Stack("lstm", 3, 4)(torch.zeros(5, 2, 3), engine="cuda")
