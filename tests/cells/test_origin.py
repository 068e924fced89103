"""A mistake in a user's equations is said with its line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import gatewise as gw
from gatewise.cells import Cell, Law
from gatewise.errors import OptionError, UnknownNameError, UsageError


def helper(value: Any) -> Any:
    return value if value > 0 else -value


def branches(a: Any, s: Any) -> Any:
    z = gw.sigmoid(a.z)
    if z > 0.5:  # here
        z = z * 2
    return {"h": z * s.h}, {"z": z}


def compares(a: Any, s: Any) -> Any:
    z = gw.where(a.z == 0, 1, a.z)  # here
    return {"h": z * s.h}, {}


def foreign(a: Any, s: Any) -> Any:
    return {"h": gw.tanh("a.z")}, {}  # here


def in_a_helper(a: Any, s: Any) -> Any:
    return {"h": helper(a.z)}, {}


def unused(a: Any, s: Any) -> Any:
    z, q = gw.sigmoid(a.z), gw.sigmoid(a.q)
    return {"h": z * s.h}, {"z": z, "q": q}  # here


def missing(a: Any, s: Any) -> Any:
    return {"h": a.z * s.c}, {}  # here


MISTAKES: dict[Callable[..., Any], str] = {
    branches: "if z > 0.5:  # here",
    compares: "z = gw.where(a.z == 0, 1, a.z)  # here",
    foreign: 'return {"h": gw.tanh("a.z")}, {}  # here',
    in_a_helper: "return value if value > 0 else -value",
    unused: 'return {"h": z * s.h}, {"z": z, "q": q}  # here',
    missing: 'return {"h": a.z * s.c}, {}  # here',
}


@pytest.mark.parametrize("function", MISTAKES, ids=lambda f: f.__name__)
def test_the_line_of_the_mistake(function: Any) -> None:
    with pytest.raises(OptionError) as caught:
        gw.cell(function)
    message, _, where = str(caught.value).rpartition("; at test_origin.py:")
    number, _, text = where.partition(": ")
    assert text == MISTAKES[function]
    with open(__file__) as file:
        assert file.read().splitlines()[int(number) - 1].strip() == text
    assert message
    assert "; at " not in message  # once


def test_the_line_of_a_law_s_mistake() -> None:
    def equations(a: Any, s: Any) -> Any:
        return {"h": gw.tanh(a.q)}, {}

    class Mistaken(Cell):
        law = Law("mistaken", equations, ("p",), {"h": 0.0})

    with pytest.raises(UnknownNameError, match=r'; at test_origin.py:\d+: return {"h": gw.tanh'):
        gw.unroll(Mistaken(1, 2), __import__("torch").zeros(1, 1, 1))


def test_without_a_source() -> None:
    space: dict[str, Any] = {"gw": gw}
    exec("def cell(a, s):\n    return {'h': a.z * s.c}, {}", space)
    with pytest.raises(UsageError, match=r"; at <string>:1$"):
        gw.cell(space["cell"])
