"""On a card: every engine that runs there against the reference in float64 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

import gatewise as gw
import kernel_cases
from gatewise.card import driver
from gatewise.noise import Noise
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


check = partial(kernel_cases.check_errors, device="cuda")


@EACH
def test_float32(engine: str, cell: str, plan: str) -> None:
    bound = 3e-5 if engine == "closed" else 1e-5  # cuDNN's tanh is off by more than a last bit
    check(engine, cell, plan, bound, dtype=torch.float32)


@pytest.mark.parametrize(
    ("engine", "cell", "plan"), [run for run in RUNS if not kernel_cases.kinks(run[1])]
)
def test_bfloat16_autocast(engine: str, cell: str, plan: str) -> None:
    check(engine, cell, plan, 1e-2, dtype=torch.bfloat16, autocast=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cell", [cell for cell in CELLS if not kernel_cases.kinks(cell)])
def test_sixteen_bits_throughout(cell: str, dtype: torch.dtype) -> None:
    check("cuda", cell, "whole", 1e-2, dtype=dtype)


def usual(cell: str, size: int, **options: Any) -> gw.Stack:
    """A stack of the usual weights: larger ones would magnify roundings over many steps."""
    torch.manual_seed(0)
    return gw.Stack(kernel_cases.USERS.get(cell, cell), 24, size, device="cuda", **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("cell", ["lstm", "gru", "peephole"])
def test_sizes_beyond_a_block(cell: str, dtype: torch.dtype) -> None:
    """Many blocks of threads, long sequences, another stream than the default one."""
    stack = usual(cell, 650, dtype=dtype)
    x = torch.randn(70, 20, 24, device="cuda", dtype=dtype)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    bound = 1e-5 if dtype is torch.float32 else 2e-3
    with torch.cuda.stream(stream), torch.no_grad():
        ours, theirs = (stack(x, engine=e).h.float() for e in ("cuda", "reference"))
        assert float((ours - theirs).norm() / theirs.norm()) < bound


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("cell", "steps", "batch", "size"),
    [
        ("lstm", 1024, 16, 768),
        ("gru", 35, 20, 650),
        ("peephole", 35, 80, 1150),
        ("lstm", 35, 20, 1500),
        ("rnn_tanh", 35, 33, 1023),
        ("coupled", 35, 1, 1024),
        ("lstm", 5, 256, 512),
    ],
)
def test_all_steps_in_one_launch(
    cell: str, steps: int, batch: int, size: int, low: torch.dtype
) -> None:
    """Sizes of which the weights fit a card, against the plain loop in float32."""
    stack = usual(cell, size, bidirectional=True)
    x = torch.randn(steps, batch, 24, device="cuda").to(low).float()
    weights = list(stack.parameters())
    with torch.no_grad():
        for w in weights:
            w.copy_(w.to(low))
    found = []
    for engine in ("cuda", "reference"):
        own = x.clone().requires_grad_()
        with torch.autocast("cuda", low, enabled=engine == "cuda"):
            out = stack(own, engine=engine, record=gw.Record("h"))
        cost = out.h.double().sin().sum()
        records = [r.detach() for r in out.record.values()]
        found.append([out.h.detach(), *records, *torch.autograd.grad(cost, [own, *weights])])
    for ours, theirs in zip(*found, strict=True):
        assert float((ours.float() - theirs).norm() / theirs.norm()) < 1e-2


def test_what_is_chosen_on_a_card() -> None:
    stack, x = gw.Stack("lstm", 3, 64).cuda(), torch.zeros(16, 4, 3, device="cuda")
    assert stack(x).engine == "closed"
    assert stack(x, record=gw.Record("f")).engine == "cuda"
    with torch.autocast("cuda", torch.bfloat16):
        assert stack(x).engine == "cuda"
        assert gw.Stack("lstm", 3, 4096, device="cuda")(x).engine == "closed"  # no card holds it
        with torch.no_grad():
            assert stack(x).engine == "closed"
    assert next(e for e in gw.engines() if e.name == "cuda").available


@pytest.mark.parametrize("shape", [(), (0,), (1,), (17, 3), (35, 20, 650), (33, 1031)])
def test_masks_drawn_on_the_card_are_those_of_the_cpu(shape: tuple[int, ...]) -> None:
    for seed, p in ((1, 0.5), (2**63 - 1, 0.2), (7, 0.0), (8, 1.0)):
        found = Noise(seed).drops("layers.0.dropout", shape, p, device="cuda")
        assert torch.equal(found.cpu(), Noise(seed).drops("layers.0.dropout", shape, p))
        for dtype in (torch.float32, torch.float16):
            here, there = (
                Noise(seed).keep("a", shape, p, dtype=dtype, device=d) for d in ("cuda", "cpu")
            )
            assert here.device.type == "cuda"
            assert torch.equal(here.cpu(), there)


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
