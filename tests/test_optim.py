"""Optimizers, schedules, clipping: their equations, and resuming bit for bit."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from gatewise.errors import CheckpointError, FailedError, OptionError, UnknownNameError
from gatewise.optim import (
    NTASGD,
    OPTIMIZERS,
    SCHEDULES,
    Schedule,
    averaged_weights,
    build_optimizer,
    build_schedule,
    clip_gradients,
    join_state,
    split_state,
)

BETWEEN = {"sgd": {"momentum": 0.9}, "rmsprop": {"momentum": 0.5}, "ntasgd": {"non_monotone": 1}}


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def one_step(model: nn.Module, optimizer: Optimizer, seed: int) -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    x = x.to(next(model.parameters()).dtype)
    model(x).square().sum().backward()
    optimizer.step()


def stored(state: Any) -> Any:
    """`state` through bytes of safetensors and JSON, as a run folder keeps it."""
    tensors, meta = split_state(state, "optimizer")
    back = load(save({k: v.contiguous() for k, v in tensors.items()}))
    return join_state(back, json.loads(json.dumps(meta, allow_nan=False)))


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def assert_same(left: nn.Module, right: nn.Module) -> None:
    assert all(torch.equal(a, b) for a, b in zip(weights(left), weights(right), strict=True))


# --- build_optimizer ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_run_is_bit_identical(name: str) -> None:
    def begin() -> tuple[nn.Module, Optimizer, Schedule]:
        model = net()
        options = BETWEEN.get(name, {})
        optimizer = build_optimizer(
            name, model.named_parameters(), lr=0.01, weight_decay=1e-3, **options
        )
        return model, optimizer, build_schedule("cosine", optimizer, total_steps=12, warmup=3)

    def run(model: nn.Module, optimizer: Optimizer, schedule: Schedule, steps: range) -> None:
        for seed in steps:
            one_step(model, optimizer, seed)
            schedule.step()
            if isinstance(optimizer, NTASGD):
                optimizer.validation(float(seed))

    whole = begin()
    run(*whole, range(12))
    first = begin()
    run(*first, range(5))
    second = begin()
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(stored(first[1].state_dict()))
    second[2].load_state_dict(stored(first[2].state_dict()))
    run(*second, range(5, 12))
    assert_same(whole[0], second[0])
    for a, b in zip(
        split_state(whole[1].state_dict())[0].values(),
        split_state(second[1].state_dict())[0].values(),
        strict=True,
    ):
        assert torch.equal(a, b)
    assert whole[2].state_dict() == second[2].state_dict()


def test_sgd_step_is_the_reference_programs() -> None:
    model, other = net(), net()
    optimizer = build_optimizer("sgd", model.named_parameters(), lr=20.0)
    one_step(model, optimizer, 0)
    other(torch.randn(5, 4, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    with torch.no_grad():
        for p in other.parameters():
            assert p.grad is not None
            p.add_(p.grad, alpha=-20.0)
    assert_same(model, other)


def test_groups_without_decay_on_biases() -> None:
    model = net()
    named = list(model.named_parameters())
    optimizer = build_optimizer("adamw", named * 2, lr=1.0, weight_decay=0.1, decay_biases=False)
    decaying, plain = optimizer.param_groups
    assert decaying["param_names"] == ["0.weight", "2.weight"]
    assert decaying["weight_decay"] == 0.1
    assert plain["param_names"] == ["0.bias", "2.bias"]
    assert plain["weight_decay"] == 0.0
    named[0][1].requires_grad_(False)
    (group,) = build_optimizer("sgd", named, lr=1.0).param_groups
    assert group["param_names"] == ["0.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr"),
        ({"lr": -1.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\]"),
        ({"betas": (0.9,)}, "two numbers"),
        ({"eps": 0.0}, "eps"),
        ({"momentum": 0.9}, "leave it out"),
    ],
)
def test_absurd_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build_optimizer("adam", net().named_parameters(), **({"lr": 0.1} | options))


def test_other_wrong_use_of_build_optimizer() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'adam'"):
        build_optimizer("adan", net().named_parameters(), lr=1.0)
    with pytest.raises(OptionError, match="found none"):
        build_optimizer("sgd", [], lr=1.0)
    with pytest.raises(OptionError, match="nesterov"):
        build_optimizer("sgd", net().named_parameters(), lr=1.0, nesterov=True)


# --- NT-ASGD ------------------------------------------------------------------------------------


def test_averaging_starts_as_in_the_paper() -> None:
    """Algorithm 1: t > n and v > min over l in 0 .. t-n-1 of logs[l]."""
    optimizer, n = NTASGD(net().parameters(), lr=0.1, non_monotone=2), 2
    logs: list[float] = []
    for loss in [5.0, 4.0, 3.0, 3.5, 2.9, 3.2, 2.8, 2.8, 2.85, 2.9]:
        due = len(logs) > n and loss > min(logs[: len(logs) - n])
        assert optimizer.validation(loss) == due
        logs.append(loss)
        if due:
            break
    assert optimizer.averaging
    assert len(logs) == 6
    assert not optimizer.validation(100.0)  # it starts once


def test_average_is_the_mean_of_the_weights_since_the_trigger() -> None:
    model = net().double()
    optimizer = NTASGD(model.parameters(), lr=0.01, non_monotone=1)
    for seed, loss in enumerate([1.0, 1.0, 2.0]):
        one_step(model, optimizer, seed)
        started = optimizer.validation(loss)
    assert started
    history = [weights(model)]
    for seed in range(4):
        one_step(model, optimizer, seed)
        history.append(weights(model))
    with optimizer.averaged():
        for i, p in enumerate(model.parameters()):
            torch.testing.assert_close(p.detach(), torch.stack([w[i] for w in history]).mean(0))
    assert all(torch.equal(a, b) for a, b in zip(weights(model), history[-1], strict=True))


def test_before_the_trigger_it_is_sgd() -> None:
    model, other = net(), net()
    averaged = NTASGD(model.parameters(), lr=0.1, weight_decay=0.01)
    plain = torch.optim.SGD(other.parameters(), lr=0.1, weight_decay=0.01)
    for seed in range(3):
        one_step(model, averaged, seed)
        one_step(other, plain, seed)
    with averaged_weights(averaged), averaged_weights(plain):
        assert_same(model, other)


def averaging() -> tuple[nn.Module, NTASGD]:
    model = net()
    optimizer = NTASGD(model.parameters(), lr=0.01, non_monotone=1)
    for seed, loss in enumerate([1.0, 1.0, 2.0]):
        one_step(model, optimizer, seed)
        optimizer.validation(loss)
    one_step(model, optimizer, 9)
    return model, optimizer


def test_checkpoint_of_averaged_weights_continues_from_the_raw_ones() -> None:
    model, optimizer = averaging()
    with optimizer.averaged():
        kept, state = copy.deepcopy(model.state_dict()), stored(optimizer.state_dict())
    other = net()
    other.load_state_dict(kept)
    resumed = NTASGD(other.parameters(), lr=1.0)
    resumed.load_state_dict(state)
    assert_same(model, other)
    for seed in range(3):
        one_step(model, optimizer, seed)
        one_step(other, resumed, seed)
    assert_same(model, other)
    with optimizer.averaged(), resumed.averaged():
        assert_same(model, other)


def test_swapped_weights_come_back_after_an_error() -> None:
    model, optimizer = averaging()
    before = weights(model)
    with pytest.raises(KeyError), optimizer.averaged():
        raise KeyError
    assert all(torch.equal(a, b) for a, b in zip(weights(model), before, strict=True))


def test_wrong_use_of_averaged_weights() -> None:
    _, optimizer = averaging()
    with optimizer.averaged():
        with pytest.raises(FailedError, match="leave averaged"):
            optimizer.step()
        with pytest.raises(FailedError, match="leave averaged"):
            optimizer.validation(1.0)
        with pytest.raises(FailedError, match="nest"), optimizer.averaged():
            pass
    with pytest.raises(CheckpointError, match="another optimizer"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})
    with pytest.raises(OptionError, match="non_monotone"):
        NTASGD(net().parameters(), lr=1.0, non_monotone=0)


def test_pickle_keeps_the_trigger() -> None:
    _, optimizer = averaging()
    assert pickle.loads(pickle.dumps(optimizer)).state_dict()["trigger"] == {
        "logs": [1.0, 1.0, 2.0],
        "count": 2,
        "n": 1,
    }


def test_losses_without_a_number_are_the_worst() -> None:
    optimizer = NTASGD(net().parameters(), lr=0.1, non_monotone=1)
    assert [optimizer.validation(v) for v in (math.nan, 1.0, 1.0, math.inf)][-1]
    json.dumps(optimizer.state_dict()["trigger"], allow_nan=False)


# --- schedules ----------------------------------------------------------------------------------


def schedule(name: str, lr: float = 1.0, **options: Any) -> Schedule:
    optimizer = build_optimizer("sgd", net().named_parameters(), lr=lr)
    return build_schedule(name, optimizer, **options)


def test_cosine_with_warm_up() -> None:
    s = schedule("cosine", 2.0, total_steps=10, warmup=4, final=0.1)
    found = []
    for _ in range(10):
        found.append(s.optimizer.param_groups[0]["lr"])
        s.step()
    shape = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(7)]
    assert found == pytest.approx([0.5, 1.0, 1.5, 2.0, *(2 * f for f in shape[:6])])
    assert s.lr == pytest.approx(0.2)


def test_cosine_on_a_time_budget() -> None:
    s = schedule("cosine")
    found = []
    for progress in (0.0, 0.25, 0.5, 1.0, 1.3):
        s.at(progress)
        s.step()
        found.append(s.lr)
    assert found == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5, 0.0, 0.0])


def test_plateau_is_the_reference_programs() -> None:
    """lr /= 4 whenever the validation loss is not below the best so far."""
    s = schedule("plateau", 20.0)
    lr, best = 20.0, None
    for loss in [5.0, 4.0, 4.5, 4.2, 3.9, 3.9, math.nan, 3.0]:
        improved = best is None or loss < best
        best, lr = (loss, lr) if improved else (best, lr / 4.0)
        assert s.validation(loss) == improved
        assert s.optimizer.param_groups[0]["lr"] == lr
    assert s.best == 3.0
    assert s.stale == 0


def test_plateau_with_patience_and_a_floor() -> None:
    s = schedule("plateau", patience=1, divisor=10.0, final=0.05)
    found = []
    for _ in range(7):
        s.validation(1.0)
        found.append(s.lr)
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.05, 0.05, 0.05])


def test_steps_fall_at_the_milestones() -> None:
    s = schedule("step", total_steps=4, milestones=(0.5, 0.75), gamma=0.1)
    found = []
    for _ in range(4):
        found.append(s.lr)
        s.step()
    assert found == pytest.approx([1.0, 1.0, 0.1, 0.01])


def test_windows_of_random_length_scale_one_step() -> None:
    s = schedule("constant", 3.0)
    with s.scaled(0.5):
        assert s.optimizer.param_groups[0]["lr"] == 1.5
        assert s.lr == 3.0
    assert s.optimizer.param_groups[0]["lr"] == 3.0


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_state_round_trip(name: str) -> None:
    one, two = schedule(name, total_steps=20, warmup=2), schedule(name, total_steps=20, warmup=2)
    for loss in (3.0, 4.0, 5.0):
        one.step()
        one.validation(loss)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for s in (one, two):
        s.step()
        s.validation(6.0)
    assert one.state_dict() == two.state_dict()
    assert one.optimizer.param_groups[0]["lr"] == two.optimizer.param_groups[0]["lr"]


def test_foreign_schedule_state_is_refused() -> None:
    with pytest.raises(CheckpointError, match="expected 'cosine', found 'constant'"):
        schedule("cosine").load_state_dict(schedule("constant").state_dict())
    state = schedule("plateau").state_dict()
    del state["falls"]
    with pytest.raises(CheckpointError, match="broken"):
        schedule("plateau").load_state_dict(state)
    with pytest.raises(CheckpointError, match="broken"):
        schedule("constant").load_state_dict({"name": "constant"})
    state = schedule("constant").state_dict() | {"base": [1.0, 2.0]}
    with pytest.raises(CheckpointError, match="groups"):
        schedule("constant").load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("constant", {"total_steps": 0}),
        ("constant", {"warmup": -1}),
        ("constant", {"warmup": 5, "total_steps": 4}),
        ("constant", {"gamma": 0.5}),
        ("cosine", {"final": 2.0}),
        ("step", {"milestones": (0.7, 0.3)}),
        ("step", {"gamma": 0.0}),
        ("plateau", {"divisor": 1.0}),
        ("plateau", {"patience": -1}),
    ],
)
def test_absurd_schedules_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        schedule(name, **options)


def test_unknown_schedule_and_progress() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'cosine'"):
        schedule("cosin")
    with pytest.raises(OptionError, match="progress"):
        schedule("cosine").at(math.nan)


# --- clipping -----------------------------------------------------------------------------------


def with_gradients(*values: list[float]) -> list[tuple[str, Tensor]]:
    found = []
    for i, value in enumerate(values):
        p = torch.zeros(len(value), requires_grad=True)
        p.grad = torch.tensor(value)
        found.append((f"p{i}", p))
    return found


def gradients(named: list[tuple[str, Tensor]]) -> list[list[float]]:
    return [p.grad.tolist() for _, p in named if p.grad is not None]


def test_clipping_by_norm_is_torchs() -> None:
    model, other = net(), net()
    for m in (model, other):
        m(torch.ones(2, 4)).square().sum().backward()
    report = clip_gradients(model.named_parameters(), norm=0.25)
    expected = nn.utils.clip_grad_norm_(other.parameters(), 0.25)
    assert report.norm.item() == pytest.approx(expected.item())
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=0)
    assert report.finite
    assert report.worst is not None


def test_small_gradients_are_untouched() -> None:
    named = with_gradients([0.1, 0.2], [0.3])
    before = gradients(named)
    report = clip_gradients(named, norm=5.0, value=1.0)
    assert gradients(named) == before
    assert report.worst == "p1"


def test_clipping_by_value_comes_before_norm() -> None:
    named = with_gradients([3.0, -4.0])
    report = clip_gradients(named, norm=1.0, value=2.0)
    assert report.norm.item() == 5.0
    assert gradients(named)[0] == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named_and_spreads_nowhere(bad: float) -> None:
    named = with_gradients([1.0], [2.0, bad], [300.0])
    report = clip_gradients(named, norm=1.0)
    assert not report.finite
    assert report.worst == "p1"
    assert gradients(named)[0] == [1.0]
    assert gradients(named)[2] == [300.0]


def test_finite_gradients_of_huge_norm_are_clipped() -> None:
    named = with_gradients([3e30], [4e30])
    report = clip_gradients(named, norm=1.0)
    assert report.finite
    assert report.norm.item() == pytest.approx(5e30)
    assert [g for (g,) in gradients(named)] == pytest.approx([0.6, 0.8])


def test_no_gradients_and_plain_tensors() -> None:
    report = clip_gradients([torch.zeros(3, requires_grad=True)], norm=1.0)
    assert report.finite
    assert report.norm == 0
    assert report.worst is None
    assert clip_gradients([p for _, p in with_gradients([2.0], [1.0])]).worst == "0"


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("make", [lambda v: {"norm": v}, lambda v: {"value": v}])
def test_absurd_clipping_is_refused(bad: float, make: Callable[[float], dict[str, float]]) -> None:
    with pytest.raises(OptionError, match="clipping"):
        clip_gradients([], **make(bad))


def test_missing_tensor_of_a_stored_state() -> None:
    tensors, meta = split_state({"a": torch.zeros(1), "b": (2, [None])})
    assert tensors.keys() == {"a"}
    with pytest.raises(CheckpointError, match="'a' is missing"):
        join_state({}, meta)
