"""Indices as plain data."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from gatewise.errors import DataError, OptionError
from gatewise.places import as_places, contains, count, dump, listed, load, order

indices = st.one_of(
    st.none(),
    st.integers(0, 20),
    st.lists(st.integers(0, 20), max_size=6, unique=True),
    st.builds(range, st.integers(0, 9), st.integers(0, 20), st.integers(1, 4)),
    st.builds(slice, st.none() | st.integers(0, 9), st.none() | st.integers(0, 20), st.integers(1, 4)),
)  # fmt: skip


def _selected(index: Any, size: int) -> list[int]:
    """What Python itself selects."""
    if index is None:
        return list(range(size))
    if isinstance(index, slice):
        return list(range(size))[index]
    return [index] if isinstance(index, int) else list(index)


@given(indices, st.sampled_from(["time", "units"]))
def test_an_index_selects_what_python_would(index: Any, name: str) -> None:
    places = as_places(name, index)
    expected = _selected(index, 21)
    assert listed(name, places, 21) == expected
    assert [k for k in range(21) if contains(places, k)] == sorted(expected)
    assert [order(places, k) for k in expected] == list(range(len(expected)))
    if count(places) is not None:
        assert count(places) == len(_selected(index, 1000))


@given(indices)
def test_an_index_survives_json(index: Any) -> None:
    places = as_places("units", index)
    assert load("units", dump(places)) == places


@pytest.mark.parametrize(
    "mask",
    [
        [False, True, True],
        torch.tensor([False, True, True]),
        np.array([False, True, True]),
        (False, True, True),
    ],
)
def test_masks(mask: Any) -> None:
    assert as_places("units", mask) == (1, 2)


@pytest.mark.parametrize("number", [2, np.int64(2), torch.tensor(2), torch.tensor([2]), [2]])
def test_numbers_of_every_kind(number: Any) -> None:
    assert as_places("units", number) == (2,)
    assert as_places("units", slice(np.int64(2), None)) == slice(2, None)


def test_a_long_range_of_times_is_not_a_long_list() -> None:
    assert as_places("time", range(10, 1_000_000, 3)) == slice(10, 1_000_000, 3)
    assert as_places("time", range(5, 5)) == slice(5, 5, 1)
    assert as_places("units", range(3)) == (0, 1, 2)  # whose end is checked
    assert as_places("time", range(3, -1, -1)) == (3, 2, 1, 0)


@pytest.mark.parametrize(
    "index",
    [
        *(-1, [0, -2], 1.5, [1.5], "12", b"12", True, [True, 2], [[0]], {"a": 1}, object(), [2, 2]),
        *(slice(-1, None), slice(None, None, 0), slice(0, 1.5), slice("a"), torch.zeros(2, 2)),
    ],
    # an object's own repr holds its address, and each process must collect the same names
    ids=lambda index: "object()" if type(index) is object else repr(index),
)
def test_what_is_no_index(index: Any) -> None:
    with pytest.raises(OptionError, match=r"^units= ") as caught:
        as_places("units", index)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", ["3", True, {"slice": [0]}, {"slice": 3}, {}, [0.5], -1, ["a"]])
def test_what_is_no_stored_index(data: Any) -> None:
    with pytest.raises(DataError, match=r"units"):
        load("units", data)


def test_out_of_range() -> None:
    with pytest.raises(OptionError, match=r"units= is out of range: expected below 3, found 3"):
        listed("units", (0, 3), 3)
