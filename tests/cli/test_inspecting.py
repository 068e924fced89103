"""What the inspections share: texts that are given, and what is said of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gatewise.probe import Control


@pytest.mark.parametrize(
    "words",
    [
        "units RUN xü=(1)",
        "ablate RUN xü",
        "gradients RUN --text ü=(1)+2 --lags 2",
        "search RUN def+gate --text xü --span x --index NEW --record layers.0.h --threshold=0",
        "steer RUN xü --do keep --max-tokens 1",
        "read RUN xü",
        "patch RUN x ü --max-tokens 1",
        "lens RUN xü",
        "paths RUN --text xü",
        "fading xü RUN",
    ],
)
def test_what_the_model_does_not_know_is_said(
    gatewise: Any, trained: Path, tmp_path: Path, words: str
) -> None:
    given = {"RUN": trained, "NEW": tmp_path / "index"}
    called = gatewise("inspect", *(given.get(word, word) for word in words.split()))
    assert called.status == 0, called.err
    assert "note: not in the model's vocabulary, read as unknown: 'ü'" in called.err


@pytest.mark.parametrize(
    "words",
    [
        "units RUN f(x) --out DIR/a.npz",
        "ablate RUN f(x) --out DIR/a.csv",
        "gradients RUN --text f(x)+2 --lags 2 --out DIR/a.npz",
        "steer RUN f(x) --do keep --save DIR/a.json",
        "read RUN f(x) --out DIR/a.npz",
        "read RUN f(x) --unit layers.0.c:1 --html DIR/a.html",
    ],
)
def test_a_folder_that_is_not_there_is_said_before_anything_is_computed(
    gatewise: Any, trained: Path, tmp_path: Path, words: str
) -> None:
    folder = tmp_path / "none"
    given = [
        word.replace("RUN", str(trained)).replace("DIR", str(folder)) for word in words.split()
    ]
    called = gatewise("inspect", *given)
    assert (called.status, called.out) == (2, "")
    assert f"{folder} is no folder to write a." in called.line


@pytest.mark.parametrize(
    "words",
    [
        "units RUN f(x) --record f --out DIR/a.npz",
        "ablate RUN f(x) --out DIR/a.csv",
        "lens RUN f(x) --out DIR/a.npz",
        "steer RUN f(x) --do keep --max-tokens 1 --save DIR/a.json",
        "patch RUN f x --max-tokens 1 --save DIR/a.json",
        "read RUN f(x) --unit layers.0.c:1 --html DIR/a.html",
    ],
)
def test_what_is_written_is_named(gatewise: Any, trained: Path, tmp_path: Path, words: str) -> None:
    given = [
        word.replace("RUN", str(trained)).replace("DIR", str(tmp_path)) for word in words.split()
    ]
    called = gatewise("inspect", *given)
    assert called.status == 0, called.err
    assert called.err.endswith(f"written: {given[-1]}\n")
    assert Path(given[-1]).is_file()


def test_arrays_of_a_reading_are_written_under_their_own_ending(
    gatewise: Any, trained: Path, tmp_path: Path
) -> None:
    called = gatewise("inspect", "read", trained, "f(x)", "--out", tmp_path / "a.txt")
    assert called.status == 2
    assert "--out: expected a file of .npz" in called.line


def test_a_folder_is_no_text_and_a_name_without_a_file_is_pointed_out(
    gatewise: Any, trained: Path, tmp_path: Path
) -> None:
    called = gatewise("inspect", "units", trained, tmp_path)
    assert called.status == 2
    assert f"{tmp_path}: expected a file or a text, found a folder" in called.line
    called = gatewise("inspect", "units", trained, "there/is/none.py")
    assert called.status == 0
    assert "note: there/is/none.py: no such file, read as text" in called.err


def test_standard_input_and_names_of_files_are_told_from_texts(
    gatewise: Any, trained: Path, text: Path
) -> None:
    piped, named = (
        gatewise("inspect", "units", trained, given, "--record", "f", stdin=text.read_text())
        for given in ("-", text)
    )
    assert (piped.status, piped.out) == (0, named.out)
    called = gatewise("inspect", "lens", trained, text)
    assert called.status == 0
    assert f"note: {text}: read as text, though there is such a file" in called.err


def test_a_run_before_the_text_that_fades_in_it_is_said(gatewise: Any, trained: Path) -> None:
    called = gatewise("inspect", "fading", trained, "f(x)")
    assert called.status == 2
    assert f"expected the text before the runs, found the folder {trained}" in called.line


def test_a_time_beyond_the_text_is_said(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    for control in (Control.off("o", time=[1, 40]), Control.keep(time=slice(40, None))):
        file.write_text(control.to_json())
        called = gatewise("inspect", "read", trained, "f(x)", "--control", file)
        assert called.status == 2
        assert re.match("time= (is out of range: expected below|of a control .* of) 4", called.line)
