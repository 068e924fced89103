"""The highest memory of a process."""

from __future__ import annotations

import pytest
import torch

from gatewise.bench import alone, peak
from gatewise.bench.sizes import Size
from gatewise.errors import FailedError


def test_memory_that_is_held_and_that_was() -> None:
    before, most = peak.held(), peak.high_water()
    assert 0 < before <= most
    large = torch.ones(1 << 26, dtype=torch.uint8)
    assert peak.high_water() >= before + (1 << 25)
    assert large.sum() == 1 << 26


def test_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_status", lambda name: 0)
    assert peak.high_water() > 10 << 20
    assert peak.held() == peak.high_water()


def test_in_this_process() -> None:
    found = peak._alone("torch", "gru", "3", "2", "4", "1", "1")
    assert found["total"] >= found["before"] > 0
    assert found["seconds"] > 0


@pytest.mark.slow  # a process that imports torch
def test_in_its_own_process() -> None:
    found, seconds = peak.measure("gatewise-gates", "lstm", Size(3, 2, 4, 1), 1)
    assert found.total >= found.before > 0
    assert found.added == found.total - found.before
    assert seconds > 0


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(FailedError, match="no_such_module"):
        alone.in_process("no_such_module", [])
