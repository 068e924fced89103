"""`gatewise inspect patch`, `lens` and `direction`, and what they are made of, on a trained run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise import insight
from gatewise.errors import DataError, OptionError
from gatewise.insight.directions import cost, held_out

PROMPT, OTHER = "def gate(self", "import os\nclass "


def test_all_states_of_the_other_text_write_its_continuation(trained: Path) -> None:
    run = gw.load(trained)
    rows = {row.name: row for row in insight.patch(run, PROMPT, OTHER, max_tokens=20)}
    paths = insight.patching.state_paths(run)
    assert list(rows) == ["as it is", "the other text", *paths, "all"]
    plain = {"max_tokens": 20, "temperature": 0.0}
    assert rows["as it is"].text == run.generate(PROMPT, **plain).run()[0].text
    assert rows["the other text"].text == run.generate(OTHER, **plain).run()[0].text
    assert rows["all"].text == rows["the other text"].text
    for name in ("own", "other"):
        same = getattr(rows["the other text"], name)
        assert getattr(rows["all"], name) == pytest.approx(same, abs=1e-5)
    assert not rows["as it is"].moved
    assert rows["all"].moved


def test_the_verb_of_patching(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    saved = tmp_path / "patch.json"
    words = ("inspect", "patch", trained, PROMPT, OTHER, "--max-tokens", "12")
    called = gatewise(*words, "--name", "layers.0.c", "--save", saved, "--json")
    assert called.status == 0, called.err
    row = json.loads(called.out)["rows"][-1]
    assert row["name"] == "layers.0.c"
    control = gw.Control.from_json(saved.read_text(encoding="utf-8"))
    run = gw.load(trained)
    expected = run.generate(PROMPT, control=control, max_tokens=12, temperature=0.0).run()[0].text
    assert row["text"] == expected
    text = gatewise(*words, "--units", "3,1", "--at", "2", "--taken", "4").out
    assert "own, other's: nats per token" in text
    for extra, says in (
        (("--units", "100000"), "--units: expected numbers from 0"),
        (("--units", "x"), "--units: expected numbers such as 3,17"),
        (("--name", "layers.9.c"), "unknown path 'layers.9.c'"),
        (("--name", "layers.0.c,"), "--name: expected paths"),
        (("--at", "99"), "--at: expected a token of the text, from 0 to"),
        (("--taken", "-1"), "--taken: expected a token of the other text, from 0 to"),
        (("--save", saved), "exists"),
        (("--max-tokens", "0"), "--max-tokens"),
    ):
        called = gatewise(*words, *extra)
        assert called.status in (1, 2)
        assert says in called.line
    assert "expected at least one token" in gatewise("inspect", "patch", trained, "", OTHER).line


def test_a_direction(trained: Path) -> None:
    run = gw.load(trained)
    ones = [f"def f{k}(self):\n" for k in range(8)]
    others = [f"# {k} of them" for k in range(9)]
    for where in ("mean", "last"):
        found = insight.direction(run, ones, others, "layers.0.h", where=where)
        sides = []
        for side in (ones[::2], others[::2]):
            record = [
                run.read(text, record=gw.Record("layers.0.h")).record["layers.0.h"] for text in side
            ]
            each = [one[-1, 0] if where == "last" else one[:, 0].mean(0) for one in record]
            sides.append(torch.stack(each).mean(0))
        torch.testing.assert_close(found.vector, sides[0] - sides[1], rtol=1e-4, atol=1e-5)
        assert found.held == (4, 4)
        assert found.told_apart == 1.0
    nats = [run.read(text).nats[1:] for text in held_out(ones)]
    assert cost(run, held_out(ones)) == pytest.approx(float(torch.cat(nats).mean()), abs=1e-4)
    with pytest.raises(OptionError, match="where"):
        insight.direction(run, ones, others, "layers.0.h", where="first")
    with pytest.raises(DataError, match="at least two texts"):
        insight.direction(run, ones[:1], others, "layers.0.h")


def test_the_verb_of_directions(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    ones, others, saved = (tmp_path / name for name in ("ones.txt", "others.txt", "c.json"))
    ones.write_text("".join(f"def f{k}(self):\\n\n" for k in range(6)), encoding="utf-8")
    others.write_text("".join(f"# {k} of them\n" for k in range(6)), encoding="utf-8")
    words = ("inspect", "direction", trained, "--toward", ones, "--away", others)
    called = gatewise(*words, "--strengths", "0.5,2", "--prompt", "x = ", "--save", saved, "--json")
    assert called.status == 0, called.err
    assert "note: not in the model's vocabulary, read as unknown: '0'" in called.err
    found = json.loads(called.out)
    assert [row["strength"] for row in found["rows"]] == [0, 0.5, 2]
    assert all(row["text"].startswith("x = ") for row in found["rows"])
    (rule,) = gw.Control.from_json(saved.read_text(encoding="utf-8")).rules
    assert rule.value == pytest.approx(2 * np.asarray(found["vector"]), rel=1e-6)
    assert "stand on the right side" in gatewise(*words, "--name", "layers.0.c", "--time", "3").out
    for extra, says in (
        (("--strengths", "a"), "--strengths: expected numbers"),
        (("--strengths", "nan"), "--strengths: expected finite numbers"),
        (("--name", "layers.0.q"), "unknown path"),
        (("--where", "first"), "--where"),
        (("--time", "90"), "time= is out of range: expected below 14"),
    ):
        called = gatewise(*words, *extra)
        assert called.status in (1, 2)
        assert says in called.line
    missing = ("inspect", "direction", trained, "--toward", tmp_path / "none.txt", "--away", others)
    assert "none.txt" in gatewise(*missing).line
    ones.write_text("one\n", encoding="utf-8")
    assert "expected at least 4 texts" in gatewise(*words).line


def test_the_verb_of_the_lens(gatewise: Any, trained: Path, text: Path, tmp_path: Path) -> None:
    saved, late = tmp_path / "lens.npz", tmp_path / "late.json"
    late.write_text(gw.Control.off("o", time=[90]).to_json(), encoding="utf-8")
    words = ("inspect", "lens", trained, PROMPT)
    called = gatewise(*words, "--fit", text, "--out", saved, "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    paths = list(found["said"])
    assert len(found["tokens"]) == len(found["said"][paths[-1]]["nats"])
    reading = gw.load(trained).read(PROMPT)
    nats = found["said"][paths[-1]]["nats"][:-1]
    assert nats == pytest.approx(reading.nats[1:].tolist(), abs=1e-4)
    with np.load(saved) as arrays:
        assert arrays[f"{paths[-1]}/nats"][:-1] == pytest.approx(nats)
    assert "agrees" in gatewise(*words).out
    for extra, says in (
        (("--top", "0"), "--top"),
        (("--out", saved), "exists"),
        (("--out", tmp_path / "lens.txt"), ".npz"),
        (("--fit", "too short"), "to fit the lens on"),
        (("--gate", "h"), "unknown gate 'h': expected one of f, g, i, o"),
        (("--top", "9999"), "--top: expected a whole number from 1 to"),
        (("--engine", "step"), "unknown engine 'step'"),
        (("--control", late), "time= is out of range: expected below 13"),
    ):
        called = gatewise(*words, *extra)
        assert called.status in (1, 2)
        assert says in called.line
