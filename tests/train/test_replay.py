"""Steps that are recorded and replayed take the same way as those that are not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gatewise.mappings import LanguageLearner
from gatewise.text.corpora import Corpus
from gatewise.train import loop, replay
from train_cases import Collector, Run, build

NOISY: dict[str, Any] = {"dropout": 0.3, "weight_drop": 0.2, "zoneout": 0.1, "num_layers": 2}


def run_again(run: Callable[[], None]) -> Callable[[], None]:
    """What stands in for a card's recording: a replay runs it all again, on the same memory."""
    run()
    return run


def weights(result: tuple[Any, LanguageLearner, Collector]) -> dict[str, Tensor]:
    """Those after a run."""
    return {n: p.detach().cpu() for n, p in result[1].model.named_parameters()}


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each step that was replayed."""
    found: list[str] = []
    once = replay._Recording.replay

    def note(recording: Any, *rest: Any) -> Any:
        found.append("replayed")
        return once(recording, *rest)

    monkeypatch.setattr(replay._Recording, "replay", note)
    return found


def record_on_the_cpu(monkeypatch: pytest.MonkeyPatch, record: replay.Recorder = run_again) -> None:
    monkeypatch.setattr(loop, "can_be_recorded", lambda learner, device: True)
    monkeypatch.setattr(loop, "Replayed", partial(replay.Replayed, record=record))


def test_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_in: Run, replays: list[str]
) -> None:
    """The last step of an epoch is shorter, and the first begins without a state."""
    plain = weights(run_in(tmp_path / "plain", epochs=3.0, **NOISY))
    assert not replays
    record_on_the_cpu(monkeypatch)
    found = weights(run_in(tmp_path / "replayed", epochs=3.0, **NOISY))
    assert len(replays) > 5
    assert all(torch.equal(found[n], plain[n]) for n in plain)


def test_what_cannot_be_recorded_is_said_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_in: Run, replays: list[str]
) -> None:
    def fail(run: Callable[[], None]) -> Callable[[], None]:
        run()
        raise RuntimeError("operation not permitted\nmore lines")

    plain = weights(run_in(tmp_path / "plain", epochs=2.0, **NOISY))
    record_on_the_cpu(monkeypatch, fail)
    result = run_in(tmp_path / "failed", epochs=2.0, **NOISY)
    assert not replays
    assert all(torch.equal(weights(result)[n], plain[n]) for n in plain)
    assert result[2].notices == [
        "steps are not recorded on the card, each is launched anew: operation not permitted"
    ]


def test_weights_that_have_moved_are_seen(corpus: Corpus) -> None:
    learner, _ = build(corpus, steps=1)
    parameters = list(learner.model.parameters())

    def passes(batch: Any, state: Any) -> replay.Passes:
        loss = learner.loss(batch, state)
        loss.loss.backward()  # type: ignore[no-untyped-call]
        return replay.Passes(loss, torch.zeros(()))

    calls = replay.Replayed(passes, parameters, print, run_again)
    batch = learner.batch(0, 0)
    for _ in range(replay.WARM_UP + 2):
        learner.model.zero_grad()
        found = calls(batch, None)
    with torch.no_grad():
        parameters[0].data = parameters[0] * 2
    learner.model.zero_grad()
    moved = calls(batch, None)
    assert float(moved.loss.nats) != float(found.loss.nats)
    expected = learner.loss(batch, None)
    assert torch.equal(moved.loss.nats, expected.nats)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("engine", ["closed", "cuda", "reference"])
def test_on_a_card(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_in: Run,
    replays: list[str],
    dtype: str,
    engine: str,
) -> None:
    values = NOISY | {"device": "cuda", "dtype": dtype, "epochs": 3.0, "engine": engine}
    if engine == "closed":
        values["zoneout"] = 0.0
    result = run_in(tmp_path / "replayed", **values)
    assert len(replays) > 5, result[2].notices
    monkeypatch.setattr(loop, "can_be_recorded", lambda learner, device: False)
    plain = weights(run_in(tmp_path / "plain", **values))
    for name, value in weights(result).items():
        assert float((plain[name] - value).norm() / value.norm()) < 1e-3, name
