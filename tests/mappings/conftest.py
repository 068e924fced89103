"""One thread: nets this small only wait for a second one."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(_seeds: None) -> None:
    torch.set_num_threads(1)
