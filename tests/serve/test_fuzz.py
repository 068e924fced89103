"""schemathesis over the whole OpenAPI: no answer is an error of ours, and each is one that the document names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attacks
import pytest
from serve_fuzz import fuzz


def test_a_few_hundred_requests_of_every_kind(process: Any) -> None:
    statuses = fuzz(process, 6)
    assert not [status for status in statuses if status >= 500], statuses
    assert {200, 400} <= set(statuses)
    assert process.popen.poll() is None


@pytest.mark.slow
def test_twenty_thousand_requests_leave_the_memory_flat(
    start: Callable[..., Any], trained: Path
) -> None:
    process = start(trained)
    found = attacks.fuzzed(process)
    print(found)
    assert found.holds, str(found)
    assert process.popen.poll() is None
