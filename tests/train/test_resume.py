"""A run that is taken up again ends with the bits of one that was not interrupted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.checkpoint import RunFolder
from gatewise.errors import OptionError
from gatewise.optim import NTASGD
from gatewise.text.corpora import Corpus
from gatewise.train import TrainOptions, train
from gatewise.train.rule import Rule
from train_cases import Collector, Run, build

NOISY: dict[str, Any] = {
    "num_layers": 2,
    "dropout": 0.2,
    "dropout_embedding": 0.1,
    "weight_drop": 0.2,
    "random_bptt": True,
    "drop_state": 0.2,
}

RULES: list[dict[str, Any]] = [
    {"optimizer": "sgd", "lr": 1.0, "schedule": "plateau", "eval_every": 5},
    {"optimizer": "sgd", "lr": 0.5, "momentum": 0.9, "schedule": "step"},
    {"optimizer": "adam", "schedule": "cosine", "warmup": 5},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "rmsprop", "momentum": 0.5},
    {"optimizer": "ntasgd", "lr": 9.0, "nonmono": 1, "eval_every": 4},
    {"optimizer": "adam", "cell": "mingru"},  # weights without rows, and their slots
]


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of weights and training state of the latest checkpoint."""
    with RunFolder.resume(folder) as run:
        path = run.latest().path
    names = ("model.safetensors", "training/state.safetensors", "training/state.json")
    return {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("cell", rule["optimizer"]))
def test_resumed_is_uninterrupted(tmp_path: Path, run_in: Run, rule: dict[str, Any]) -> None:
    values = NOISY | rule
    # the limit shapes a schedule, so the first part is cut short by a stop, not by another limit
    whole, _, told = run_in(tmp_path / "whole", steps=40, **values)
    assert whole.steps == 40
    if rule["optimizer"] == "ntasgd":
        assert any("averaged from here" in line for line in told.notices)
    cut_at(tmp_path / "parts", 17, run_in, values)
    resumed, _, watcher = run_in(tmp_path / "parts", steps=40, **values)
    assert watcher.starts[0].step == 17
    assert sums(tmp_path / "whole") == sums(tmp_path / "parts")
    assert resumed.best_nats == whole.best_nats
    assert resumed.valid == whole.valid


class _Cut(Exception):
    """The process is gone."""


def cut_at(folder: Path, step: int, run_in: Run, values: dict[str, Any]) -> None:
    """Train to the checkpoint of `step` and a little further, then vanish without a word."""
    from gatewise.train import loop

    original = loop._Loop._step

    def step_or_vanish(self: Any) -> None:
        if self.counters.step == step:
            self.save()
        if self.counters.step == step + 2:
            raise _Cut
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Loop, "_step", step_or_vanish)
        with pytest.raises(_Cut):
            run_in(folder, steps=40, **values)


def test_evaluations_samples_and_checkpoints_change_nothing(tmp_path: Path, run_in: Run) -> None:
    values = NOISY | {"steps": 30}
    plain, a, _ = run_in(tmp_path / "a", **values)
    busy, b, watcher = run_in(
        tmp_path / "b", eval_every=4, checkpoint_every=3, sample_every=5, log_every=2, **values
    )
    assert watcher.samples == [5, 10, 15, 20, 25, 30]
    assert plain.steps == busy.steps == 30
    for one, other in zip(a.model.parameters(), b.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_by_the_clock_changes_nothing(tmp_path: Path, run_in: Run) -> None:
    run_in(tmp_path / "a", steps=12, **NOISY)
    _, _, watcher = run_in(tmp_path / "b", steps=12, **(NOISY | {"checkpoint_seconds": 1e-9}))
    assert len(watcher.saves) >= 11
    assert sums(tmp_path / "a")["model.safetensors"] == sums(tmp_path / "b")["model.safetensors"]


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path, run_in: Run) -> None:
    values: dict[str, Any] = {"log_every": 1}
    cut_at(tmp_path / "run", 5, run_in, values)
    run_in(tmp_path / "run", steps=8, **values)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9))


def test_a_finished_run_resumed_is_finished(tmp_path: Path, run_in: Run) -> None:
    first, *_ = run_in(tmp_path / "run", steps=6)
    before = sums(tmp_path / "run")
    again, _, watcher = run_in(tmp_path / "run", steps=6)
    assert again.steps == 6
    assert again.best_nats == first.best_nats
    assert watcher.saves == []
    assert sums(tmp_path / "run") == before


def test_a_run_can_be_continued_further(tmp_path: Path, run_in: Run) -> None:
    run_in(tmp_path / "run", steps=6)
    further, _, watcher = run_in(tmp_path / "run", steps=9)
    assert further.steps == 9
    assert watcher.starts[0].step == 6


def test_changed_options_are_said_or_refused(tmp_path: Path, run_in: Run) -> None:
    run_in(tmp_path / "run", steps=4)
    _, _, watcher = run_in(tmp_path / "run", steps=5, lr=0.01)
    assert any("--lr: 0.02 before, now 0.01" in line for line in watcher.notices)
    for values, named in (
        ({"hidden_size": 17}, "hidden_size 16"),
        ({"batch_size": 4}, "batch_size 8"),
    ):
        with pytest.raises(OptionError, match=named):
            run_in(tmp_path / "run", steps=9, **values)
    with pytest.raises(OptionError, match=r"--optimizer.*adamw"):
        run_in(tmp_path / "run", steps=9, optimizer="sgd")


def test_a_run_that_patience_ended_goes_on_with_more_of_it(tmp_path: Path, run_in: Run) -> None:
    values = {"eval_every": 1, "lr": 1e3, "optimizer": "sgd", "clip_norm": 0.0}  # it gets worse
    ended, *_ = run_in(tmp_path / "run", steps=30, patience=1, **values)
    assert ended.reason == "patience"
    further, *_ = run_in(tmp_path / "run", steps=ended.steps + 1, patience=20, **values)
    assert further.steps == ended.steps + 1


def test_momentum_can_be_switched_on(tmp_path: Path, run_in: Run) -> None:
    run_in(tmp_path / "run", steps=2, optimizer="rmsprop", lr=1e-3)
    further, *_ = run_in(tmp_path / "run", steps=4, optimizer="rmsprop", lr=1e-3, momentum=0.9)
    assert further.steps == 4


def test_averaging_takes_up_another_patience() -> None:
    model = torch.nn.Linear(2, 2)
    options = TrainOptions(steps=1, optimizer="ntasgd", nonmono=5)
    rule = Rule(model, dataclasses.replace(options, nonmono=2))
    rule.load(Rule(model, options).state())
    assert isinstance(rule.optimizer, NTASGD)
    assert rule.optimizer.non_monotone == 2


def test_another_dtype_is_taken_up(tmp_path: Path, run_in: Run) -> None:
    run_in(tmp_path / "run", steps=2, dtype="float64")
    further, _, watcher = run_in(tmp_path / "run", steps=4, dtype="float32")
    assert further.steps == 4
    assert any("--dtype" in line for line in watcher.notices)


def test_the_engine_of_a_run_is_taken_up_and_another_is_said(tmp_path: Path, run_in: Run) -> None:
    run_in(tmp_path / "run", steps=2, engine="reference")
    again, learner, watcher = run_in(tmp_path / "run", steps=3)
    assert learner.engine == again.engine == "reference"
    assert any("engine: reference" in line for line in watcher.notices)
    assert not any("other conditions" in line for line in watcher.notices)
    other, _, watcher = run_in(tmp_path / "run", steps=4, engine="closed")
    assert other.engine == "closed"
    (line,) = [line for line in watcher.notices if "other conditions" in line]
    assert "'engine': 'reference'" in line
    assert "'engine': 'closed'" in line


def test_a_run_without_a_first_save_starts_from_the_beginning(
    tmp_path: Path, corpus: Corpus
) -> None:
    RunFolder.create(tmp_path / "run").close()
    learner, options = build(corpus, steps=2)
    watcher = Collector()
    with RunFolder.resume(tmp_path / "run") as run:
        result = train(learner, run, options, watcher)
    assert result.steps == 2
    assert any("beginning" in line for line in watcher.notices)
