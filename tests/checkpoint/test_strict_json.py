"""JSON with limits: everything that Python's reader lets through and this one does not."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.checkpoint import strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


@given(VALUES)
def test_round_trip(value: Any) -> None:
    encoded = strict_json.encode_floats({"x": value})
    assert strict_json.decode_floats(strict_json.loads(strict_json.dumps(encoded))) == {"x": value}


def test_nan_in_a_state() -> None:
    encoded = strict_json.encode_floats({"x": [math.nan, (math.inf, -math.inf)]})
    decoded = strict_json.decode_floats(strict_json.loads(strict_json.dumps(encoded)))
    assert math.isnan(decoded["x"][0])
    assert decoded["x"][1] == [math.inf, -math.inf]
    with pytest.raises(strict_json.JsonError, match="expected nan"):
        strict_json.decode_floats({"$float": "1; import os"})


@given(st.data())
def test_every_truncation_is_noticed(data: st.DataObject) -> None:
    text = strict_json.dumps({"x": data.draw(VALUES)})
    size = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(strict_json.JsonError):
        strict_json.loads(text[:size])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"NaN", "NaN"),
        (b"-Infinity", "Infinity"),
        (b"1e999", "too large"),
        (b'{"a":1,"a":2}', "stands twice"),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b"[" * 10**6, "deeper than 64"),
        (b"1" * 101, "101 digits"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"", "not JSON"),
        (b"{} x", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
    ],
)
def test_refused(text: bytes, match: str) -> None:
    with pytest.raises(strict_json.JsonError, match=match) as caught:
        strict_json.loads(text)
    assert "\n" not in str(caught.value)


def test_deep_values_are_not_written() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(strict_json.JsonError, match="deeper"):
        strict_json.dumps(value)
