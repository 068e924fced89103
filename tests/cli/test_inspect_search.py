"""Searching a text for places where the same units are on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gatewise as gw
from gatewise.cli.inspect_search import _span as searched_span
from gatewise.errors import DataError, OptionError
from gatewise.insight import Index, Pattern, find, make_index, open_index, pattern_of
from gatewise.insight import search as searching
from gatewise.text.bpe import BpeTokenizer
from gatewise.text.characters import CharTokenizer
from gatewise.text.words import WordTokenizer


@pytest.fixture(scope="module")
def run(trained: Path) -> Any:
    return gw.load(trained)


def planted(rows: list[str], path: str = "layers.0.h") -> Index:
    """An index of units given as rows of dots and hashes."""
    on = np.array([[char == "#" for char in row] for row in rows])
    return Index(path, 0.3, np.zeros(on.shape[1], np.uint32), np.packbits(on, axis=1), "")


def test_places_are_ranked_rare_units_counting_more() -> None:
    index = planted([
        "####################",
        "..###......#.#......",
        "..###.........###...",
        "#....##########.####",
    ])  # fmt: skip
    found = find(index, Pattern((0, 1, 2), (3,), 3), least=0.0, top=2)
    assert [(one.begin, one.end) for one in found] == [(2, 5), (13, 16)]
    assert found[0].score == pytest.approx(1.0)
    weight = -np.log(np.array([5, 6, 5]) / 20)  # units 1 and 2 on, 3 off; unit 0 says nothing
    expected = (weight * [1, 2, 1]).sum() / (3 * weight.sum())
    assert found[1].score == pytest.approx(expected, rel=1e-6)
    assert [one.begin for one in find(index, Pattern((1,), (), 1), top=9)] == [2, 3, 4, 11, 13]
    assert find(index, Pattern((1,), (), 21)) == []


def test_a_unit_that_is_never_on_keeps_every_place_from_being_quite_like_the_span() -> None:
    index = planted(["..##....", "........"])
    found = find(index, Pattern((0, 1), (), 2), top=1, least=0.0)
    weight = -np.log(np.array([2, 1]) / 8)
    assert found[0].score == pytest.approx(weight[0] / weight.sum())
    assert find(index, Pattern((1,), (), 1), top=9, least=0.1) == []


def test_what_cannot_be_searched_is_said() -> None:
    index = planted(["####", "#..."])
    with pytest.raises(OptionError, match="units: expected some of 0 to 1"):
        find(index, Pattern((2,), (), 1))
    with pytest.raises(OptionError, match="least score"):
        find(index, Pattern((0,), (), 1), least=2)
    with pytest.raises(DataError, match="at times the other way"):
        find(index, Pattern((0,), (), 1))


def test_an_index_is_what_one_reading_gives(
    run: Any, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "PIECE", 800)
    given = text.read_text()[:2500]
    index = make_index(run, given, tmp_path / "i", path="layers.0.h", threshold=0.1)
    h = run.read(given, record=gw.Record("h")).record["layers.0.h"][:, 0].numpy()
    sure = np.abs(h - 0.1) > 0.02  # columns begin a little before: the last digits differ
    for unit in range(64):
        np.testing.assert_array_equal(
            index.on(unit)[sure[:, unit]], (h[:, unit] > 0.1)[sure[:, unit]]
        )
    again = open_index(tmp_path / "i")
    assert (again.path, again.threshold, len(again)) == ("layers.0.h", 0.1, len(index))
    np.testing.assert_array_equal(again.bits, index.bits)
    own = pattern_of(run, given[:200], (100, 104), index)
    best = find(index, own, top=1)[0]
    assert best.score == pytest.approx(1.0, abs=0.05)
    only = pattern_of(run, given[:200], (100, 101), index, around=1)
    on = h[:200] > 0.1
    assert only.on == tuple(np.flatnonzero(on[100] & ~on[99] & ~on[101]).tolist())
    assert only.off == tuple(np.flatnonzero(~on[100] & on[99] & on[101]).tolist())
    with pytest.raises(OptionError, match="span: expected two of 0 to 200"):
        pattern_of(run, given[:200], (150, 300), index)
    with pytest.raises(OptionError, match="around: expected a whole number of 0 or more"):
        pattern_of(run, given[:200], (100, 104), index, around=-1)
    nothing = Index("layers.0.h", 2.0, index.ids, index.bits, "")
    with pytest.raises(
        DataError, match=r"on \(above 2\) all through the span, found none: .* threshold$"
    ):
        pattern_of(run, given[:200], (100, 104), nothing)
    for name, damage in (
        ("bits.npy", b""),
        ("ids.npy", (tmp_path / "i" / "bits.npy").read_bytes()),
        ("index.json", b"{}"),
    ):
        (tmp_path / "i" / name).write_bytes(damage)
        with pytest.raises(DataError, match="expected an index of `inspect search`"):
            open_index(tmp_path / "i")


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer, BpeTokenizer])
@pytest.mark.parametrize("piece", ["(mild)", "\u00e9", "first", "last"])
def test_a_piece_of_the_text_is_the_tokens_that_hold_it(kind: Any, piece: str) -> None:
    text = "first   Citizen (mild) is \u00e9 last"
    run = SimpleNamespace(tokenizer=kind.build([text.replace("\u00e9", "") + " proceed"]))
    begin, end = searched_span(run, text, piece)
    ids = run.tokenizer.encode(text)
    held = run.tokenizer.decode(ids[begin:end])
    wanted = run.tokenizer.decode(run.tokenizer.encode(piece))
    assert wanted.strip() in held
    assert wanted.strip() not in run.tokenizer.decode(ids[begin + 1 : end])
    assert wanted.strip() not in run.tokenizer.decode(ids[begin : end - 1])
    with pytest.raises(OptionError, match="--span: expected A:B or a piece of the text"):
        searched_span(run, text, "fourth")


def test_the_verb(gatewise: Any, trained: Path, text: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    words = ("inspect", "search", trained)
    asked = (
        "--text",
        "def gate(self):",
        "--span",
        "self",
        "--index",
        index,
        "--record",
        "layers.0.h",
    )
    for wrong, said in (
        (("--record", "c"), "unknown path 'c': expected one of layers.0.c"),
        (("--threshold", "nan"), "--threshold: expected a finite number"),
    ):
        assert said in gatewise(*words, text, *asked[:-2], *wrong).line
    assert not index.exists()
    called = gatewise(*words, text, *asked, "--threshold", "0", "--top", "3", "--least", "0.1")
    assert called.status == 0, called.err
    assert "kept in" in called.err
    assert "units of layers.0.h are on in the span" in called.out
    again = gatewise(*words, *asked, "--top", "3", "--least", "0.1", "--json")
    found = json.loads(again.out)
    assert len(found["places"]) == 3
    assert all(len(place["inside"]) == 4 for place in found["places"])
    assert found["places"][0]["inside"] == "self"
    assert "unknown engine 'step'" in gatewise(*words, *asked, "--engine", "step").line
    for other in (("--record", "layers.0.c"), ("--threshold", "0.5")):
        assert f"{other[0]}: {index} was made with" in gatewise(*words, *asked[:-2], *other).line
    assert "leave the files out" in gatewise(*words, text, *asked).line
    assert (
        "--span: expected A:B or a piece"
        in gatewise(*words, *asked[:2], "--span", "no", *asked[4:]).line
    )
    assert "expected files to read" in gatewise(*words, *asked[:5], tmp_path / "none").line
    foreign = json.loads((index / "index.json").read_text()) | {"weights": "0"}
    (index / "index.json").write_text(json.dumps(foreign))
    called = gatewise(*words, *asked)
    assert called.status == 2
    assert "expected an index that this run made" in called.line
