"""Keeping freed memory: it says whether it could, and does no harm where it is called twice."""

from __future__ import annotations

import subprocess
import sys


def test_it_can_be_called_in_any_process() -> None:
    code = "from gatewise.train import keep_freed_memory as k; a = k(); assert k() == a; print(a)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("True", "False")
