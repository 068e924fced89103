"""Which units, times, columns or layers are meant: an index as plain, checked data."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError
from gatewise.types import Index

Places: TypeAlias = "slice | tuple[int, ...] | None"
"""None is everything; a tuple holds places from 0."""


def as_places(name: str, index: Index | None) -> Places:
    """An index in its one stored form: None (everything), a slice, or a tuple of places."""
    if index is None:
        return None
    if isinstance(index, slice):
        return _checked_slice(name, index)
    if isinstance(index, Tensor):
        index = (index.nonzero().flatten() if index.dtype == torch.bool else index).tolist()
    if isinstance(index, int) and not isinstance(index, bool):
        index = [index]
    try:
        places = tuple(int(i) for i in index)  # type: ignore[union-attr]
    except TypeError:
        raise OptionError(
            f"{name}= should be a number, a slice, a list of numbers or a mask; found {index!r}"
        ) from None
    if any(i < 0 for i in places):
        raise OptionError(f"{name}= counts from 0: found {min(places)}; a sequence may go on")
    return places


def _checked_slice(name: str, index: slice) -> slice:
    for part in (index.start, index.stop, index.step):
        if part is not None and (not isinstance(part, int) or part < 0):
            raise OptionError(f"{name}= counts from 0, in steps of 1 or more: found {index}")
    if index.step == 0:
        raise OptionError(f"{name}= counts in steps of 1 or more: found {index}")
    return index


def contains(index: Places, place: int) -> bool:
    """Whether `place` is selected."""
    if index is None:
        return True
    if isinstance(index, tuple):
        return place in index
    start, step = index.start or 0, index.step or 1
    return (
        place >= start
        and (index.stop is None or place < index.stop)
        and (place - start) % step == 0
    )


def order(index: Places, place: int) -> int:
    """How many selected places come before `place`."""
    if index is None:
        return place
    if isinstance(index, tuple):
        return index.index(place)
    return (place - (index.start or 0)) // (index.step or 1)


def listed(name: str, index: Places, size: int) -> list[int]:
    """The selected places among `size`."""
    if index is None:
        return list(range(size))
    if isinstance(index, slice):
        return list(range(size))[index]
    if index and max(index) >= size:
        raise OptionError(f"{name}= is out of range: expected below {size}, found {max(index)}")
    return list(index)


def dump(index: Places) -> Any:
    """`index` as JSON-able data."""
    if isinstance(index, slice):
        return {"slice": [index.start, index.stop, index.step]}
    return None if index is None else list(index)


def load(name: str, data: Any) -> Places:
    """The index that `dump` wrote; DataError if it is something else."""
    if isinstance(data, dict):
        parts = data.get("slice")
        if set(data) != {"slice"} or not isinstance(parts, list) or len(parts) != 3:
            raise DataError(f'{name}: expected {{"slice": [start, stop, step]}}, found {data!r}')
        return as_places(name, slice(*parts))
    if data is not None and not isinstance(data, int | list):
        raise DataError(f"{name}: expected null, a number, a list or a slice, found {data!r}")
    return as_places(name, data)
