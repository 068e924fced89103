"""The sLSTM: what its stabiliser and its start promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gatewise as gw
from gatewise.cells import SLSTM
from gatewise.probe import Control, Record
from tolerances import assert_close

T, B, I, H = 6, 3, 2, 4  # noqa: E741


def _x(steps: int = T, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(steps, B, I, dtype=dtype)


def _by_the_paper(cell: SLSTM, x: Tensor) -> Tensor:
    """Eq. 8 to 14, as they stand before the stabiliser: from c = n = 0."""
    h, c, n = (torch.zeros(x.shape[1], H, dtype=x.dtype) for _ in range(3))
    outputs = []
    for row in x:
        pre = row @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh
        i, f, g, o = pre.chunk(4, -1)
        c = f.exp() * c + i.exp() * g.tanh()
        n = f.exp() * n + i.exp()
        h = o.sigmoid() * c / n
        outputs.append(h)
    return torch.stack(outputs)


def test_it_is_the_papers_without_a_stabiliser() -> None:
    cell, x = SLSTM(I, H, dtype=torch.float64), _x()
    expected, h = _by_the_paper(cell, x), gw.unroll(cell, x).h
    assert_close(h, expected)
    leaves = list(cell.parameters())
    for mine, other in zip(
        torch.autograd.grad(h.pow(2).sum(), leaves),
        torch.autograd.grad(expected.pow(2).sum(), leaves),
        strict=True,
    ):
        assert_close(mine, other, gradient=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("block", ["i", "f"])
@pytest.mark.parametrize("bias", [-1e3, -90.0, 0.0, 90.0, 1e3])
def test_gates_of_any_size_stay_numbers(bias: float, block: str, dtype: torch.dtype) -> None:
    """From the start state on, in values and gradients; the first step is o g whatever they are."""
    cell = SLSTM(I, H, init_bias={block: bias}, dtype=dtype)
    x = _x(dtype=dtype).requires_grad_()
    out = gw.unroll(cell, x, record=Record("o", "g", "h", "c", "n", "m"))
    assert out.record is not None
    assert torch.equal(out.record["h"][0], out.record["o"][0] * out.record["g"][0])
    assert all(value.isfinite().all() for value in out.record.values())
    for gradient in torch.autograd.grad(out.h.pow(2).sum(), [x, *cell.parameters()]):
        assert gradient.isfinite().all()


def test_a_learned_start_is_not_dead_where_nothing_is_written() -> None:
    cell = SLSTM(I, H, learned_state=True, dtype=torch.float64)
    gw.unroll(cell, _x()).h.sum().backward()
    for name in ("start_h", "start_c", "start_n"):
        gradient = cell.get_parameter(name).grad
        assert gradient is not None
        assert gradient.all(), name


def test_keep_stays_in_everything_that_follows() -> None:
    """c, n and m as they were, so that the steps after it weigh them as if it had not been."""
    cell, x = SLSTM(I, H, dtype=torch.float64), _x()
    names = ("h", "c", "n", "m")
    held = gw.unroll(cell, x, record=Record(*names), control=Control.keep(time=slice(2, 5))).record
    assert held is not None
    for t in range(2, 5):
        for name in ("c", "n", "m"):
            assert torch.equal(held[name][t], held[name][1]), name
    rest = gw.unroll(cell, x[5:], tuple(held[name][4] for name in names)).h
    assert_close(held["h"][5:], rest)


def test_keep_of_some_units_from_the_first_step_has_gradients() -> None:
    cell, x = SLSTM(I, H, dtype=torch.float64), _x().requires_grad_()
    out = gw.unroll(cell, x, record=Record("c"), control=Control.keep(units=[1], time=range(3)))
    assert out.record is not None
    assert not out.record["c"][:3, :, 1].any()
    assert out.record["c"][3, :, 1].all()
    assert out.h.isfinite().all()
    for gradient in torch.autograd.grad(out.h.sum(), [x, *cell.parameters()]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.3])
def test_reset_and_write_begin_anew(bad: float) -> None:
    """Even from a memory that has gone bad; m, the scale, too."""
    cell, x = SLSTM(I, H, dtype=torch.float64), _x()
    state = (torch.zeros(B, H, dtype=torch.float64), *[torch.full((B, H), bad).double()] * 3)
    names = ("h", "c", "n", "m", "g", "o")
    reset = gw.unroll(cell, x, state, record=Record(*names), control=Control.reset(time=[0])).record
    assert reset is not None
    assert not any(reset[name][0].any() for name in ("h", "c", "n", "m"))
    assert_close(reset["h"][1:], gw.unroll(cell, x[1:]).h)
    written = gw.unroll(cell, x, state, record=Record(*names), control=Control.write(time=[0]))
    assert written.record is not None
    assert torch.equal(written.record["c"][0], written.record["g"][0])
    assert torch.equal(written.record["n"][0], torch.ones(B, H, dtype=torch.float64))
    assert torch.equal(written.record["h"][0], written.record["o"][0] * written.record["g"][0])
    assert written.h.isfinite().all()


def test_output_on_is_the_mean_of_what_was_written() -> None:
    cell, x = SLSTM(I, H, dtype=torch.float64), _x()
    out = gw.unroll(cell, x, record=Record("h", "c", "n"), control=Control.on("o"))
    assert out.record is not None
    assert torch.equal(out.record["h"], out.record["c"] / out.record["n"])
    assert out.h.abs().max() < 1
