"""The costs: equal to the plain formula and its derivatives, within a fixed memory."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from gatewise.errors import DataError, OptionError, ShapeError, UnknownNameError
from gatewise.losses import (
    AdaptiveSoftmax,
    activation_regularisation,
    default_cutoffs,
    linear_cross_entropy,
    plain_linear_cross_entropy,
    temporal_activation_regularisation,
)
from gatewise.losses.chunks import Plan, compute
from gatewise.losses.linear import _TILE
from tolerances import assert_close

N, H, V = 13, 5, 11


@pytest.fixture(autouse=True)
def chunked_however_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes here are small: several tiles, and never the plain formula by default."""
    monkeypatch.setattr("gatewise.losses.linear._SMALL_BYTES", 0)
    monkeypatch.setitem(_TILE, "cpu", 4)


@pytest.fixture(params=["compiled", "operators", "masked"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The compiled softmax, where it serves, torch's operators, which serve everywhere, and as on a card."""
    if request.param != "compiled":
        monkeypatch.setattr("gatewise.losses.compiled.serves", lambda h, plan: False)
    if request.param == "masked":
        monkeypatch.setattr("gatewise.losses.linear._waits", lambda target: True)
    return str(request.param)


def inputs(dtype: torch.dtype = torch.float64, bias: bool = True) -> list[Tensor | None]:
    shapes = [(N, H), (V, H), (V,)] if bias else [(N, H), (V, H)]
    found: list[Tensor | None] = [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]
    return found if bias else [*found, None]


def targets(ignored: bool = False) -> Tensor:
    target = torch.randint(V, (N,))
    if ignored:
        target[::4] = -100
    return target


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_plain_formula(
    reduction: str, smoothing: float, bias: bool, dtype: torch.dtype
) -> None:
    tensors, target = inputs(dtype, bias), targets(ignored=True)
    leaves = [t for t in tensors if t is not None]
    upstream = torch.randn(N if reduction == "none" else (), dtype=dtype)
    results = []
    for cost, extra in ((plain_linear_cross_entropy, {}), (linear_cross_entropy, {"chunk": 4})):
        loss = cost(*tensors, target, reduction=reduction, label_smoothing=smoothing, **extra)
        results.append((loss, torch.autograd.grad(loss, leaves, upstream)))
    (expected, expected_grads), (loss, grads) = results
    assert_close(loss, expected)
    for actual, wanted in zip(grads, expected_grads, strict=True):
        assert_close(actual, wanted, gradient=True)


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_derivatives_of_first_and_second_order(reduction: str, smoothing: float) -> None:
    target = torch.tensor([2, 0, -100, 3, 3])

    def cost(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        options = {"reduction": reduction, "label_smoothing": smoothing}
        return linear_cross_entropy(h, weight, bias, target, chunk=2, **options)

    shapes = [(5, 3), (4, 3), (4,)]
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(cost, leaves)
    assert torch.autograd.gradgradcheck(cost, leaves)


@given(
    st.integers(1, 20), st.integers(1, 20), st.integers(1, 30)
)  # more and fewer classes than 2 H
def test_chunks_of_any_size_change_nothing(rows: int, classes: int, chunk: int) -> None:
    h = torch.randn(rows, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(classes, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randint(classes, (rows,))
    whole = linear_cross_entropy(h, weight, None, target)
    parts = linear_cross_entropy(h, weight, None, target, chunk=chunk)
    assert_close(parts, whole)
    for actual, expected in zip(
        torch.autograd.grad(parts, (h, weight)),
        torch.autograd.grad(whole, (h, weight)),
        strict=True,
    ):
        assert_close(actual, expected, gradient=True)


@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 40), st.booleans(), st.booleans())
def test_the_compiled_softmax_computes_what_torch_does(
    rows: int, classes: int, chunk: int, bias: bool, narrow: bool
) -> None:
    """In float32 to its rounding; with bfloat16 products as near to the truth as torch's autocast."""
    shapes = [(rows, 6), (classes, 6), *([(classes,)] if bias else [])]
    leaves = [torch.randn(s, requires_grad=True) for s in shapes]
    h, weight, b = (*leaves, None) if not bias else leaves
    target, upstream = torch.randint(classes, (rows,)), torch.tensor(0.7)
    wide = [t.detach().double().requires_grad_() for t in leaves]
    truth = plain_linear_cross_entropy(*wide, *([] if bias else [None]), target)
    results = []
    for cost, extra in ((plain_linear_cross_entropy, {}), (linear_cross_entropy, {"chunk": chunk})):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            loss = cost(h, weight, b, target, **extra)
        grads = torch.autograd.grad(loss, leaves, upstream)
        exact = torch.autograd.grad(truth, wide, upstream.double(), retain_graph=True)
        pairs = [(loss.detach(), truth.detach()), *zip(grads, exact, strict=True)]
        results.append([float((a - t).norm()) for a, t in pairs])
        size = max(float(t.norm()) for _, t in pairs) + 0.1
    for theirs, ours in zip(*results, strict=True):
        assert ours < (0.02 * size + 1.5 * theirs if narrow else 1e-5 * size)


def test_gradients_for_some_inputs_only() -> None:
    h, weight, bias = inputs()
    assert h is not None
    assert weight is not None
    assert bias is not None
    target = targets()
    expected = torch.autograd.grad(plain_linear_cross_entropy(h, weight, bias, target), weight)[0]
    loss = linear_cross_entropy(h.detach(), weight, bias.detach(), target)
    loss.backward()
    assert weight.grad is not None
    assert_close(weight.grad, expected, gradient=True)
    assert h.grad is None
    assert bias.grad is None


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_graph_may_be_kept_and_read_twice(dtype: torch.dtype) -> None:
    h, weight, bias = inputs(dtype)
    loss = linear_cross_entropy(h, weight, bias, targets())
    leaves = [t for t in (h, weight, bias) if t is not None]
    first = torch.autograd.grad(2 * loss, leaves, retain_graph=True)
    kept = [t.clone() for t in first]
    second = torch.autograd.grad(3 * loss, leaves)
    for one, two, before in zip(first, second, kept, strict=True):
        assert torch.equal(one, before)
        assert_close(two, 1.5 * one, gradient=True)


def test_weights_changed_before_backward_are_noticed() -> None:
    h, weight, bias = inputs()
    assert weight is not None
    loss = linear_cross_entropy(h, weight, bias, targets())
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_without_gradients_nothing_is_kept() -> None:
    h, weight, bias = inputs()
    target = targets()
    with torch.no_grad():
        loss = linear_cross_entropy(h, weight, bias, target)
    assert not loss.requires_grad
    assert_close(loss, plain_linear_cross_entropy(h, weight, bias, target).detach())


def test_row_weights_and_needed_parts_of_the_arithmetic() -> None:
    h, weight, bias = (t.detach() for t in inputs() if t is not None)
    plan = Plan(4, 3, h.dtype, h.dtype, 0.0)
    _, found = compute(h, weight, bias, targets(), None, 1.0, plan, (True, False, True))
    assert found.weight is None
    assert found.h is not None
    assert found.bias is not None
    assert float(found.bias.sum().abs()) < 1e-12  # softmax minus one-hot sums to 0


@pytest.mark.usefixtures("how")
def test_large_scores_do_not_overflow() -> None:
    h = torch.full((3, 2), 300.0, requires_grad=True)
    weight = torch.tensor([[300.0, 300.0], [-300.0, 0.0], [0.0, 0.0]], requires_grad=True)
    target = torch.tensor([0, 1, 2])
    loss = linear_cross_entropy(h, weight, None, target, reduction="none")
    assert_close(loss, plain_linear_cross_entropy(h, weight, None, target, reduction="none"))
    loss.sum().backward()
    assert weight.grad is not None
    assert bool(weight.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [[3], range(8)], ids=["one", "two whole tiles"])
def test_classes_without_probability_cost_nothing(
    classes: Sequence[int], dtype: torch.dtype
) -> None:
    h, weight, _ = inputs(dtype)
    bias = torch.zeros(V, dtype=dtype)
    bias[list(classes)] = -math.inf
    target = torch.full((N,), V - 1)
    loss = linear_cross_entropy(h, weight, bias, target)
    assert_close(loss, plain_linear_cross_entropy(h, weight, bias, target))
    loss.backward()
    assert weight is not None
    assert weight.grad is not None
    assert not weight.grad[list(classes)].any()
    assert bool(weight.grad.isfinite().all())


def test_few_scores_go_through_the_plain_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewise.losses.linear._SMALL_BYTES", 1 << 20)
    monkeypatch.setattr("gatewise.losses.linear._apply", None)
    tensors, target = inputs(), targets(ignored=True)
    expected = plain_linear_cross_entropy(*tensors, target)
    assert torch.equal(linear_cross_entropy(*tensors, target), expected)


@pytest.mark.usefixtures("how")
def test_bfloat16_autocast_is_as_near_as_plain() -> None:
    h, weight, bias = (torch.randn(s, requires_grad=True) for s in ((64, 32), (200, 32), (200,)))
    target = torch.randint(200, (64,))
    truth = plain_linear_cross_entropy(h, weight, bias, target)
    expected = torch.autograd.grad(truth, (h, weight, bias))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(h, weight, bias, target, chunk=20)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, truth, rtol=2e-2, atol=2e-2)
    for actual, wanted in zip(torch.autograd.grad(loss, (h, weight, bias)), expected, strict=True):
        assert actual.dtype == torch.float32
        assert float((actual - wanted).norm() / wanted.norm()) < 1e-2


@pytest.mark.usefixtures("how")
def test_bfloat16_inputs_get_bfloat16_gradients() -> None:
    h, weight, bias = (t.detach().bfloat16() for t in inputs() if t is not None)
    h.requires_grad_()
    target = targets()
    loss = linear_cross_entropy(h, weight, bias, target)
    assert loss.dtype == torch.float32
    (grad,) = torch.autograd.grad(loss, h)
    assert grad.dtype == torch.bfloat16


def test_float16_gradients_keep_what_a_loss_scaler_saves() -> None:
    h, weight, bias = (t.detach() for t in inputs(torch.float32) if t is not None)
    target = targets()
    expected = _scaled_gradient(h, weight, bias, target)
    actual = _scaled_gradient(h.half(), weight.half(), bias.half(), target)
    assert float((actual.float() - expected).norm() / expected.norm()) < 5e-3


def _scaled_gradient(h: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    """Of a loss that counts for little, times a large factor that comes last."""
    weight = weight.clone().requires_grad_()
    loss = linear_cross_entropy(h, weight, bias, target, reduction="sum", chunk=4) * 1e-7
    return torch.autograd.grad(loss, weight, torch.tensor(2.0**20))[0]


def test_gradients_of_gradients_under_autocast() -> None:
    h, weight, bias = (t for t in inputs(torch.float32) if t is not None)
    target = targets()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(h.bfloat16(), weight, bias, target)
    (grad,) = torch.autograd.grad(loss, weight, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), weight)
    assert bool(second.isfinite().all())


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ignored", [False, True])
def test_no_targets_at_all(ignored: bool, dtype: torch.dtype) -> None:
    h, weight, bias = inputs(dtype)
    assert h is not None
    assert weight is not None
    rows, target = (h, torch.full((N,), -100)) if ignored else (h[:0], targets()[:0])
    assert linear_cross_entropy(rows, weight, bias, target, reduction="none").shape == target.shape
    assert linear_cross_entropy(rows, weight, bias, target, reduction="sum") == 0
    loss = linear_cross_entropy(rows, weight, bias, target)
    assert loss.isnan()
    loss.backward()
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_ignored_targets_are_not_read(dtype: torch.dtype) -> None:
    h, weight, bias = inputs(dtype)
    assert h is not None
    assert weight is not None
    target = targets(ignored=True)
    poisoned = torch.where((target == -100)[:, None], torch.nan, h.detach()).requires_grad_()
    loss = linear_cross_entropy(poisoned, weight, bias, target)
    loss.backward()
    assert poisoned.grad is not None
    assert bool(poisoned.grad.isfinite().all())
    assert weight.grad is not None
    assert bool(weight.grad.isfinite().all())


# torch's own forward mode scripts its decompositions on first use
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_transforms_and_forward_mode_use_the_plain_formula() -> None:
    h, weight, bias = (t.detach() for t in inputs() if t is not None)
    target = targets()

    def cost(rows: Tensor) -> Tensor:
        return linear_cross_entropy(rows, weight, bias, target)

    leaf = h.clone().requires_grad_()
    (expected,) = torch.autograd.grad(cost(leaf), leaf)
    assert_close(torch.func.grad(cost)(h), expected, gradient=True)
    v = torch.randn_like(h)
    _, along = torch.func.jvp(cost, (h,), (v,))
    assert_close(along, (expected * v).sum(), gradient=True)
    batch = torch.stack([h, 2 * h])
    assert_close(torch.func.vmap(cost)(batch), torch.stack([cost(h), cost(2 * h)]))


def test_wrong_use_says_what_to_do() -> None:
    h, weight, bias = inputs()
    assert h is not None
    assert weight is not None
    target = targets()
    with pytest.raises(UnknownNameError, match="did you mean 'mean'"):
        linear_cross_entropy(h, weight, bias, target, reduction="meen")
    with pytest.raises(OptionError, match="chunk"):
        linear_cross_entropy(h, weight, bias, target, chunk=0)
    with pytest.raises(OptionError, match="label_smoothing"):
        linear_cross_entropy(h, weight, bias, target, label_smoothing=math.nan)
    with pytest.raises(ShapeError, match="h and weight"):
        linear_cross_entropy(h, weight[:, :2], bias, target)
    with pytest.raises(ShapeError, match="target"):
        linear_cross_entropy(h, weight, bias, target[:3])
    with pytest.raises(ShapeError, match="bias"):
        linear_cross_entropy(h, weight, weight[:, 0][:4], target)
    with pytest.raises(ShapeError, match="dtype"):
        linear_cross_entropy(h.float(), weight, bias, target)
    with pytest.raises(DataError, match="expected classes 0 to 10"):
        linear_cross_entropy(h, weight, bias, target + V)


# --- adaptive softmax ---------------------------------------------------------------------------


def adaptive() -> tuple[AdaptiveSoftmax, Tensor]:
    counts = torch.tensor([1, 50, 3, 900, 3, 20, 0, 7, 2, 400])
    return AdaptiveSoftmax(8, counts, cutoffs=[2, 5], div_value=2.0), counts


def test_adaptive_probabilities_sum_to_one_in_class_order() -> None:
    softmax, counts = adaptive()
    h = torch.randn(4, 3, 8)
    scores = softmax.log_probs(h)
    assert scores.shape == (4, 3, 10)
    assert_close(scores.exp().sum(-1), torch.ones(4, 3))
    assert int(softmax.rank[3]) == 0
    assert int(softmax.rank[9]) == 1
    assert softmax.rank.sort().values.tolist() == list(range(len(counts)))
    assert softmax.cutoffs == [2, 5]


def test_adaptive_loss_is_the_cost_of_its_probabilities() -> None:
    softmax, _ = adaptive()
    h, target = torch.randn(4, 3, 8), torch.randint(10, (4, 3))
    target[0, 0] = -100
    scores = softmax.log_probs(h).flatten(0, 1)
    assert_close(softmax.loss(h, target), functional.nll_loss(scores, target.flatten()))
    assert softmax.loss(h, torch.full_like(target, -100)).isnan()


def test_adaptive_loss_is_wide_under_autocast() -> None:
    softmax, _ = adaptive()
    h, target = torch.randn(40, 8), torch.randint(len(softmax.rank), (40,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, scores = softmax.loss(h.bfloat16(), target), softmax.log_probs(h.bfloat16())
    assert loss.dtype == scores.dtype == torch.float32
    assert_close(loss, softmax.loss(h.bfloat16().float(), target))


def test_adaptive_softmax_travels_in_a_state_dict() -> None:
    softmax, _ = adaptive()
    other = AdaptiveSoftmax(8, torch.ones(10), cutoffs=[2, 5], div_value=2.0)
    other.load_state_dict(copy.deepcopy(softmax.state_dict()), strict=True)
    h = torch.randn(5, 8)
    assert torch.equal(other.log_probs(h), softmax.log_probs(h))


def test_default_cutoffs_cover_the_shares() -> None:
    counts = torch.tensor([70, 15, 5, 4, 3, 2, 1])
    assert default_cutoffs(counts) == [2, 5]
    assert default_cutoffs(torch.zeros(2)) == [1]
    with pytest.raises(OptionError, match="at least 2 classes"):
        default_cutoffs(torch.ones(1))
    with pytest.raises(OptionError, match="shares"):
        default_cutoffs(counts, [0.9, 0.5])


def test_adaptive_wrong_use() -> None:
    softmax, counts = adaptive()
    with pytest.raises(OptionError, match="cutoffs"):
        AdaptiveSoftmax(8, counts, cutoffs=[5, 2])
    with pytest.raises(OptionError, match="width 0"):
        AdaptiveSoftmax(8, counts, cutoffs=[2, 5])
    with pytest.raises(ShapeError, match="h: expected"):
        softmax.log_probs(torch.randn(3, 7))
    with pytest.raises(DataError, match="classes 0 to 9"):
        softmax.loss(torch.randn(1, 8), torch.tensor([10]))


# --- penalties ----------------------------------------------------------------------------------


def test_penalties_follow_their_equations() -> None:
    h = torch.randn(6, 2, 3, dtype=torch.float64)
    numbers = h.numpy()
    assert activation_regularisation(h, 2.0).item() == pytest.approx(2 * (numbers**2).mean())
    steps = numbers[1:] - numbers[:-1]
    assert temporal_activation_regularisation(h, 3.0).item() == pytest.approx(3 * (steps**2).mean())


def test_penalties_of_nothing_are_zero() -> None:
    h = torch.randn(1, 2, 3, requires_grad=True)
    assert temporal_activation_regularisation(h) == 0
    assert activation_regularisation(h, 0.0) == 0
    assert activation_regularisation(h[:0]) == 0
    with pytest.raises(OptionError, match="alpha"):
        activation_regularisation(h, -1.0)
    with pytest.raises(OptionError, match="beta"):
        temporal_activation_regularisation(h, math.inf)
