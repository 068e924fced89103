from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import DataError
from gatewise.tasks.names import Labelled, rare, read_folder, read_labelled, split_by_text


def test_a_folder_of_folders_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "Greek").mkdir()
    with pytest.raises(DataError, match="found folders alone"):
        read_folder(tmp_path)


def test_a_folder_drops_repeats_of_a_class_alone(tmp_path: Path) -> None:
    (tmp_path / "Greek.txt").write_text("Pappas\nPappas\n\nMartin\n")
    (tmp_path / "French.txt").write_text("Martin\n")
    found = read_folder(tmp_path)
    assert found.counts() == {"French": 1, "Greek": 2}
    assert len(found.skipped) == 2
    assert rare(found) == ["French"]


@given(
    st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), st.sampled_from("XYZ")), min_size=1),
    st.integers(0, 9),
)
def test_no_text_is_on_both_sides(rows: list[tuple[str, str]], seed: int) -> None:
    pairs = sorted(set(rows))
    data = Labelled([t for t, _ in pairs], [c for _, c in pairs])
    train, test = split_by_text(data, 0.3, seed)
    assert not set(train.texts) & set(test.texts)
    assert len(train) + len(test) == len(data)
    assert split_by_text(data, 0.3, seed)[1] == test


def test_each_class_keeps_its_share() -> None:
    data = Labelled(
        [f"{c}{k}" for c in "abc" for k in range(100)], [c for c in "abc" for _ in range(100)]
    )
    assert split_by_text(data)[1].counts() == {"a": 20, "b": 20, "c": 20}
    few = Labelled(["a1", "a2", "b1"], ["a", "a", "b"])
    assert split_by_text(few, 0.8)[0].counts() == {"a": 1, "b": 1}, "no class is tested alone"


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text,label\n"so, good",pos\nbad,neg\n,neg\nwhat,\n')
    found = read_labelled(tmp_path / "t.csv")
    assert (found.texts, found.labels) == (["so, good", "bad"], ["pos", "neg"])
    assert len(found.skipped) == 2
    (tmp_path / "u.csv").write_text("text,label\na,b\nalone\n")
    with pytest.raises(DataError, match="line 3: expected 2 values, found 1"):
        read_labelled(tmp_path / "u.csv")


def test_names_by_language(shared_data: Path) -> None:
    data = read_folder(shared_data / "names")
    assert len(data.classes) == 18
    assert len(data) + len(data.skipped) == 20050
    train, test = split_by_text(data)
    assert not set(train.texts) & set(test.texts)
    assert len(test) / len(data) == pytest.approx(0.2, abs=0.005)
    assert len(test.classes) == 18
