"""The loop: it learns, does what a hand-written one does, and survives what goes wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.checkpoint import RunFolder, load_checkpoint
from gatewise.errors import DivergedError, OptionError
from gatewise.mappings import LanguageLearner, LanguageModel, LanguageModelConfig
from gatewise.mappings.learner import Batch, Loss
from gatewise.text.corpora import Corpus
from gatewise.train import train
from gatewise.types import State, map_state
from tolerances import assert_close
from train_cases import Collector, Run, build


def test_a_small_text_is_learned_in_seconds(tmp_path: Path, run_in: Run) -> None:
    result, learner, watcher = run_in(
        tmp_path / "run", steps=250, hidden_size=32, lr=0.02, schedule="cosine", warmup=10
    )
    # five words in a random order: ln 5 nats a word of about 5.4 characters, its space included
    assert result.best_nats < 0.6
    assert result.best_nats == min(e.figures["nats_per_token"] for e in watcher.evaluations)
    assert result.steps == 250
    assert result.reason == "steps"
    assert result.tokens_per_second > 0
    assert watcher.results == [result]
    json.dumps(result.to_dict())
    best = load_checkpoint(tmp_path / "run")
    model = LanguageModel(LanguageModelConfig.from_dict(best.config["model"]))
    model.load_state_dict(best.tensors)
    again = LanguageLearner(model, learner.corpus, learner.options).evaluate("valid")
    assert again is not None
    assert again.nats_per_token == result.best_nats


def test_equal_to_a_loop_written_by_hand(tmp_path: Path, corpus: Corpus, run_in: Run) -> None:
    """SGD, clipping and the carried state, over the end of an epoch."""
    learner, _ = build(corpus, steps=1)
    model, stream = learner.model, learner._stream
    weights = [p.detach().clone().requires_grad_() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    position, state = 0, None
    for _ in range(60):
        x, y = stream.window(position, 10)
        out = torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (x, state))
        loss = F.cross_entropy(out.logits.flatten(0, 1), y.flatten())
        grads = torch.autograd.grad(loss, weights)
        norm = torch.sqrt(sum((g**2).sum() for g in grads))
        factor = min(1.0, 0.5 / float(norm))
        with torch.no_grad():
            for weight, grad in zip(weights, grads, strict=True):
                weight -= 0.7 * factor * grad
        position += len(x)
        state = map_state(Tensor.detach, out.state)
        if position == stream.steps:
            position, state = 0, None
    _, trained, _ = run_in(tmp_path / "run", steps=60, optimizer="sgd", lr=0.7, clip_norm=0.5)
    for ours, theirs in zip(trained.model.parameters(), weights, strict=True):
        assert_close(ours.detach(), theirs.detach(), gradient=True)


class Faulty(LanguageLearner):
    """A learner whose loss or gradient is not finite at given steps."""

    bad: frozenset[int] = frozenset()
    kind_of_fault = "loss"
    calls = 0

    def loss(self, batch: Batch, state: State) -> Loss:
        found = super().loss(batch, state)
        type(self).calls += 1
        if self.calls not in self.bad:
            return found
        if self.kind_of_fault == "loss":
            return Loss(found.loss * math.nan, found.nats * math.nan, found.state, found.engine)
        if self.kind_of_fault == "state":
            broken = map_state(lambda s: s * math.inf, found.state)
            return Loss(found.loss * math.nan, found.nats * math.nan, broken, found.engine)
        if self.kind_of_fault == "weight":
            self.model.stack.bias_hh_l0.data[3] = math.nan
            return found
        # the loss is a number, its gradient is not
        weight = self.model.stack.weight_hh_l0
        extra = torch.sqrt((weight * 0).sum())
        return Loss(found.loss + extra, found.nats, found.state, found.engine)


def faulty(corpus: Corpus, bad: set[int], kind: str, **values: Any) -> tuple[Faulty, Any]:
    learner, options = build(corpus, **values)
    learner.__class__ = Faulty
    assert isinstance(learner, Faulty)
    Faulty.bad, Faulty.kind_of_fault, Faulty.calls = frozenset(bad), kind, 0
    return learner, options


@pytest.mark.parametrize("kind", ["loss", "gradient", "state"])
def test_a_step_that_is_not_finite_is_skipped(tmp_path: Path, corpus: Corpus, kind: str) -> None:
    weights: list[list[Tensor]] = []

    class Weights(Collector):
        def logged(self, record: dict[str, Any]) -> None:
            super().logged(record)
            if record["kind"] == "train":
                weights.append([p.detach().clone() for p in learner.model.parameters()])

    learner, options = faulty(corpus, {5, 6}, kind, steps=9, log_every=1)
    watcher = Weights()
    with RunFolder.create(tmp_path / "run") as run:
        result = train(learner, run, options, watcher)
    assert result.skipped == 2
    assert result.steps == 9
    for before, after in zip(weights[3], weights[5], strict=True):
        assert torch.equal(before, after)
    assert not all(torch.equal(a, b) for a, b in zip(weights[5], weights[6], strict=True))
    assert all(bool(torch.isfinite(w).all()) for w in weights[-1])
    skips = [line for line in watcher.notices if "skipped" in line]
    assert len(skips) == 2
    assert "rows 40 to 50 of epoch 1" in skips[0]
    if kind == "gradient":
        assert "stack.weight_hh_l0" in skips[0]
    kinds = [
        json.loads(line)["kind"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()
    ]
    assert kinds.count("notice") == 2


def test_too_many_skips_in_a_row_stop_the_run(tmp_path: Path, corpus: Corpus) -> None:
    learner, options = faulty(
        corpus, set(range(4, 99)), "gradient", steps=50, max_skips=3, checkpoint_every=1
    )
    watcher = Collector()
    with (
        RunFolder.create(tmp_path / "run") as run,
        pytest.raises(DivergedError, match=r"3 skipped steps.*rows 50 to 60.*weight_hh_l0"),
    ):
        train(learner, run, options, watcher)
    assert watcher.results == [None]
    assert all(
        bool(torch.isfinite(t).all()) for t in load_checkpoint(tmp_path / "run").tensors.values()
    )


def test_weights_that_are_not_finite_are_named_and_never_saved(
    tmp_path: Path, corpus: Corpus
) -> None:
    learner, options = faulty(corpus, {4}, "weight", steps=50, max_skips=3, checkpoint_every=1)
    with (
        RunFolder.create(tmp_path / "run") as run,
        pytest.raises(DivergedError, match=r"weight stack.bias_hh_l0 is not finite"),
    ):
        train(learner, run, options)
    assert load_checkpoint(tmp_path / "run").step == 3


def test_skips_survive_a_resume(tmp_path: Path, corpus: Corpus, run_in: Run) -> None:
    learner, options = faulty(corpus, {2, 3, 4}, "loss", steps=4)
    with RunFolder.create(tmp_path / "run") as run:
        train(learner, run, options)
    result, *_ = run_in(tmp_path / "run", steps=6)
    assert result.skipped == 3


def test_a_diverging_loss_is_said_once(tmp_path: Path, run_in: Run) -> None:
    _, _, watcher = run_in(
        tmp_path / "run", steps=400, optimizer="sgd", lr=300.0, clip_norm=0.0, max_skips=400
    )
    said = [line for line in watcher.notices if "diverges" in line]
    assert len(said) == 1
    assert "--lr" in said[0]


def test_a_good_run_is_not_called_diverging(tmp_path: Path, run_in: Run) -> None:
    _, _, watcher = run_in(tmp_path / "run", steps=400)
    assert watcher.notices == []


def test_patience_ends_a_run(tmp_path: Path, run_in: Run) -> None:
    values: dict[str, Any] = {"steps": 400, "eval_every": 2, "patience": 3, "lr": 1.0}
    result, _, watcher = run_in(
        tmp_path / "run", optimizer="sgd", clip_norm=0.0, **(values | {"lr": 500.0})
    )
    assert result.reason == "patience"
    assert [e.best for e in watcher.evaluations][-3:] == [False] * 3
    assert result.steps == result.best_step + 6


def test_limits(tmp_path: Path, run_in: Run) -> None:
    by_epochs, learner, _ = run_in(tmp_path / "epochs", epochs=1.5, steps=10**6)
    assert by_epochs.reason == "epochs"
    steps = math.ceil(learner.positions / 10)
    assert steps * 1.5 - 1 <= by_epochs.steps <= steps * 1.5 + 1
    by_clock, _, watcher = run_in(tmp_path / "minutes", minutes=0.01, schedule="cosine")
    assert by_clock.reason == "minutes"
    assert 0.6 <= by_clock.seconds < 20
    assert watcher.progresses[-1].share <= 1


def test_progress_is_told_and_logged(tmp_path: Path, run_in: Run) -> None:
    _, learner, watcher = run_in(tmp_path / "run", steps=20, log_every=10, eval_every=10)
    assert watcher.starts[0].parameters == sum(p.numel() for p in learner.model.parameters())
    train_lines = [r for r in watcher.records if r["kind"] == "train"]
    assert [r["step"] for r in train_lines] == [10, 20]
    assert all(math.isfinite(r["nats"]) and r["gradient_norm"] > 0 for r in train_lines)
    assert [e.step for e in watcher.evaluations] == [10, 20]
    stored = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [(r["step"], r["kind"]) for r in stored] == [
        (r["step"], r["kind"]) for r in watcher.records
    ]


def test_samples_see_eval_mode(tmp_path: Path, corpus: Corpus) -> None:
    learner, options = build(corpus, steps=4, sample_every=2, dropout=0.5)
    modes = []

    class Sampler(Collector):
        def sample(self, step: int) -> None:
            modes.append((learner.model.training, torch.is_grad_enabled()))
            torch.randn(3)

    with RunFolder.create(tmp_path / "run") as run:
        train(learner, run, options, Sampler())
    assert modes == [(False, False)] * 2
    assert learner.model.training


def test_processes_together_are_one(tmp_path: Path, corpus: Corpus, run_in: Run) -> None:
    """Two shares of the columns, their gradients averaged by hand, step by step."""
    _, whole, _ = run_in(tmp_path / "whole", steps=1, optimizer="sgd", lr=1.0, clip_norm=0.0)
    learner, options = build(corpus, steps=1, optimizer="sgd", lr=1.0, clip_norm=0.0)
    shares = [
        LanguageLearner(learner.model, corpus, learner.options, rank=r, world_size=2)
        for r in (0, 1)
    ]
    other = shares[1]
    grads = torch.autograd.grad(
        other.loss(other.batch(0, 0), None).loss, list(learner.model.parameters())
    )

    def exchange(own: Sequence[Tensor]) -> None:
        for mine, theirs in zip(own, grads, strict=True):
            mine.add_(theirs).div_(2)

    with RunFolder.create(tmp_path / "shared") as run:
        train(shares[0], run, options, rank=0, world_size=2, exchange=exchange)
    for ours, theirs in zip(learner.model.parameters(), whole.model.parameters(), strict=True):
        assert_close(ours.detach(), theirs.detach(), gradient=True)
    with RunFolder.create(tmp_path / "alone") as run, pytest.raises(OptionError, match="exchange"):
        train(shares[0], run, options, rank=0, world_size=2)


def test_several_processes_are_refused_what_they_could_not_do_alike(
    tmp_path: Path, corpus: Corpus, run_in: Run
) -> None:
    run_in(tmp_path / "run", steps=1)
    several = {"rank": 0, "world_size": 2, "exchange": lambda _: None}
    learner, options = build(corpus, steps=2)
    with RunFolder.resume(tmp_path / "run") as run, pytest.raises(OptionError, match="a new run"):
        train(learner, run, options, **several)
    learner, options = build(corpus, minutes=1.0)
    with RunFolder.create(tmp_path / "new") as run, pytest.raises(OptionError, match="--minutes"):
        train(learner, run, options, **several)


def test_no_validation_part(tmp_path: Path) -> None:
    from gatewise.text.corpora import build_corpus
    from train_cases import make_text

    (tmp_path / "train.txt").write_text(make_text())
    corpus = build_corpus([tmp_path / "train.txt"], fractions=(1.0, 0.0, 0.0), cache=False)
    learner, options = build(corpus, steps=3)
    with RunFolder.create(tmp_path / "run") as run:
        result = train(learner, run, options)
    assert math.isnan(result.best_nats)
    assert result.valid == {}
    assert load_checkpoint(tmp_path / "run").step == 3
    _, options = build(corpus, steps=3, schedule="plateau")
    with RunFolder.create(tmp_path / "two") as run, pytest.raises(OptionError, match="plateau"):
        train(learner, run, options)


def test_float64(tmp_path: Path, corpus: Corpus) -> None:
    learner, options = build(corpus, steps=3, dtype="float64")
    assert learner.model.embedding.weight.dtype == torch.float64
    with RunFolder.create(tmp_path / "run") as run:
        result = train(learner, run, options)
    assert math.isfinite(result.best_nats)
