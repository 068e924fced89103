"""Examples of every format as parts: who stands where, what is left out, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatewise.errors import DataError, GatewiseError, OptionError
from gatewise.tasks.labelled import ExampleOptions, overlap, read_examples, wave_examples
from gatewise.train.labelled import Reader

TS = "@problemName x\n@univariate true\n@classLabel true a b\n@data\n"


def read(*paths: object, **options: Any) -> Any:
    return read_examples([str(one) for one in paths], ExampleOptions(**options))


def names(folder: Path, count: int = 40) -> Path:
    made = folder / "names"
    made.mkdir()
    for label in "AB":
        (made / f"{label}.txt").write_text("".join(f"{label}{k}\n" for k in range(count)))
    return made


def test_a_folder_is_cut_and_no_text_is_in_two_parts(tmp_path: Path) -> None:
    found = read(names(tmp_path))
    sizes = {name: len(part) for name, part in found.parts.items()}
    assert sizes == {"train": 64, "valid": 8, "test": 8}
    keys = [set(part.keys) for part in found.parts.values()]
    assert len(set.union(*keys)) == sum(map(len, keys)) == 80
    assert overlap(found.parts) == ""
    assert not found.by_name
    again = read(tmp_path / "names", fractions=(0.9, 0.0, 0.1))
    assert again.parts["test"].texts == found.parts["test"].texts, "whatever valid takes"
    other = read(tmp_path / "names", split_seed=1)
    assert other.parts["test"].texts != found.parts["test"].texts


def test_names_of_files_say_the_parts(tmp_path: Path) -> None:
    for part in ("TRAIN", "TEST"):
        lines = "".join(f"{k},1,2:{'ab'[k % 2]}\n" for k in range(20))
        (tmp_path / f"X_{part}.ts").write_text(TS + lines)
    found = read(tmp_path)
    assert {name: len(part) for name, part in found.parts.items()} == {
        "train": 18,
        "valid": 2,
        "test": 20,
    }
    assert overlap(found.parts) == "also in the training part: 18 of test"
    assert found.by_name


def test_tables_of_texts_with_classes_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("text,label,score\none,a,1\none,a,2\n,b,3\ntwo,b,\nsix,,4\n")
    found = read(path, fractions=(1.0, 0.0, 0.0))
    assert found.parts["train"].texts == ["one", "two"]
    (note,) = found.notes
    assert "1 with no text" in note
    assert "1 with no label" in note
    assert "1 with a text and class that came before" in note
    assert len(read(path, fractions=(1.0, 0.0, 0.0), repeats=True).parts["train"]) == 3
    numbers = read(path, target="score", fractions=(1.0, 0.0, 0.0)).parts["train"]
    assert numbers.labels is None
    assert numbers.targets.tolist() == [1, 2, 4]


def test_series_of_tables_and_arrays(tmp_path: Path) -> None:
    long = tmp_path / "train.csv"
    rows = "".join(f"{k // 3},{k},{2 * k},{'ab'[k // 3 % 2]}\n" for k in range(12))
    long.write_text("id,x,y,label\n" + rows)
    found = read(long, id="id", fractions=(1.0, 0.0, 0.0)).parts["train"]
    assert found.channels == ["x", "y"]
    assert found.series.lengths.tolist() == [3, 3, 3, 3]
    assert found.labels == ["a", "b", "a", "b"]
    array = tmp_path / "train.npz"
    np.savez(array, x=np.arange(24.0).reshape(4, 3, 2), y=np.array([0.5, 1.5, 2.5, 3.5]))
    found = read(array, fractions=(1.0, 0.0, 0.0)).parts["train"]
    assert found.targets.tolist() == [0.5, 1.5, 2.5, 3.5]


def test_channels_go_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a_train.csv").write_text("id,x,y,label\n1,1,2,a\n2,3,4,b\n")
    (tmp_path / "b_test.csv").write_text("id,y,x,label\n1,2,1,a\n2,4,3,b\n")
    parts = read(*sorted(tmp_path.iterdir()), id="id", fractions=(1.0, 0.0, 0.0)).parts
    assert parts["test"].channels == ["x", "y"]
    assert parts["test"].series.values.tolist() == [[1, 2], [3, 4]]
    alone = read(tmp_path / "b_test.csv", id="id").parts["test"]
    reader = Reader(channels=("x", "y"), classes=("a", "b"))
    assert reader.inputs(alone).values.tolist() == [[1, 2], [3, 4]]


def test_what_is_to_be_classified_needs_no_class(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(TS + "1,2:?\n3,4:b\n")
    (tmp_path / "b.csv").write_text("t0,t1,label\n1,2,\n3,4,b\n")
    (tmp_path / "c.csv").write_text("text,label\none,\ntwo,b\n")
    for path in sorted(tmp_path.iterdir()):
        options = ExampleOptions(repeats=True)
        found = read_examples([path], options, cut=False, known=False)
        assert len(found.parts["train"]) == 2
        assert not found.notes
        assert len(read_examples([path], options, cut=False).parts["train"]) == 1


def test_the_embedded_waves() -> None:
    found = wave_examples(ExampleOptions())
    assert list(found.parts) == ["train", "valid", "test"]
    assert overlap(found.parts) == ""


def _mixed(folder: Path) -> list[Path]:
    (folder / "train.ts").write_text(TS + "1,2:a\n1,3:b\n")
    (folder / "test.csv").write_text("text,label\nx,a\n")
    return [folder / "train.ts", folder / "test.csv"]


def _unlabelled(folder: Path) -> list[Path]:
    np.savez(folder / "train.npz", x=np.zeros((3, 4)))
    return [folder / "train.npz"]


def _no_column(folder: Path) -> list[Path]:
    (folder / "train.csv").write_text("text,kind\nx,a\n")
    return [folder / "train.csv"]


def _odd(folder: Path) -> list[Path]:
    (folder / "train.txt").write_text("x\n")
    return [folder / "train.txt"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_mixed, "test.*expected series of 1 channels with classes, found texts"),
        (_unlabelled, "expected a class or a number of each series"),
        (_no_column, "expected --label or --target.*text, kind"),
        (_odd, "expected a folder with one file per class"),
        (lambda folder: [folder / "gone"], "found nothing at"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, make: Any, said: str) -> None:
    with pytest.raises(GatewiseError, match=said):
        read(*make(tmp_path))


def test_options_are_checked() -> None:
    for wrong in ({"fractions": (0.5, 0.5)}, {"fractions": (0.0, 0.5, 0.5)}):
        with pytest.raises(OptionError, match="--fractions"):
            ExampleOptions(**wrong).validate()
    with pytest.raises(OptionError, match="--label and --target"):
        ExampleOptions(label="a", target="b").validate()
    assert issubclass(DataError, ValueError)
