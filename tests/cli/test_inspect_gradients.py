"""`gatewise inspect gradients`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise import gradients
from gatewise.cli.watching_gradients import GradientWatcher
from gatewise.insight import sensitivity, untrained
from gatewise.mappings import LanguageModelOptions, StreamOptions
from gatewise.train import TextOptions, TrainOptions, language_learner


@pytest.fixture(scope="module")
def run(trained: Path) -> Any:
    return gw.load(trained)


def test_a_profile_is_the_last_row_of_the_matrix(run: Any, text: Path) -> None:
    """One window, against the sweep of all costs."""
    given = text.read_text()
    found = sensitivity(run, given, lags=6, windows=1, wrt="c")
    ids = torch.from_numpy(run.tokenizer.encode(given)[:14].astype(np.int64)).unsqueeze(1)
    model = run.model
    with torch.no_grad():
        state = model(ids[:6]).state
        x = model.inputs(ids[6:13])
    matrix = gradients.flow(
        model.stack, x, lambda h: model.token_nats(h, ids[7:14]), wrt="c", state=state
    )
    torch.testing.assert_close(found.profile.norms.flip(0), matrix[-1], rtol=1e-4, atol=1e-7)
    reading = run.read(run.tokenizer.decode(ids[:14, 0].numpy()))
    assert found.nats == pytest.approx(float(reading.nats[7:14].mean()), rel=1e-3)


def test_the_untrained_net_is_drawn_from_the_runs_seed(run: Any) -> None:
    one, two = untrained(run), untrained(run)
    for a, b, c in zip(one.parameters(), two.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.shape == c.shape
    assert not torch.equal(one.embedding.weight, run.model.embedding.weight)


def test_the_table_data_and_picture(
    gatewise: Any, trained: Path, text: Path, tmp_path: Path
) -> None:
    words = ("inspect", "gradients", trained, "--text", text, "--lags", "12", "--windows", "3")
    out = tmp_path / "g.npz"
    called = gatewise(*words, "--before", "--exponents", "2", "--spectrum", "3", "--out", out)
    assert called.status == 0, called.err
    assert "of layer 0, in nats, mean of 3 places" in called.out
    assert f"{trained.name}, untrained" in called.out
    for row in ("cost", "lag 10", "reach (1%)", "mean lag", "exponent 2", "spectral radius"):
        assert row in called.out, row
    with np.load(out) as saved:
        assert saved[f"{trained.name}/norms"].shape == (13,)
        assert saved[f"{trained.name}, untrained/exponents"].shape == (2,)
    document = json.loads(gatewise(*words, "--json").out)["runs"][trained.name]
    assert len(document["norms"]) == 13
    assert document["wrt"] == "state"
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    assert gatewise(*words, "--plot", tmp_path / "g.svg").status == 0
    assert "lag n, steps" in (tmp_path / "g.svg").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--text", "self"], "expected a text of at least 402 tokens for 200 lags"),
        (["--text", "TEXT", "--lags", "0"], "--lags: expected a whole number of 1 or more"),
        (["--text", "TEXT", "--lags", "3", "--wrt", "z"], "--wrt: expected one of h, c, state"),
        (["--text", "TEXT", "--lags", "3", "--layer", "4"], "--layer: expected"),
        (
            ["--text", "TEXT", "--lags", "3", "--engine", "compiled"],
            "--engine: gradients by a state",
        ),
        (["RUN", "RUN", "--text", "TEXT", "--lags", "3"], "RUNS: expected each once"),
        (["--text", "TEXT", "--out", "x.csv"], "--out: expected a file of .npz"),
    ],
)
def test_bad_input_is_one_clear_line(
    gatewise: Any, trained: Path, text: Path, words: list[str], said: str
) -> None:
    names = {"TEXT": str(text), "RUN": str(trained)}
    given = [names.get(word, word) for word in words]
    called = gatewise("inspect", "gradients", trained, *given)
    assert called.status == 2
    assert said in called.line


def test_watching_gradients_in_training(gatewise: Any, text: Path, tmp_path: Path) -> None:
    words = ["train", "lm", text, "--preset", "tiny", "--cell", "rnn_tanh", "--log-every", "10"]
    words += ["--schedule", "constant", "--steps"]
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    assert gatewise(*words, "40", "--out", plain).status == 0
    called = gatewise(*words, "20", "--out", watched, "--watch", "gradients")
    assert called.status == 0, called.err
    assert called.err.count("the cost looks back") <= 1
    with open(watched / "gradients.jsonl", "a") as file:
        file.write('{"step": 30, "nor')  # what a kill leaves
    again = gatewise(
        "train", "lm", text, "--out", watched, "--resume", "--steps", "40", "--watch", "gradients"
    )
    assert again.status == 0, again.err
    lines = [json.loads(line) for line in (watched / "gradients.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40]
    assert all(len(line["norms"]) == 33 for line in lines)
    assert all(line["clipped"] == (line["gradient_norm"] > 1.0) for line in lines)
    one, two = (gw.load(folder, "latest").model.state_dict() for folder in (plain, watched))
    for name, value in one.items():  # looking changed nothing
        assert torch.equal(value, two[name]), name
    called = gatewise(*words, "1", "--watch", "x", "--out", tmp_path / "other")
    assert "--watch: expected gradients" in called.line


def test_a_warning_says_what_to_do(text: Path, tmp_path: Path) -> None:
    said: list[str] = []
    learner = language_learner(
        TextOptions().corpus([str(text)]),
        LanguageModelOptions(cell="rnn_relu", hidden_size=8),
        StreamOptions(batch_size=4, bptt=32),
        TrainOptions(steps=1),
    )
    watcher = GradientWatcher(learner, tmp_path, 1.0, said.append)
    weight = learner.model.stack.weight_hh_l0
    for scale, words in ((0.1, "a gated cell"), (1.2, "lower --clip-norm or --lr")):
        with torch.no_grad():
            for parameter in learner.model.stack.parameters():
                parameter.mul_(0.01)
            learner.model.stack.bias_ih_l0.fill_(0.1)  # every unit is on
            weight.copy_(scale * torch.eye(8))
        for step in (1, 2):
            watcher.logged({"kind": "train", "step": step, "gradient_norm": 0.5})
        assert len(said) == 1
        assert words in said.pop()
    with torch.no_grad():
        weight.fill_(math.nan)
    other = GradientWatcher(learner, tmp_path, 1.0, said.append)
    other.logged({"kind": "train", "step": 3, "gradient_norm": math.nan})
    assert "no finite numbers" in said.pop()

    def refused(word: str) -> None:
        raise AssertionError(word)

    lines = (tmp_path / "gradients.jsonl").read_text().splitlines()
    last = json.loads(lines[-1], parse_constant=refused)
    assert (last["step"], last["gradient_norm"], last["clipped"]) == (3, None, False)
    assert None in last["norms"]


def test_fading(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    picture = tmp_path / "fading.svg"
    words = ("inspect", "fading", "def gate", trained, "--since", "1", "--before")
    called = gatewise(*words, "--plot", picture, "--json")
    assert called.status == 0, called.err
    runs = json.loads(called.out)["runs"]
    assert [one["name"] for one in runs] == [f"{trained.name}, untrained", trained.name]
    assert all(len(one["kept"]) == 8 for one in runs)
    assert picture.exists()
    assert "of the most (" in gatewise(*words).out
    for wrong, says in (
        (("inspect", "fading", "x"), "no run"),
        ((*words, "--unit", "999"), "--unit: expected 0 to 63"),
        ((*words, "--layer", "7"), "--layer: expected"),
        ((*words, "--engine", "compiled"), "--engine: gradients by an input"),
    ):
        assert says in gatewise(*wrong).line
