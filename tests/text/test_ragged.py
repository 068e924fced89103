"""Sequences of unequal lengths: what goes in comes out, padded or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import DataError, ShapeError
from gatewise.text.batches import PADDING, shifted
from gatewise.text.ragged import Ragged, lengths_of

sequences = st.lists(st.lists(st.integers(0, 99), max_size=7), min_size=1, max_size=8)


@given(sequences, st.data())
def test_sequences_come_out_as_they_went_in(found: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged.of([np.array(one, np.int64) for one in found])
    assert [one.tolist() for one in ragged] == found
    assert ragged.lengths.tolist() == [len(one) for one in found]
    rows = data.draw(st.lists(st.integers(0, len(found) - 1), min_size=1))
    batch = ragged.padded(rows, fill=-1)
    for column, row in enumerate(rows):
        assert batch[: len(found[row]), column].tolist() == found[row]
        assert (batch[len(found[row]) :, column] == -1).all()
    assert lengths_of(ragged, rows).tolist() == [len(found[row]) for row in rows]
    assert [one.tolist() for one in ragged.take(rows)] == [found[row] for row in rows]


@given(sequences)
def test_each_target_is_the_token_that_follows(found: list[list[int]]) -> None:
    ragged = Ragged.of([np.array(one, np.int64) for one in found])
    x, y, lengths = shifted(ragged, range(len(found)), begin=100, end=101)
    assert x.shape == y.shape == (max(map(len, found)) + 1, len(found))
    for column, one in enumerate(found):
        assert x[: len(one) + 1, column].tolist() == [100, *one]
        assert y[: len(one) + 1, column].tolist() == [*one, 101]
        assert (y[len(one) + 1 :, column] == PADDING).all()
        assert lengths[column] == len(one) + 1
    assert x.dtype == y.dtype == torch.int64


def test_numbers_of_many_channels() -> None:
    ragged = Ragged.of(
        [np.ones((2, 3), np.float32), np.zeros((0, 3)), 2 * np.ones((1, 3))], np.float32
    )
    assert ragged.padded([0, 1, 2], fill=np.nan).shape == (2, 3, 3)
    assert ragged.padded([1]).shape == (0, 1, 3)
    assert Ragged.of([np.zeros((0, 3))] * 2).padded([0, 1]).shape == (0, 2, 3)
    assert ragged[-1].tolist() == [[2, 2, 2]]
    with pytest.raises(ShapeError, match="differ in length alone"):
        Ragged.of([np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(DataError, match="at least one"):
        ragged.padded([])
    with pytest.raises(IndexError):
        ragged[3]
