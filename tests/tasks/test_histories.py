"""Series of tables: one, several, with what is known ahead, with gaps, and what is refused, with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gatewise.errors import DataError, OptionError, UnknownNameError
from gatewise.tasks.code_lines import library_histories
from gatewise.tasks.histories import read_histories
from gatewise.tasks.known_series import EMBEDDED, embedded_series


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_one_series_in_the_order_of_time(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "day,load\n2024-01-03,3\n2024-01-01,1\n2024-01-02,\n")
    (one,) = read_histories([path], time="day").series
    assert one.name == "load"
    np.testing.assert_array_equal(one.values, [1, np.nan, 3])
    assert one.times == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert one.ahead == 0


def test_several_columns_and_several_ids(tmp_path: Path) -> None:
    wide = write(tmp_path, "a.csv", "north,south,rain\n1,4,0\n2,5,0\n3,6,1\n")
    found = read_histories([wide], target=("north", "south"), covariates=("rain",))
    assert [one.name for one in found.series] == ["north", "south"]
    assert found.series[1].values.tolist() == [4, 5, 6]
    assert found.series[0].covariates.tolist() == [[0], [0], [1]]
    long = write(tmp_path, "b.csv", "shop,sold\na,1\nb,7\na,2\nb,8\na,3\nb,9\n")
    found = read_histories([long], target=("sold",), id="shop")
    assert {one.name: one.values.tolist() for one in found.series} == {
        "a": [1, 2, 3],
        "b": [7, 8, 9],
    }


def test_rows_behind_the_last_value_are_the_future(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "y,holiday\n1,0\n2,0\n3,1\n,1\n,0\n")
    (one,) = read_histories([path], target=("y",), covariates=("holiday",)).series
    assert (len(one.values), one.ahead) == (3, 2)
    assert one.covariates[:, 0].tolist() == [0, 0, 1, 1, 0]


def test_short_series_are_counted_and_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "id,y\na,1\na,2\na,3\nb,1\nc,\n")
    found = read_histories([path], id="id")
    assert [one.name for one in found.series] == ["a"]
    assert "skipped: 2 with fewer than 3 steps" in found.notes[0]
    assert "series b" in found.notes[0]


def test_files_by_name(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"{name}.csv", "y\n1\n2\n3\n") for name in ("train", "test")]
    found = read_histories(paths)
    assert [(one.name, one.part) for one in found.series] == [
        ("train.csv y", "train"),
        ("test.csv y", "test"),
    ]


def test_times_that_leave_steps_out_are_said(tmp_path: Path) -> None:
    for times in (("1", "2", "5", "6"), ("2024-01-01", "2024-01-02", "2024-01-09", "2024-01-10")):
        rows = "".join(f"{time},{k}\n" for k, time in enumerate(times))
        found = read_histories([write(tmp_path, "a.csv", "t,y\n" + rows)], time="t")
        assert found.notes[0].startswith("1 steps of time are longer than the others (series y")
    months = "".join(f"2024-{k:02d}-01,{k}\n" for k in range(1, 13))
    assert read_histories([write(tmp_path, "b.csv", "t,y\n" + months)], time="t").notes == []
    words = "t,y\nlundi,1\nmardi,2\nmercredi,3\n"
    assert read_histories([write(tmp_path, "c.csv", words)], time="t").notes == []


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra gatewise[tables] is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"y": [1.0, None, 3.0]}), tmp_path / "a.parquet")
    (one,) = read_histories([tmp_path / "a.parquet"]).series
    np.testing.assert_array_equal(one.values, [1, np.nan, 3])


@pytest.mark.parametrize(
    ("text", "options", "error", "said"),
    [
        ("a,b\n1,2\n", {}, OptionError, "--target: expected the column"),
        ("a\n", {}, DataError, "expected rows below the names"),
        ("a\n1\nx\n", {}, DataError, "line 3: expected a number in column 'a', found 'x'"),
        ("a\n1\n2\n", {}, DataError, "expected series to forecast, found none"),
        ("a\n\n", {}, DataError, "found none"),
        ("a\n1\n", {"target": ("b",)}, UnknownNameError, "unknown column"),
        ("a\n1\n", {"covariates": ("b",)}, UnknownNameError, "unknown column"),
        ("t,a\n1,1\n1,2\n", {"time": "t"}, DataError, "one row for each time"),
        ("a\n1\n", {"target": ("a",), "time": "a"}, OptionError, "named as another column"),
    ],
)
def test_what_cannot_be_used(
    tmp_path: Path, text: str, options: dict[str, object], error: type, said: str
) -> None:
    with pytest.raises(error, match=said):
        read_histories([write(tmp_path, "a.csv", text)], **options)  # type: ignore[arg-type]


def test_embedded_series() -> None:
    for name in EMBEDDED:
        found = embedded_series(name)
        assert "no data given" in found.notes[0]
        assert all(np.isfinite(one.values[-1]) for one in found.series)
    assert embedded_series("seasonal").series[0].values.shape == (3000,)


def test_the_library_is_cut_by_files(tmp_path: Path) -> None:
    found = library_histories({"train": 3, "test": 2})
    assert [one.part for one in found.series] == ["train"] * 3 + ["test"] * 2
    assert all(100 <= len(one.values) <= 2000 for one in found.series)
    assert found.missing > 0
    (tmp_path / "a.py").write_text("x = 1\n")
    assert library_histories(root=tmp_path).series == []
