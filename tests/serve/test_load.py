"""The large attacks, each at its full size; all of them slow. `python benchmarks/attacks.py` prints their figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attacks
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_an_attack(name: str, start: Callable[..., Any], trained: Path) -> None:
    server = start(trained)
    found = attacks.ATTACKS[name](server)
    print(found)
    assert found.holds, str(found)
    assert server.popen.poll() is None


def test_small_attacks_and_bounds(start: Callable[..., Any], trained: Path) -> None:
    server = start(trained)
    for found in (attacks.disconnects(server, 20, 4), attacks.idle(server, 5, 200)):
        assert found.holds, str(found)
    bound = attacks.Bound("a", 2.0, most=1.0)
    assert not bound.holds
    assert str(bound) == "a 2 (at most 1) BROKEN"
    assert not attacks.Bound("a", 2.0, least=3.0).holds
    assert attacks.Bound("a", 2.0).holds
