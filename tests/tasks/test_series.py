from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gatewise.errors import DataError, OptionError, UnknownNameError
from gatewise.tasks.series import read_series
from gatewise.tasks.waves import WAVES, mackey_glass, seasonal, wave, waves

HEAD = "@problemName x\n@timeStamps false\n@classLabel true up down\n@dimensions 2\n@data\n"


def ts(folder: Path, body: str, head: str = HEAD) -> Path:
    path = folder / "x.ts"
    path.write_text(head + body)
    return path


def test_ts_of_unequal_lengths_and_missing_values(tmp_path: Path) -> None:
    found = read_series(ts(tmp_path, "# note\n1,2,?:4,5,6:up\n7:NaN:down\n1:2:?\n"))
    assert found.labels == ["up", "down"]
    assert found.values.lengths.tolist() == [3, 1]
    assert np.array_equal(found.values[0], [[1, 4], [2, 5], [np.nan, 6]], equal_nan=True)
    assert found.missing == 2
    assert "1 with no label" in found.skipped.summary()
    assert found.summary() == "2 series of 1 to 3 steps, 2 channels, 2 classes, 2 values missing"


def test_ts_with_numbers_to_predict(tmp_path: Path) -> None:
    found = read_series(
        ts(tmp_path, "1,2:0.5\n3,4:-1\n", "@targetLabel true\n@univariate true\n@data\n")
    )
    assert found.targets is not None
    assert found.targets.tolist() == [0.5, -1]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("1,2:3:up\n", "line 6: expected channels of one length"),
        ("1:2:up\n1:up\n", "line 7: expected 2 channels, found 1"),
        ("1:2:left\n", "line 6: expected a label of up, down, found 'left'"),
        ("1:x:up\n", "line 6: expected numbers by commas, found 'x'"),
        ("", "expected series below @data"),
    ],
)
def test_ts_refusals(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_series(ts(tmp_path, body))


def test_ts_headers_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1: cannot read"):
        read_series(ts(tmp_path, "", "@dimensions many\n@data\n"))
    with pytest.raises(DataError, match="line 1: series with time stamps"):
        read_series(ts(tmp_path, "", "@timeStamps true\n@data\n"))
    with pytest.raises(DataError, match="found no @data"):
        read_series(ts(tmp_path, "1,2\n", ""))


def test_long_and_wide_tables(tmp_path: Path) -> None:
    long = tmp_path / "long.csv"
    long.write_text("who,t,a,b,y\nk,2,3,4,up\nm,1,9,NA,down\nk,1,1,2,up\n")
    found = read_series(long, label="y", id="who", time="t")
    assert (found.ids, found.labels, found.channels) == (["k", "m"], ["up", "down"], ["a", "b"])
    assert found.values[0].tolist() == [[1, 2], [3, 4]]
    assert found.missing == 1
    wide = tmp_path / "wide.csv"
    wide.write_text("t0,t1,t2,y\n1,2,,0.5\n,3,4,1.5\n,,,2\n")
    found = read_series(wide, target="y")
    assert found.values.lengths.tolist() == [2, 3]
    assert found.targets is not None
    assert found.targets.tolist() == [0.5, 1.5]
    assert len(found.skipped) == 1


def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    wide = tmp_path / "wide.csv"
    wide.write_text("t0,t1,y\n1,2,0.5\n1,inf,1\n1,1e39,2\n1,2,inf\n")
    found = read_series(wide, target="y")
    assert len(found) == 1
    said = found.skipped.summary()
    assert "2 with a value that is not finite" in said
    assert "1 with no target" in said


def test_parquet_and_npz(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra gatewise[tables] is not installed")
    from pyarrow import parquet

    rows = [
        {"id": 1, "v": 1.5, "y": "a"},
        {"id": 1, "v": None, "y": "a"},
        {"id": 2, "v": 3.0, "y": "b"},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    found = read_series(tmp_path / "x.parquet", id="id", label="y")
    assert found.values.lengths.tolist() == [2, 1]
    x = np.arange(12.0).reshape(2, 3, 2)
    x[1, 2] = np.nan
    np.savez(tmp_path / "x.npz", x=x, y=np.array([1, 0]))
    found = read_series(tmp_path / "x.npz")
    assert found.values.lengths.tolist() == [3, 2]
    assert found.labels == ["1", "0"]
    np.savez(tmp_path / "r.npz", values=np.arange(5.0), starts=[0, 2, 5], y=[0.5, 1.5])
    assert read_series(tmp_path / "r.npz").values.lengths.tolist() == [2, 3]
    np.savez(tmp_path / "bad.npz", values=np.arange(5.0), starts=[0, 9])
    with pytest.raises(DataError, match="expected starts from 0"):
        read_series(tmp_path / "bad.npz")


def test_table_refusals(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,t,v,y\n1,1,2,a\n1,1,3,a\n1,2,x,b\n")
    with pytest.raises(DataError, match="line 4: expected a number in column 'v', found 'x'"):
        read_series(path, id="id", label="y", channels=["v"])
    with pytest.raises(DataError, match="line 3: expected one row for each time"):
        read_series(path, id="id", time="t")
    path.write_text("id,v,y\n1,2,a\n1,3,b\n")
    with pytest.raises(DataError, match="line 3: expected one 'y' for series '1'"):
        read_series(path, id="id", label="y")
    with pytest.raises(UnknownNameError, match="column"):
        read_series(path, id="nobody")
    with pytest.raises(OptionError, match="columns are of tables"):
        read_series(tmp_path / "x.ts", label="y")


@pytest.mark.parametrize(
    ("name", "train", "test", "channels", "classes"),
    [
        ("JapaneseVowels", 270, 370, 12, 9),
        ("ItalyPowerDemand", 67, 1029, 1, 2),
        ("BasicMotions", 40, 40, 6, 4),
        ("ArrowHead", 36, 175, 1, 3),
    ],
)
def test_the_archives_sets(
    shared_data: Path, name: str, train: int, test: int, channels: int, classes: int
) -> None:
    for part, count in (("TRAIN", train), ("TEST", test)):
        found = read_series(shared_data / "timeseries" / name / f"{name}_{part}.ts")
        assert (len(found), len(found.channels), len(found.classes)) == (count, channels, classes)
        assert found.missing == 0


def test_generated_series_are_the_same_again_and_apart_by_part() -> None:
    found = waves(20)
    assert found.classes == sorted(WAVES)
    assert np.array_equal(found.values[7], wave(7)[0].astype(np.float32))
    assert not np.array_equal(wave(7, part="test")[0][:40], wave(7)[0][:40])
    assert np.array_equal(seasonal(50, seed=1), seasonal(50, seed=1))
    assert not np.array_equal(seasonal(50, seed=1), seasonal(50, seed=2))
    chaos = mackey_glass(300)
    assert 0.2 < chaos.min() < 0.6
    assert 1.1 < chaos.max() < 1.5
