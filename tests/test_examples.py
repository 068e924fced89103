"""The programs in examples/ run, on a small model that is trained here."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import gatewise as gw
from gatewise.checkpoint import RunFolder
from gatewise.mappings import LanguageModelOptions, StreamOptions
from gatewise.text.corpora import build_corpus
from gatewise.train import TrainOptions, language_learner, train

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps on a text of two sentences."""
    folder = tmp_path_factory.mktemp("examples")
    text = folder / "text.txt"
    text.write_text("The sea was calm. Nobody said a word. " * 60, encoding="utf-8")
    learner = language_learner(
        build_corpus([text], cache=False),
        LanguageModelOptions(embedding_size=8, hidden_size=12, num_layers=2),
        StreamOptions(batch_size=4, bptt=16),
        training := TrainOptions(steps=20),
    )
    with RunFolder.create(folder / "run") as target:
        train(learner, target, training)
    return folder / "run"


@pytest.mark.parametrize("layer", ["0", "1"])
def test_the_five_controls_are_exact(
    run: Path, layer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["controls.py", str(run), "--layer", layer, "--units", "1,5"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLES / "controls.py"), run_name="__main__")
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert out.count("  exact ") == 5
    assert "NOT" not in out


@pytest.mark.parametrize("engine", ["step", "compiled"])
def test_fast_engines_are_exact_but_for_their_tanh(run: Path, engine: str) -> None:
    """Four of the controls bit for bit; h = tanh(c) to some roundings of tanh."""
    example = runpy.run_path(str(EXAMPLES / "controls.py"))
    opened, units = gw.load(run), [1, 5]
    found = example["checks"](opened, example["TEXT"], 1, units, engine)
    assert {what for what, holds in found.items() if not holds} <= {"output on: h[t] = tanh(c[t])"}
    control = gw.Control.on("o", layer=1, units=units)
    on = example["rows"](opened, example["TEXT"], 1, engine, control)
    expected = on["c"][:, units].double().tanh()
    error = (on["h"][:, units] - expected).abs() / expected.abs().clamp(min=1e-30)
    assert float(error.max()) < 12 * 2.0**-23  # as tests/engine/test_lanes.py has it
