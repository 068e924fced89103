"""Parallel texts: which files go together, what is which part, and what cannot be read."""

from __future__ import annotations

import functools
import gzip
import operator
import os
from pathlib import Path
from typing import Any

import pytest

from gatewise.errors import DataError, GatewiseError, OptionError
from gatewise.tasks.parallel import part_of, read_parallel_text

PAIRS = [(f"eins {k}", f"one {k}") for k in range(20)]


def write(folder: Path, name: str, lines: list[str]) -> Path:
    path = folder / name
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three parts in two languages, one of them packed, and something else."""
    for part, rows in (("train", PAIRS[:10]), ("val", PAIRS[10:14]), ("test_2016", PAIRS[14:])):
        write(tmp_path, f"{part}.de.gz", [a for a, _ in rows])
        write(tmp_path, f"{part}.en", [b for _, b in rows])
    write(tmp_path, "README.md", ["no pairs"])
    return tmp_path


def test_a_folder_with_languages(folder: Path) -> None:
    found = read_parallel_text([folder], source="de", target="en")
    assert found.parts == {"train": PAIRS[:10], "valid": PAIRS[10:14], "test": PAIRS[14:]}
    assert found.by_name
    other = read_parallel_text([folder / "val"], source="de", target="en")
    assert other.parts == {"valid": PAIRS[10:14]}


def test_files_in_twos(folder: Path) -> None:
    names = ["train.de.gz", "train.en", "val.de.gz", "val.en"]
    found = read_parallel_text([folder / name for name in names])
    assert found.parts == {"train": PAIRS[:10], "valid": PAIRS[10:14]}


@pytest.mark.parametrize("name", ["all.tsv", "all.tsv.gz", "all.jsonl"])
def test_tables_are_cut_by_a_fixed_seed(tmp_path: Path, name: str) -> None:
    line = '{{"source": "{}", "target": "{}"}}' if "jsonl" in name else "{}\t{}"
    path = write(tmp_path, name, [line.format(*pair) for pair in PAIRS])
    found = read_parallel_text([path], fractions=(0.5, 0.25, 0.25))
    assert [len(part) for part in found.parts.values()] == [10, 5, 5]
    assert sorted(functools.reduce(operator.iadd, found.parts.values(), [])) == sorted(PAIRS)
    assert found.parts == read_parallel_text([path], fractions=(0.5, 0.25, 0.25)).parts
    assert not found.by_name


def test_all_pairs_of_a_source_are_in_one_part(tmp_path: Path) -> None:
    rows = [f"{k % 5}\t{k}" for k in range(50)]
    found = read_parallel_text([write(tmp_path, "x.tsv", rows)], fractions=(0.6, 0.2, 0.2))
    sources = [{one for one, _ in part} for part in found.parts.values()]
    assert [len(part) for part in sources] == [3, 1, 1]
    assert len(set.union(*sources)) == 5


def test_an_empty_side_is_left_out_and_said(tmp_path: Path) -> None:
    path = write(tmp_path, "train.tsv", ["a\tb", "c\t", "\td"])
    found = read_parallel_text([path])
    assert found.parts == {"train": [("a", "b")]}
    assert "2 with an empty side" in found.notes[0]
    assert "train.tsv, line 2" in found.notes[0]


def test_what_a_name_says() -> None:
    names = ["train.de", "dev.en.gz", "newstest2016.en", "test.tsv", "contest.tsv", "x/valid.jsonl"]
    assert [part_of(name) for name in names] == ["train", "valid", None, "test", None, "valid"]


def test_each_mistake_is_one_clear_line(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, "short.en", ["one"])
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([folder / "train.de.gz", tmp_path / "short.en"], {}, "as many lines on both sides"),
        ([folder / "train.en"], {}, "files in twos"),
        ([folder / "train.en", tmp_path / "gone.en"], {}, "found nothing at"),
        ([folder], {}, "--source and --target"),
        ([folder], {"source": "de", "target": "fr"}, "or test_2016.fr.gz beside"),
        ([folder], {"source": "cs", "target": "en"}, "end in .cs"),
        ([folder / "nothing"], {"source": "de", "target": "en"}, "found nothing at"),
    ]
    for data, options, said in cases:
        with pytest.raises(GatewiseError, match=said) as caught:
            read_parallel_text(data, **options)
        assert isinstance(caught.value, (DataError, OptionError))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shares", [(0.9, 0.2), (-1.0, 1.0), (0.0,), (0.2, 0.2, 0.2, 0.2)])
def test_shares_that_cannot_be(tmp_path: Path, shares: tuple[float, ...]) -> None:
    path = write(tmp_path, "x.tsv", ["a\tb"])
    with pytest.raises(OptionError, match="--fractions"):
        read_parallel_text([path], fractions=shares)


@pytest.mark.data
@pytest.mark.skipif("GATEWISE_DATA" not in os.environ, reason="GATEWISE_DATA is not set")
def test_multi30k() -> None:
    path = Path(os.environ["GATEWISE_DATA"]) / "multi30k"
    if not path.is_dir():
        pytest.skip(f"{path} is not there")
    found = read_parallel_text([path], source="de", target="en")
    assert {k: len(v) for k, v in found.parts.items()} == {
        "train": 29_000,
        "valid": 1_014,
        "test": 1_000,
    }
