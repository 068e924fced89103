"""Long texts in columns, marks, and what units follow, against plain counting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from bare import BareRun
from gatewise import insight
from gatewise.errors import DataError, OptionError, UnknownNameError
from gatewise.probe import Control


@pytest.fixture(scope="module")
def run() -> Any:
    return BareRun()


def one_column(run: Any, text: str, control: Control | None = None) -> tuple[Any, Any]:
    ids = torch.from_numpy(run.tokenizer.encode(text)).unsqueeze(1)
    with torch.no_grad():
        out = run.model(ids, record=gw.Record("c"), control=control, engine="reference")
    nats = -out.logits[:-1].log_softmax(-1).gather(-1, ids[1:, :, None])[:, 0, 0]
    return nats.numpy(), out.record["layers.1.c"][:, 0].numpy()


@pytest.mark.parametrize(("columns", "warm"), [(1, 0), (3, 60), (7, 40), (50, 40)])
@pytest.mark.parametrize("length", [2, 41, 300, 701])
def test_columns_give_what_one_reading_gives(
    run: Any, columns: int, warm: int, length: int
) -> None:
    """After 40 steps this model has forgotten all but 1e-4 of where it began."""
    text = "".join(chr(97 + k * k * 7 % 26) for k in range(length))
    found = insight.read_long(run, text, record=["layers.1.c"], columns=columns, warm=warm)
    nats, c = one_column(run, text)
    assert np.isnan(found.nats[0])
    np.testing.assert_allclose(found.nats[1:], nats, atol=2e-4)
    np.testing.assert_allclose(found.record["layers.1.c"], c, atol=2e-4)


def test_a_control_acts_all_along(run: Any) -> None:
    text = "abcabcabc" * 20
    control = Control.set("layers.0.c", 0.0, units=[1, 2])
    found = insight.read_long(run, text, control=control, columns=4, warm=50)
    np.testing.assert_allclose(found.nats[1:], one_column(run, text, control)[0], atol=2e-4)


def test_selectivity_is_counted_pairs() -> None:
    values = np.random.default_rng(0).integers(0, 6, (60, 4)).astype(np.float32)
    where = np.random.default_rng(1).random(60) < 0.3
    inside, outside = values[where], values[~where]
    sign = np.sign(inside[:, None] - outside[None]).mean((0, 1))
    np.testing.assert_allclose(insight.selectivity(values, where), sign, atol=1e-12)
    assert insight.selectivity(where[:, None].astype(float), where).tolist() == [1.0]
    with pytest.raises(DataError, match="found 60 with and 0 without"):
        insight.selectivity(values, np.ones(60, bool))


def test_half_life_and_saturation() -> None:
    gate = np.full((50, 3), [0.5, 0.5**0.1, 1.0], np.float32)
    assert insight.half_life(gate)[:2].tolist() == pytest.approx([1.0, 10.0], rel=1e-5)
    assert insight.half_life(gate)[2] > 1e6
    for cell, expected in (
        ("lstm", ("f", True)),
        ("gru", ("z", True)),
        ("mingru", ("z", False)),
        ("slstm", None),
        ("rnn_tanh", None),
    ):
        assert insight.keeping(gw.cells.find(cell).law) == expected
    low, high = insight.saturation(np.array([[0.05, 0.95], [0.5, 0.99]]))
    assert low.tolist() == [0.5, 0.0]
    assert high.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("quotes", 'a "b" c', "..###.."),
        ("quotes", '"a\nb', "##.."),
        ("brackets", "f(x[1])y)", ".#####..."),
        ("indentation", "  a b\n c", "##....#."),
        ("comments", "a # b\nc", "..###.."),
        ("capitals", "A BC Def GH", "..##.....##"),
        ("ends", "ab\nc\n", ".#.#."),
        ("/b+/", "abba b", ".##..#"),
    ],
)
def test_marks(name: str, text: str, expected: str) -> None:
    assert "".join(".#"[int(one)] for one in insight.marks(text, name)) == expected


def test_marks_of_tokens_and_what_is_wrong() -> None:
    assert insight.marks("ab(cd)", "brackets", [2, 2, 2]).tolist() == [False, True, False]
    assert insight.marks("x" * 45, "far").sum() == 5
    with pytest.raises(UnknownNameError, match="unknown mark 'braces'"):
        insight.marks("a", "braces")
    with pytest.raises(OptionError, match="expected a regular expression"):
        insight.marks("a", "/(/")


def test_a_planted_unit_is_found_and_its_worth_is_where_it_acts(run: Any) -> None:
    """A unit of layer 1 that alone says that b comes next, after an a."""
    model = run.model
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.stack.weight_hh_l1.zero_()  # no unit of the layer sees another
        model.decoder.weight.zero_()
        model.decoder.bias.zero_()
        model.decoder.weight[1, 2] = 8.0
    text = "abacad" * 60
    try:
        reading = insight.read_long(run, text, record=["layers.1.h"], warm=20)
        h = reading.record["layers.1.h"]
        where = h[:, 2] > np.median(h[:, 2])
        best = insight.followers(reading, where, top=1)[0]
        assert (best.path, best.unit) == ("layers.1.h", 2)
        assert best.score == pytest.approx(1.0, abs=0.01)
        assert best.inside > best.outside
        plain = insight.read_long(run, text)
        other = insight.worth(run, text, where, [("layers.1.h", 3)], plain)
        assert (other.inside, other.outside) == pytest.approx((0.0, 0.0), abs=1e-6)
        own = insight.worth(run, text, where, [("layers.1.h", 2)], plain)
        assert own.inside != 0.0
        only_last = np.arange(len(text)) == len(text) - 1
        with pytest.raises(DataError, match="found 0 of 359 with it before the last"):
            insight.worth(run, text, only_last, [("layers.1.h", 2)], plain)
    finally:
        model.load_state_dict(saved)


def test_the_verb(gatewise: Any, trained: Path, text: Path, tmp_path: Path) -> None:
    called = gatewise("inspect", "units", trained, text, "--follow", "brackets", "--top", "3")
    assert called.status == 0, called.err
    assert "at 0: nats inside" in called.out
    assert "the first 3 together" in called.out
    assert "all units of layers.0.c together" in called.out
    half = "f(x) " * 20 + "x = 1 " * 30  # no bracket that a probe could be measured on
    called = gatewise("inspect", "units", trained, half, "--follow", "brackets", "--worth", "0")
    assert "no linear probe: one half" in called.out
    assert "at 0" not in called.out
    gates = gatewise("inspect", "units", trained, text, "--dtype", "bfloat16")
    assert "half of it is forgotten in" in gates.out
    out = tmp_path / "u.npz"
    words = ("inspect", "units", trained, text, "--record", "f", "--characters", "90")
    called = gatewise(*words, "--follow", "/def/", "--worth", "0", "--out", out, "--json")
    assert called.status == 0, called.err
    with np.load(out) as saved:
        assert saved["layers.0.f"].shape[0] == len(saved["marks"]) == 90


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--follow", "braces"], "unknown mark 'braces'"),
        (["--follow", "/zzz/"], "expected tokens with it and without, found 0 of"),
        (["--follow", "/(/"], "--follow: expected a regular expression"),
        (["--record", "z"], "unknown"),
        (["--engine", "step"], "unknown engine 'step'"),
        (["--top", "0"], "--top: expected a whole number of 1 or more"),
        (["--out", "a.csv"], "--out: expected a file of .npz"),
    ],
)
def test_bad_input_is_one_clear_line(
    gatewise: Any, trained: Path, text: Path, words: list[str], said: str
) -> None:
    called = gatewise("inspect", "units", trained, text, *words)
    assert called.status == 2
    assert said in called.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("cell", "said"),
    [("mingru", "layers.0.z: half of it is forgotten in"), ("rnn_tanh", "no gates")],
)
def test_what_cells_without_a_forget_gate_keep(
    gatewise: Any, text: Path, tmp_path: Path, cell: str, said: str
) -> None:
    words = ("--preset", "tiny", "--cell", cell, "--steps", "1", "--out", tmp_path / "run")
    assert gatewise("train", "lm", text, *words).status == 0
    called = gatewise("inspect", "units", tmp_path / "run", text)
    assert called.status == (0 if cell == "mingru" else 2)
    assert said in called.out + called.err


def test_the_worth_of_every_unit(gatewise: Any, trained: Path, text: Path, tmp_path: Path) -> None:
    words = ("inspect", "ablate", trained, text.read_text()[:80])
    out = tmp_path / "units.csv"
    called = gatewise(*words, "--follow", "brackets", "--out", out)
    assert called.status == 0, called.err
    assert "behind brackets" in called.out
    assert "64 units, each held alone" in called.out
    assert len(out.read_text().splitlines()) == 65
    found = json.loads(gatewise(*words, "--record", "layers.0.c", "--json").out)["gates"][0]
    assert found["path"] == "layers.0.c"
    short = json.loads(gatewise(*words, "--record", "c", "--json").out)["gates"]
    assert short == [found]
    assert len(found["change"]) == 64
    arrays = tmp_path / "units.npz"
    assert gatewise(*words, "--out", arrays).status == 0
    with np.load(arrays) as saved:
        assert saved["layers.0.h/change"].shape == (64,)
    for extra, said in (
        (["--record", "q"], "unknown path 'q'"),
        (["--record", "layers.0.h,layers.9.h"], "unknown path 'layers.9.h'"),
        (["--value", "nan"], "--value: expected a finite number, found nan"),
        (["--follow", "braces"], "unknown mark 'braces'"),
        (["--follow", "/zzz/"], "with the mark and without, found 0"),
        (["--characters", "1"], "--characters"),
        (["--out", "a.txt"], "--out: expected a file of .csv, .npz"),
    ):
        called = gatewise(*words, *extra)
        assert called.status == 2
        assert said in called.err.splitlines()[-1]
