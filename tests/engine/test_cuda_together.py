"""All steps in one launch, on the stand-in for a card: its blocks wait for each other, its warps multiply."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import emulation
import gatewise as gw
import kernel_cases
from gatewise.card import driver
from gatewise.engine.cpu.layout import Layout, Variant
from gatewise.engine.cuda import making
from gatewise.engine.cuda.kernel import Kind
from gatewise.engine.cuda.making import kernels_together
from gatewise.engine.cuda.source import program_together
from gatewise.engine.cuda.together import COLUMNS, LOW, split
from gatewise.errors import EngineError
from kernel_cases import CELLS, build

RECURRENT = [c for c in CELLS if build(c).directions()[0].law.recurrent_blocks]
BOUNDS = {torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.fixture(autouse=True)
def _emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    emulation.emulate(monkeypatch)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that ran all steps."""
    found: list[str] = []
    run = making.Kernel.run_together

    def note(kernel: making.Kernel, *rest: object) -> None:
        found.append(kernel.entry.name)
        run(kernel, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(making.Kernel, "run_together", note)
    return found


def check(stack: gw.Stack, low: torch.dtype, steps: int, batch: int, autocast: bool) -> None:
    """Outputs, records and gradients, near the plain loop in float64 on the same rounded numbers."""
    x = torch.randn(steps, batch, stack.input_size).to(low)
    with torch.no_grad():
        for w in stack.parameters():
            w.copy_(w.to(low))
    found = []
    for engine, dtype in (
        ("cuda", torch.float32 if autocast else low),
        ("reference", torch.float64),
    ):
        own = x.to(dtype).requires_grad_()
        net = stack.to(dtype)
        with torch.autocast("cpu", low, enabled=autocast and engine == "cuda"):
            out = net(own, engine=engine, record=gw.Record("h"))
        cost = out.h.double().sin().sum()
        gradients = torch.autograd.grad(cost, [own, *net.parameters()])
        found.append([out.h.detach(), *out.record.values(), *gradients])
    for ours, theirs in zip(*found, strict=True):
        assert float((ours.double() - theirs).norm() / theirs.norm()) < BOUNDS[low]


@pytest.mark.parametrize("low", BOUNDS)
@pytest.mark.parametrize(
    ("cell", "size", "batch"),
    [("lstm", 1, 1), ("gru", 16, 16), ("rnn_tanh", 40, 17), ("coupled", 33, 3), ("lstm", 43, 34)],
)
def test_sizes_and_columns(
    cell: str, size: int, batch: int, low: torch.dtype, launches: list[str]
) -> None:
    """Units and columns that fill blocks, and those that leave some idle; in all blocks of the card."""
    stack = gw.Stack(kernel_cases.USERS.get(cell, cell), 3, size, bidirectional=True)
    check(stack, low, 5, batch, autocast=batch % 2 == 1)
    assert sorted(launches) == ["gatewise_backward"] * 2 + ["gatewise_forward"] * 2


@pytest.mark.parametrize("low", BOUNDS)
@pytest.mark.parametrize("cell", ["lstm", "gru", "peephole"])
def test_step_by_step_where_it_is_not_chosen(
    cell: str, low: torch.dtype, launches: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_FEWEST_STEPS", 6)
    check(gw.Stack(kernel_cases.USERS.get(cell, cell), 3, 13), low, 5, 5, autocast=True)
    assert launches == []


def test_what_a_card_cannot_hold_runs_step_by_step(launches: list[str]) -> None:
    """No tensor cores for these numbers, or more units than blocks that run at the same time take."""
    with torch.no_grad():
        for dtype, size in ((torch.float32, 13), (torch.bfloat16, 16 * emulation.BLOCKS + 1)):
            stack = gw.Stack("lstm", 3, size, dtype=dtype)
            stack(torch.zeros(5, 2, 3, dtype=dtype), engine="cuda")
    assert launches == []


def test_a_cell_without_recurrent_products_has_no_such_kernel() -> None:
    layout = Layout(build("indrnn").directions()[0].law, Variant())
    kind, device = Kind("bfloat16", "float32"), torch.device("cpu")
    assert not layout.law.recurrent_blocks
    assert kernels_together(emulation.platform(), layout, kind, 13, device) is None


@given(st.integers(1, 4000), st.integers(1, 6), st.sampled_from([True, False]), st.integers(0, 160))
def test_a_split_covers_every_unit_once_and_fits(
    size: int, parts: int, transposed: bool, most: int
) -> None:
    rows, length = (1, parts * size) if transposed else (parts, size)
    found = split(size, rows, length, most)
    if found is None:
        return
    assert found.blocks <= most
    assert (found.blocks - 1) * found.units < size <= found.blocks * found.units
    assert rows * found.units <= 16 * found.tiles
    assert COLUMNS * found.units <= found.threads <= 1024
    assert found.length >= length
    assert 4 * found.warps * COLUMNS * found.row <= 48 << 10


def test_the_sizes_of_language_models_fit_an_h100() -> None:
    for size in (200, 650, 768, 1024, 1150, 1500):
        assert split(size, 4, size, 132) is not None
        assert split(size, 1, 4 * size, 132) is not None
    assert split(4096, 4, 4096, 132) is None


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("cell", RECURRENT)
def test_nvrtc_takes_the_text(cell: str, low: str) -> None:
    if driver.nvrtc() is None:
        pytest.skip("no NVRTC: it comes with torch's CUDA build, or as a package of its own")
    one = build(cell).directions()[0]
    states = list(one.law.states)
    zoneout = ((states[0], "mask"), *((s, "share") for s in states[1:]))
    variant = Variant(one.names, one.names, zoneout, ragged=True, cut=True, grad=True)
    blocks = len(one.law.recurrent_blocks)
    there, back = split(650, blocks, 650, 132), split(650, 1, blocks * 650, 132)
    assert there is not None
    text = program_together(Layout(one.law, variant), Kind(low, "float32"), there, back).text
    assert driver.compile_text(text, (9, 0))[:4] == b"\x7fELF"


def test_more_blocks_than_run_together_are_refused() -> None:
    platform = emulation.platform()
    text = (
        "struct nothing_arguments { long long n; };"
        'extern "C" __global__ void __launch_bounds__(32, 1) nothing(const nothing_arguments a, const long long) {}'
    )
    image = platform.compile(text, torch.device("cpu"))
    (function,) = platform.driver().load(image, ["nothing"])
    platform.driver().run_together(function, [1], emulation.BLOCKS, 32, 0)
    with pytest.raises(EngineError, match="the CUDA driver refuses a kernel"):
        platform.driver().run_together(function, [1], emulation.BLOCKS + 1, 32, 0)


# --- the choice -----------------------------------------------------------------------------------


def chosen(stack: gw.Stack, x: torch.Tensor, **call: object) -> str:
    return stack(x, **call).engine  # type: ignore[arg-type]


@pytest.mark.parametrize("low", LOW)
def test_it_trains_in_16_bits_where_one_launch_takes_all_steps(
    low: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["gatewise.engine.choose"], "_SAID", set())
    dtype = getattr(torch, low)
    stack, x = gw.Stack("lstm", 3, 5, 2), torch.zeros(4, 2, 3)
    assert chosen(stack, x) == "closed"  # float32
    with caplog.at_level(logging.INFO, logger="gatewise.engine"):
        assert chosen(stack.to(dtype), x.to(dtype)) == "cuda"
    assert (
        "not closed, because cuda is faster in 16 bits where one launch takes all steps"
        in caplog.text
    )
    if low == "bfloat16":
        with torch.autocast("cpu", dtype):
            assert chosen(stack.float(), x) == "cuda"


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
def test_it_trains_nothing_that_one_launch_does_not_hold() -> None:
    """Too few steps, too many columns or units, another cell, a projection."""
    low = torch.bfloat16
    stack, x = gw.Stack("lstm", 3, 5, dtype=low), torch.zeros(4, 2, 3, dtype=low)
    wide = 16 * emulation.BLOCKS + 1
    assert chosen(stack, x) == "cuda"
    assert chosen(stack, x[:3]) == "closed"
    assert chosen(stack, x[:, :1].expand(4, 257, 3)) == "closed"
    assert chosen(gw.Stack("lstm", 3, [5, wide], dtype=low), x) == "closed"
    assert chosen(gw.Stack("rnn_tanh", 3, 5, dtype=low), x) == "closed"
    assert chosen(gw.Stack("lstm", 3, 5, proj_size=2, dtype=low), x) == "closed"


def test_it_leaves_an_lstm_of_one_layer_that_needs_no_gradient_to_torch() -> None:
    low = torch.bfloat16
    stack, x = gw.Stack("lstm", 3, 5, dtype=low), torch.zeros(4, 2, 3, dtype=low)
    deep = gw.Stack("gru", 3, 5, 2, dtype=low)
    with torch.no_grad():
        assert chosen(deep, x) == "cuda"
        assert chosen(deep, x[:1]) == "closed"
        assert chosen(gw.Stack("gru", 3, 5, dtype=low), x) == "cuda"
        assert chosen(gw.Stack("lstm", 3, 5, bidirectional=True, dtype=low), x) == "cuda"
        assert chosen(stack, x, lengths=[4, 2]) == "cuda"
        assert chosen(stack, x) == "closed"
        assert chosen(stack, x, record=gw.Record("f")) == "cuda"
    stack.requires_grad_(False)
    assert chosen(stack, x) == "closed"
    assert chosen(stack, x.clone().requires_grad_()) == "cuda"
