from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from gatewise.errors import DataError
from gatewise.tasks.pairs import read_pairs, read_parallel, slip


def test_parallel_files_and_empty_lines(tmp_path: Path) -> None:
    left, right = tmp_path / "a.de.gz", tmp_path / "a.en"
    left.write_bytes(gzip.compress("Hund\n\nKatze\u2028Maus\nVogel\n".encode()))
    right.write_bytes(b"dog\r\nnothing\r\ncat mouse\r\n \r\n")
    found = read_parallel(left, right)
    assert list(found) == [("Hund", "dog"), ("Katze\u2028Maus", "cat mouse")]
    assert [where.split(", ")[1] for where, _ in found.skipped.entries] == ["line 2", "line 4"]


def test_tables(tmp_path: Path) -> None:
    expected = [("Hund", "dog"), ("Katze", "cat")]
    (tmp_path / "a.tsv").write_text("Hund\tdog\nKatze\tcat\tmore\n")
    (tmp_path / "b.tsv").write_text("en\tde\ndog\tHund\ncat\tKatze\n")
    (tmp_path / "c.jsonl").write_text(
        '{"source": "Hund", "target": "dog"}\n{"source": "Katze", "target": "cat"}\n'
    )
    (tmp_path / "d.csv").write_text('source,target\n"Hund",dog\nKatze,"cat"\n')
    assert list(read_pairs(tmp_path / "a.tsv")) == expected
    assert list(read_pairs(tmp_path / "b.tsv", "de", "en")) == expected
    assert list(read_pairs(tmp_path / "c.jsonl")) == expected
    assert list(read_pairs(tmp_path / "d.csv")) == expected


def test_sides_that_slip_name_both_counts_and_the_place(tmp_path: Path) -> None:
    rng = random.Random(1)
    left = [" ".join("w" * rng.randint(3, 25)) for _ in range(200)]
    right = left[:120] + left[121:]
    (tmp_path / "l").write_text("\n".join(left))
    (tmp_path / "r").write_text("\n".join(right))
    with pytest.raises(DataError, match=r"found 200 in .*l and 199 in .*r: look near line 121"):
        read_parallel(tmp_path / "l", tmp_path / "r")
    assert slip([], ["a"]) is None


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("one\ttwo\nalone\n")
    with pytest.raises(DataError, match="line 2: expected two texts by a tab"):
        read_pairs(tmp_path / "a.tsv")
    (tmp_path / "b").write_bytes(b"fine\n\xff\n")
    with pytest.raises(DataError, match="line 2: expected text as UTF-8"):
        read_parallel(tmp_path / "b", tmp_path / "a.tsv")
    (tmp_path / "e").write_text("\n\n")
    with pytest.raises(DataError, match=r"found none .*2 with an empty side"):
        read_parallel(tmp_path / "e", tmp_path / "e")
    (tmp_path / "g.gz").write_bytes(gzip.compress(b"hello" * 100)[:-6])
    with pytest.raises(DataError, match="can be read"):
        read_parallel(tmp_path / "g.gz", tmp_path / "e")


def test_multi30k(shared_data: Path) -> None:
    folder = shared_data / "multi30k"
    assert len(read_parallel(folder / "train.de.gz", folder / "train.en.gz")) == 29000
