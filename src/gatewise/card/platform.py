"""Where kernels for a card run: on an NVIDIA card, or on what stands in for one. Knows no kernel."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Protocol

import torch

from gatewise.card.driver import Driver, compile_text, driver, nvrtc


class Platform(Protocol):
    """Where kernels run: a card, or what stands in for one in a test."""

    device: str
    """The type of torch device whose tensors it reads."""

    def available(self) -> str | None:
        """None if it can run on this machine, else why not."""

    def compile(self, text: str, device: torch.device) -> bytes:
        """What `driver` can load."""

    def driver(self) -> Driver:
        """What loads and launches."""

    def stream(self, device: torch.device) -> int:
        """The queue in which torch works on the device."""

    def here(self, device: torch.device) -> AbstractContextManager[object]:
        """Makes the device the current one."""

    def together(self, device: torch.device) -> int:
        """How many blocks can wait for each other and use its tensor cores; 0: none."""

    def __hash__(self) -> int:
        """Kernels are kept by where they run."""


class Card:
    """An NVIDIA card, through NVRTC and the CUDA driver."""

    device = "cuda"

    @staticmethod
    @cache
    def _available() -> str | None:
        if torch.version.hip is not None or torch.version.cuda is None:
            return "this torch is not built for CUDA"
        if not torch.cuda.is_available():
            return "there is no CUDA device"
        return None if nvrtc() is not None else "NVRTC, which compiles for the card, was not found"

    def available(self) -> str | None:
        """None if torch is built for CUDA, and there are a card and NVRTC; else what is missing."""
        return self._available()

    def compile(self, text: str, device: torch.device) -> bytes:
        """Machine code by NVRTC."""
        return compile_text(text, torch.cuda.get_device_capability(device))

    def driver(self) -> Driver:
        """The CUDA driver."""
        return driver()

    def stream(self, device: torch.device) -> int:
        """torch's current stream."""
        return int(torch.cuda.current_stream(device).cuda_stream)

    def here(self, device: torch.device) -> AbstractContextManager[object]:
        """A block in which the card is torch's current one."""
        return torch.cuda.device(device)

    def together(self, device: torch.device) -> int:
        """Its multiprocessors, where they have tensor cores for bfloat16."""
        if torch.cuda.get_device_capability(device) < (8, 0):
            return 0
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
