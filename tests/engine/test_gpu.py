"""On a card: every engine that runs there against the reference in float64 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import gatewise as gw
import kernel_cases
from gatewise.engine.cuda import driver
from kernel_cases import CELLS, build, plans
from parity import ENGINES

pytestmark = pytest.mark.gpu

PLANS = [(cell, plan) for cell in CELLS for plan in plans(build(cell).directions()[0].names)]
CLOSED = [("closed", cell, "closed") for cell in ENGINES["closed"]]
RUNS = [*CLOSED, *((e, *p) for e in ("cuda", "reference") for p in PLANS)]
EACH = pytest.mark.parametrize(("engine", "cell", "plan"), RUNS)


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    """No TF32: float32 means float32."""
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = False
    yield
    for flag, value in zip(flags, before, strict=True):
        flag.allow_tf32 = value


def check(engine: str, cell: str, plan: str, bound: float, **how: Any) -> None:
    options, call = plans(build(cell).directions()[0].names)[plan]
    stack = build(cell, num_layers=2, bidirectional=True, **options)
    found = kernel_cases.errors(engine, stack, call, device="cuda", **how)
    worst = max(found, key=found.__getitem__)
    assert found[worst] < bound, f"{worst}: {found[worst]:.1e}"


@EACH
def test_float32(engine: str, cell: str, plan: str) -> None:
    check(engine, cell, plan, 1e-5, dtype=torch.float32)


@pytest.mark.parametrize(
    ("engine", "cell", "plan"), [run for run in RUNS if not kernel_cases.kinks(run[1])]
)
def test_bfloat16_autocast(engine: str, cell: str, plan: str) -> None:
    check(engine, cell, plan, 1e-2, dtype=torch.bfloat16, autocast=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cell", [cell for cell in CELLS if not kernel_cases.kinks(cell)])
def test_sixteen_bits_throughout(cell: str, dtype: torch.dtype) -> None:
    check("cuda", cell, "whole", 1e-2, dtype=dtype)


@pytest.mark.parametrize("cell", ["lstm", "gru", "peephole"])
def test_sizes_beyond_a_block(cell: str) -> None:
    """Many blocks of threads, long sequences, another stream than the default one."""
    torch.manual_seed(0)
    stack = build(cell, torch.float32, hidden_size=650).cuda()
    x = torch.randn(70, 20, 3, device="cuda")
    with torch.cuda.stream(torch.cuda.Stream()), torch.no_grad():
        ours, theirs = (stack(x, engine=e).h for e in ("cuda", "reference"))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_is_chosen_on_a_card() -> None:
    stack, x = gw.Stack("lstm", 3, 64).cuda(), torch.zeros(16, 4, 3, device="cuda")
    assert stack(x).engine == "closed"
    assert stack(x, record=gw.Record("f")).engine == "cuda"
    assert next(e for e in gw.engines() if e.name == "cuda").available


def test_the_card_s_own_code_is_made() -> None:
    capability = torch.cuda.get_device_capability()
    text = 'extern "C" __global__ void nothing(int) {}'
    assert driver.compile_text(text, capability)[:4] == b"\x7fELF"


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_the_closed_engine_under_autocast(cell: str, low: torch.dtype) -> None:
    """cuDNN with ragged lengths, empty columns and projections, in 16 bits."""
    options = {"proj_size": 5} if cell == "lstm" else {}
    stack = build(cell, num_layers=2, bidirectional=True, **options)
    for lengths in (None, [7, 0, 1, 6, 3]):
        call = {"lengths": lengths}
        found = kernel_cases.errors("closed", stack, call, low, device="cuda", autocast=True)
        assert max(found.values()) < 1e-2, found
