"""JSON for files that others may have written: sizes, depth, numbers and duplicates are limited.

Knows nothing of checkpoints. Python's own reader accepts NaN, duplicate keys and integers of any
length; here each is an error, so that what is read can be written again with the same meaning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 64
MAX_DIGITS = 100  # numpy's generators hold 128-bit integers: 39 digits
_FLOAT = "$float"


class JsonError(ValueError):
    """The text is not JSON within the limits; the message says why, in one line."""


def loads(data: bytes) -> Any:
    """The value of `data`, UTF-8 JSON.

    Raises:
        JsonError: not UTF-8, not JSON, NaN or an infinity, a duplicate key, nested deeper than
            MAX_DEPTH, or an integer of more than MAX_DIGITS digits.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short_integer,
        )
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise JsonError(f"nested deeper than {MAX_DEPTH}") from None
    _check_depth(value, MAX_DEPTH)
    return value


def loads_object(data: bytes) -> dict[str, Any]:
    """As `loads`, where a JSON object is expected."""
    value = loads(data)
    if not isinstance(value, dict):
        raise JsonError(f"expected a JSON object, found {type(value).__name__}")
    return value


def dumps(value: object, *, indent: int | None = 1) -> bytes:
    """`value` as UTF-8 JSON without a final newline, so that every truncation can be noticed.

    Raises:
        JsonError: a value that JSON cannot hold, a non-finite number, or keys that are not strings.
    """
    _check_keys(value, MAX_DEPTH)
    try:
        text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=True)
    except (TypeError, ValueError) as error:
        raise JsonError(str(error)) from None
    return text.encode("ascii")


def encode_floats(value: Any) -> Any:
    """`value` with every NaN and infinity as {"$float": "inf"}, which JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    if isinstance(value, Mapping):
        return {key: encode_floats(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode_floats(part) for part in value]
    return value


def decode_floats(value: Any) -> Any:
    """What `encode_floats` was given, tuples as lists.

    Raises:
        JsonError: a {"$float": ...} that holds anything but nan, inf or -inf.
    """
    if isinstance(value, dict):
        if set(value) == {_FLOAT}:
            if value[_FLOAT] not in ("nan", "inf", "-inf"):
                raise JsonError(f"expected nan, inf or -inf, found {str(value[_FLOAT])[:40]!r}")
            return float(value[_FLOAT])
        return {key: decode_floats(part) for key, part in value.items()}
    if isinstance(value, list):
        return [decode_floats(part) for part in value]
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonError(f"the key {key[:80]!r} stands twice")
            seen.add(key)
    return found


def _refuse_constant(name: str) -> Any:
    raise JsonError(f"{name} is not a number that JSON can hold")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonError(f"the number {text[:20]} is too large")
    return number


def _short_integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise JsonError(f"an integer of {len(text)} digits")
    return int(text)


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, (dict, list)):
        return
    if left == 0:
        raise JsonError(f"nested deeper than {MAX_DEPTH}")
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, (dict, list)):
            _check_depth(part, left - 1)


def _check_keys(value: Any, left: int) -> None:
    if left < 0:
        raise JsonError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str):
                raise JsonError(f"expected strings as keys, found {key!r}")
            _check_keys(part, left - 1)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _check_keys(part, left - 1)
