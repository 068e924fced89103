"""The compiled softmax against torch's cross entropy in float64, on the same (rounded) scores."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from gatewise.engine.cpu.softmax import ALIGN, DTYPES, softmax_kernels

ROUNDING = {
    torch.float32: 1e-5,
    torch.bfloat16: 2.0**-8,
}  # of a gradient, relative to its row's largest


def run(
    scores: Tensor,
    bias: Tensor,
    target: Tensor,
    weights: Tensor,
    smoothing: float = 0.0,
    *,
    gradient: bool = True,
    threads: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (N,), what the kernel made of the scores (N, V), and the bias's gradient (V,)."""
    rows, classes = scores.shape
    stride = -(-classes // ALIGN) * ALIGN
    padded = torch.full((rows, stride), math.nan, dtype=scores.dtype)
    padded[:, :classes] = scores
    tensors = {
        "scores": padded,
        "bias": functional.pad(bias, (0, stride - classes)),
        "targets": target,
        "losses": torch.full((rows,), math.nan),
        "shares": torch.tensor([smoothing, 1 - smoothing, smoothing / classes]),
        "weights": weights,
        "sums": torch.zeros(threads, stride),
    }
    addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    kernel = softmax_kernels(scores.dtype)[gradient]
    kernel(addresses | {"rows": rows, "classes": classes}, threads)
    return tensors["losses"], padded[:, :classes], tensors["sums"].sum(0)[:classes]


def truth(
    scores: Tensor, bias: Tensor, target: Tensor, weights: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by torch, in float64."""
    z, b = scores.double().requires_grad_(), bias.double().requires_grad_()
    losses = functional.cross_entropy(z + b, target, reduction="none", label_smoothing=smoothing)
    dz, db = torch.autograd.grad((losses * weights).sum(), (z, b))
    return losses.detach(), dz, db


@given(
    st.sampled_from(DTYPES),
    st.integers(1, 9),
    st.integers(1, 70),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([1, 2, 3]),
)
def test_equals_torch(
    dtype: torch.dtype, rows: int, classes: int, smoothing: float, threads: int
) -> None:
    scores, bias = (4 * torch.randn(rows, classes)).to(dtype), torch.randn(classes)
    target, weights = torch.randint(classes, (rows,)), torch.rand(rows)
    losses, dz, db = run(scores, bias, target, weights, smoothing, threads=threads)
    expected, wanted, wanted_db = truth(scores, bias, target, weights, smoothing)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    # the largest entry that a row could have is its weight
    assert float(((dz.double() - wanted).abs() / weights[:, None]).max()) < ROUNDING[dtype]
    torch.testing.assert_close(db.double(), wanted_db, rtol=1e-4, atol=1e-5 * rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_costs_alone_leave_the_scores(dtype: torch.dtype) -> None:
    scores, bias = torch.randn(5, 33).to(dtype), torch.randn(33)
    target, weights = torch.randint(33, (5,)), torch.ones(5)
    losses, same, _ = run(scores, bias, target, weights, gradient=False)
    assert torch.equal(same, scores)
    assert torch.equal(losses, run(scores, bias, target, weights)[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(dtype: torch.dtype) -> None:
    scores, bias = torch.randn(11, 50).to(dtype), torch.randn(50)
    target, weights = torch.randint(50, (11,)), torch.rand(11)
    one, two = (run(scores, bias, target, weights, 0.1, threads=n)[:2] for n in (1, 2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [5, 16, 37])
def test_what_is_no_number_ends_as_in_torch(dtype: torch.dtype, classes: int) -> None:
    scores = torch.randn(5, classes).to(dtype)
    scores[0, classes - 1] = math.nan
    scores[1, classes // 2] = math.inf
    scores[2] = -math.inf
    scores[3, classes - 1] = -math.inf
    bias, target, weights = torch.zeros(classes), torch.zeros(5, dtype=torch.int64), torch.ones(5)
    losses, dz, _ = run(scores, bias, target, weights)
    expected, wanted, _ = truth(scores, bias, target, weights)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert torch.equal(dz.isnan().any(1), wanted.isnan().any(1))
    assert dz[3, classes - 1] == 0


def test_a_target_without_probability_costs_infinitely() -> None:
    scores, bias = torch.zeros(1, 3), torch.tensor([0.0, -math.inf, 0.0])
    losses, dz, _ = run(scores, bias, torch.tensor([1]), torch.ones(1))
    assert losses.item() == math.inf
    assert dz.tolist() == [[0.5, -1.0, 0.5]]


@pytest.mark.parametrize("size", [1.0, 30.0, 100.0, 1e4, 3e38])
def test_scores_of_any_size(size: float) -> None:
    scores, bias = size * torch.tensor([[-1.0, 0.5, 1.0, -0.25]]), torch.zeros(4)
    for k in range(4):
        given_scores, target, weights = scores, torch.tensor([k]), torch.ones(1)
        losses, dz, _ = run(given_scores, bias, target, weights)
        expected, wanted, _ = truth(scores, bias, target, weights)
        torch.testing.assert_close(losses, expected.float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(dz, wanted.float(), rtol=1e-4, atol=1e-6)


def test_the_only_class_costs_nothing() -> None:
    losses, dz, db = run(
        torch.tensor([[123.4]]), torch.tensor([0.7]), torch.tensor([0]), torch.ones(1)
    )
    assert losses.item() == 0
    assert dz.item() == db.item() == 0
