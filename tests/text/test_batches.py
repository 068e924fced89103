"""Batch-ification, against the lecture's own example and by its properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import DataError, OptionError
from gatewise.text.batches import Stream, batchify, picture

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
CODES = np.array([ord(c) for c in ALPHABET])


def letters(rows: np.ndarray | torch.Tensor) -> str:
    return "; ".join(" ".join(chr(int(c)) for c in row) for row in rows)


def test_the_lecture() -> None:
    assert letters(batchify(CODES, 4)) == ("a g m s; b h n t; c i o u; d j p v; e k q w; f l r x")
    stream = Stream(CODES, 4)
    x, y = stream.window(0, 3)
    assert letters(x) == "a g m s; b h n t; c i o u"
    assert letters(y) == "b h n t; c i o u; d j p v"
    x, y = stream.window(3, 3)
    assert letters(x) == "d j p v; e k q w"
    assert letters(y) == "e k q w; f l r x"
    assert (stream.rows, stream.steps, stream.batch_size) == (6, 5, 4)


def test_the_picture() -> None:
    drawn = picture(ALPHABET, 4, 3)
    assert drawn == "\n".join(
        [
            "26 tokens in 4 columns: 6 rows, 2 trimmed (y z)",
            "",
            "a g m s",
            "b h n t",
            "c i o u",
            "d j p v",
            "e k q w",
            "f l r x",
            "",
            "Each column is an independent stream: the batch.",
            "",
            "batch 1: rows 1 to 3 (T = 3), h[0] = 0",
            "x           y",
            "a g m s     b h n t",
            "b h n t     c i o u",
            "c i o u     d j p v",
            "",
            "batch 2: rows 4 to 5 (T = 2), h[0] <- h[T] of batch 1, detached",
            "x           y",
            "d j p v     e k q w",
            "e k q w     f l r x",
        ]
    )


def test_a_large_picture_stays_on_a_page() -> None:
    drawn = picture("to be\nor \x00\ud800" * 1000, 50, 10)
    assert max(map(len, drawn.splitlines())) < 130
    assert len(drawn.splitlines()) < 80
    assert "more windows" in drawn
    assert drawn.encode()


sizes = st.tuples(st.integers(1, 7), st.integers(2, 30), st.integers(0, 6), st.integers(1, 9))


@given(sizes=sizes)
def test_windows_reassemble_the_columns(sizes: tuple[int, int, int, int]) -> None:
    batch_size, rows, extra, length = sizes
    ids = np.arange(batch_size * rows + extra % batch_size, dtype=np.uint16)
    stream = Stream(ids, batch_size)
    windows = list(stream.windows(length))
    xs = torch.cat([x for _, x, _ in windows])
    ys = torch.cat([y for _, _, y in windows])
    whole = torch.cat([xs, ys[-1:]])
    assert whole.T.flatten().tolist() == ids[: batch_size * rows].tolist()
    assert torch.equal(xs[1:], ys[:-1])
    assert xs.dtype == ys.dtype == torch.int64
    assert [start for start, _, _ in windows] == list(range(0, rows - 1, length))


@given(sizes=sizes)
def test_columns_are_stretches_of_the_text(sizes: tuple[int, int, int, int]) -> None:
    batch_size, rows, extra, _ = sizes
    ids = np.arange(batch_size * rows + extra % batch_size)
    columns = batchify(ids, batch_size)
    assert columns.shape == (rows, batch_size)
    for b in range(batch_size):
        assert columns[:, b].tolist() == list(range(b * rows, (b + 1) * rows))


def test_shards_are_the_columns_in_order() -> None:
    whole = Stream(CODES, 4).window(1, 3)
    parts = [Stream(CODES, 4).shard(rank, 2).window(1, 3) for rank in range(2)]
    for both, left, right in zip(whole, *parts, strict=True):
        assert torch.equal(both, torch.cat([left, right], dim=1))
    with pytest.raises(OptionError, match="share equally"):
        Stream(CODES, 4).shard(0, 3)
    with pytest.raises(OptionError, match="rank"):
        Stream(CODES, 4).shard(2, 2)


def test_x_and_y_share_no_memory() -> None:
    x, y = Stream(CODES, 4).window(0, 3)
    before = y.clone()
    x.zero_()
    assert torch.equal(y, before)


def test_a_memory_map_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "ids.bin"
    np.arange(1000, dtype="<u2").tofile(path)
    ids = np.memmap(path, dtype="<u2", mode="r")
    columns = batchify(ids, 4)
    assert np.shares_memory(columns, ids)
    x, _ = Stream(ids, 4).window(10, 2)
    assert x.tolist() == [[10, 260, 510, 760], [11, 261, 511, 761]]


def test_too_little_data() -> None:
    with pytest.raises(DataError, match=r"at least 40 tokens .* found 26: .*--batch-size"):
        Stream(CODES, 20)
    with pytest.raises(DataError, match="found 0"):
        batchify(CODES[:0], 1)
    with pytest.raises(DataError, match="one row"):
        batchify(CODES.reshape(2, 13), 1)


def test_options() -> None:
    with pytest.raises(OptionError, match="batch size"):
        Stream(CODES, 0)
    stream = Stream(CODES, 4)
    for start in (-1, 5):
        with pytest.raises(OptionError, match="start from 0 to 4"):
            stream.window(start, 1)
    with pytest.raises(OptionError, match="at least 1 step"):
        stream.window(0, 0)
    with pytest.raises(OptionError, match="at least 1 step"):
        picture(ALPHABET, 4, 0)
