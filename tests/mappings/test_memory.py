"""The net of the memory suite: initial weights as their papers say, what counts in its cost, when it is solved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gatewise.errors import DataError, OptionError
from gatewise.mappings.learner import Adapting, Ending
from gatewise.mappings.memory import (
    MemoryBatchOptions,
    MemoryLearner,
    MemoryNet,
    MemoryNetConfig,
    MemoryNetOptions,
    run_net,
)
from gatewise.metrics.memory import MemoryTally
from gatewise.tasks.memory import MemoryBatch, open_task
from gatewise.train import TrainOptions
from gatewise.train.tasks import TaskOptions, task_learner

H = 16


def net(cell: str, initialisation: str = "torch", **more: Any) -> MemoryNet:
    values = {"cell": cell, "initialisation": initialisation, "hidden_size": H, "longest": 200}
    return MemoryNet(MemoryNetConfig(**(values | {"inputs": 3, "outputs": 2} | more)))


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "gru", "lstm"])
def test_recurrent_blocks_are_orthogonal(cell: str) -> None:
    stack = net(cell, "orthogonal", num_layers=2).stack
    for layer in range(2):
        weight = getattr(stack, f"weight_hh_l{layer}")
        for block in weight.detach().split(H):
            torch.testing.assert_close(block @ block.T, torch.eye(H), rtol=0, atol=1e-5)


def test_rectifiers_begin_as_the_identity() -> None:
    stack = net("rnn_relu", "identity").stack
    assert torch.equal(stack.weight_hh_l0, torch.eye(H))
    assert not stack.bias_ih_l0.any()
    assert not stack.bias_hh_l0.any()
    assert 0.0005 < float(stack.weight_ih_l0.detach().std()) < 0.0015


@pytest.mark.parametrize(
    ("cell", "signs"),
    [("lstm", {"f": 1, "i": -1}), ("gru", {"z": 1}), ("lstm_coupled", {"f": 1})],
)
def test_chrono_spreads_what_gates_remember(cell: str, signs: dict[str, int]) -> None:
    torch.manual_seed(3)
    model = net(cell, "chrono", hidden_size=400)
    law = model.stack._law
    blocks = dict(zip(law.pre, model.stack.bias_ih_l0.detach().split(400), strict=True))
    others = dict(
        zip(law.recurrent_blocks, model.stack.bias_hh_l0.detach().split(400), strict=True)
    )
    for gate, sign in signs.items():
        spans = (sign * blocks[gate]).exp()  # u of log u
        assert 1 <= float(spans.min()) < 10
        assert 190 < float(spans.max()) <= 199
        assert float(spans.mean()) == pytest.approx(100, abs=10)
        assert not others[gate].any()
    if cell == "lstm":
        assert torch.equal(blocks["i"], -blocks["f"])
    assert float(blocks[next(n for n in law.pre if n not in signs)].abs().max()) <= 0.05


def test_torch_and_forget_bias_stay_as_they_were() -> None:
    torch.manual_seed(1)
    first = net("lstm").stack.state_dict()
    torch.manual_seed(1)
    plain = torch.nn.LSTM(3, H).state_dict()
    assert all(torch.equal(first[name], plain[name]) for name in plain)
    biased = net("lstm", forget_bias=2.0).stack
    assert (biased.bias_ih_l0[H : 2 * H] == 2).all()


@pytest.mark.parametrize(
    ("cell", "more", "says"),
    [
        ("lstm", {"initialisation": "identity"}, "for the cell rnn_relu, found lstm"),
        ("rnn_tanh", {"initialisation": "chrono"}, "has no gates that keep"),
        ("lstm", {"initialisation": "chrono", "forget_bias": 1.0}, "leave one out"),
        ("lstm", {"initialisation": "xavier"}, "expected one of torch, orthogonal"),
        ("gru", {"forget_bias": 1.0}, "no forget gate"),
    ],
)
def test_initial_weights_that_a_cell_has_not(cell: str, more: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        MemoryNetOptions(cell=cell, **more).validate()


def learner(task: str, length: str | None = None, **more: Any) -> MemoryLearner:
    return task_learner(
        TaskOptions(task=task, length=length),
        MemoryNetOptions(hidden_size=8),
        MemoryBatchOptions(batch_size=6, sequences=30, **more),
        TrainOptions(steps=1, seed=4),
    )


@pytest.mark.parametrize("task", ["temporal-order", "adding", "parity", "copy"])
def test_only_the_steps_that_count_are_in_the_cost(task: str) -> None:
    made = learner(task, {"temporal-order": "easy"}.get(task, "24"))
    batch = made.batch(0, 1)
    found = made.loss(batch, None)
    x, targets, mask, lengths = MemoryBatch(*batch.inputs)
    costs = []
    for k, steps in enumerate(lengths.tolist()):  # each sequence alone, without padding
        outputs = made.model(x[:steps, k : k + 1]).outputs[:, 0]
        wanted = targets[:steps, k]
        each = (
            F.cross_entropy(outputs, wanted, reduction="none")
            if made.task.classes
            else (outputs - wanted).square().mean(-1)
        )
        costs.append(each[mask[:steps, k]])
    torch.testing.assert_close(found.loss, torch.cat(costs).mean(), rtol=1e-4, atol=1e-6)
    assert found.state is None
    assert all(
        torch.equal(one, other)
        for one, other in zip(made.batch(0, 1).inputs, batch.inputs, strict=True)
    )


def test_targets_are_not_rounded_under_autocast() -> None:
    made = learner("adding", "24")
    batch = made.batch(0, 0)
    _, targets, mask, _ = MemoryBatch(*batch.inputs)
    with torch.no_grad():
        made.model.decoder.weight.zero_()
        made.model.decoder.bias.fill_(1.0)  # what bfloat16 holds exactly
        with torch.autocast("cpu", torch.bfloat16):
            found = made.loss(batch, None)
    assert found.nats.item() == pytest.approx((targets[mask] - 1).square().mean().item(), rel=1e-6)


def test_the_echo_carries_its_state_and_begins_anew_with_an_epoch() -> None:
    made = learner("echo")
    first, second, again = made.batch(0, 0), made.batch(0, 1), made.batch(1, 0)
    assert (first.start, second.start, again.start) == (0, 20, 0)
    assert not first.inputs[2][:3].any()
    assert second.inputs[2].all()
    assert not again.inputs[2][:3].any()
    assert not torch.equal(first.inputs[0], again.inputs[0])
    assert torch.equal(second.inputs[1][:3], first.inputs[0].argmax(-1)[-3:])
    assert made.loss(first, None).state is not None


def test_solved_is_noted_and_taken_up() -> None:
    made = learner("temporal-order", "easy")
    assert isinstance(made, Adapting)
    assert isinstance(made, Ending)
    made.batch(2, 3)
    tally = MemoryTally(made.task, sequences=2000, right=1999, steps=2000, error=10.0)
    assert made.adapt(tally) is None
    assert made.adapt(replace(tally, right=2000, error=250.0)) is None
    assert made.ended == ""
    said = made.adapt(replace(tally, right=2000))
    assert said == "solved after 84 sequences: 2,000 of 2,000 others are right"
    other = learner("temporal-order", "easy")
    other.take_up(made.adapted())
    assert (other.ended, other.solved_after) == ("solved", 84)


@pytest.mark.parametrize("task", ["temporal-order", "adding", "echo"])
def test_figures_do_not_depend_on_the_batch(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(open_task(task))
    monkeypatch.setattr(kind, "success", replace(kind.success, sequences=40))
    size = 40 if task == "echo" else 7
    made = learner(task, "easy" if task == "temporal-order" else "20", eval_batch_size=size)
    tally = made.evaluate("valid")
    assert tally is not None
    assert tally.sequences == 40
    batch = made.task.batch("valid", 0, size, seed=4)
    if size == 40:
        outputs = made.model(batch.x).outputs.detach()
        assert tally.steps == 17 * 40
        assert tally.cost == pytest.approx(
            float(F.cross_entropy(outputs[3:].flatten(0, 1), batch.targets[3:].flatten())), rel=1e-5
        )
    else:
        drawn = [made.task.batch("valid", k, 7, seed=4) for k in range(6)]  # 5 of the last count
        errors = 0.0
        for k, one in enumerate(drawn):
            outputs = run_net(made.model, one).outputs.detach()
            each = (made.task.errors(outputs, one) * one.mask).sum(0)
            errors += float(each[: 7 if k < 5 else 5].sum())
        assert tally.mean_error == pytest.approx(errors / 40, rel=1e-5)
    assert made.evaluate("test", lambda: True) is None
    with pytest.raises(DataError, match="valid, test"):
        made.evaluate("train")
