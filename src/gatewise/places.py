"""Which units, times, columns or layers are meant: an index as plain, checked data."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable
from typing import Any, TypeAlias

from gatewise.errors import DataError, OptionError
from gatewise.types import Index

Places: TypeAlias = "slice | tuple[int, ...] | None"
"""None is everything; a tuple holds places from 0."""


def as_places(name: str, index: Index | None) -> Places:
    """An index in its one stored form: None (everything), a slice, or a tuple of places.

    Raises:
        OptionError: if it is not an index of places counted from 0, each named once.
    """
    if index is None:
        return None
    if name == "time" and isinstance(index, range) and index.step > 0 and index.start >= 0:
        # Times have no end to check, and a long tuple would be searched at every step.
        index = slice(index.start, max(index.stop, 0), index.step)
    if isinstance(index, slice):
        return _checked_slice(name, index)
    places = tuple(_numbers(name, index))
    if any(i < 0 for i in places):
        raise OptionError(f"{name}= counts from 0: found {min(places)}")
    if len(set(places)) != len(places):
        twice = next(i for i in places if places.count(i) > 1)
        raise OptionError(f"{name}= names each place once: found {twice} twice")
    return places


def _numbers(name: str, index: Any) -> list[int]:
    """The places in a number, a list of them, or a mask (list, tensor or array of bools)."""
    given = index.tolist() if hasattr(index, "tolist") else index
    try:
        if not isinstance(given, str | bytes | Iterable):
            return [_place(given)]
        if isinstance(given, str | bytes):
            raise TypeError
        items = list(given)
        if items and all(isinstance(i, bool) for i in items):
            return [k for k, selected in enumerate(items) if selected]
        return [_place(i) for i in items]
    except TypeError:
        raise OptionError(
            f"{name}= should be a number, a slice, a list of numbers or a mask; "
            f"found {reprlib.repr(given)}"
        ) from None


def _place(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("a bool among numbers")
    return operator.index(value)


def _checked_slice(name: str, index: slice) -> slice:
    try:
        start, stop, step = (
            None if part is None else _place(part) for part in (index.start, index.stop, index.step)
        )
    except TypeError:
        raise OptionError(f"{name}= takes a slice of whole numbers: found {index}") from None
    if any(part is not None and part < 0 for part in (start, stop, step)):
        raise OptionError(f"{name}= counts from 0, in steps of 1 or more: found {index}")
    if step == 0:
        raise OptionError(f"{name}= counts in steps of 1 or more: found {index}")
    return slice(start, stop, step)


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


def count(index: Places) -> int | None:
    """How many places are selected; None where that depends on how many there are."""
    if isinstance(index, tuple):
        return len(index)
    if index is None or index.stop is None:
        return None
    return len(range(index.start or 0, index.stop, index.step or 1))


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
    try:
        return _load(name, data)
    except OptionError as error:
        raise DataError(str(error)) from None


def _load(name: str, data: Any) -> Places:
    if isinstance(data, dict):
        parts = data.get("slice")
        if set(data) != {"slice"} or not isinstance(parts, list) or len(parts) != 3:
            raise DataError(f'{name}: expected {{"slice": [start, stop, step]}}, found {data!r}')
        return as_places(name, slice(*parts))
    if data is not None and (isinstance(data, bool) or not isinstance(data, int | list)):
        raise DataError(f"{name}: expected null, a number, a list or a slice, found {data!r}")
    return as_places(name, data)
