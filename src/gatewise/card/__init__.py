"""An NVIDIA card without a toolkit: CUDA C to machine code, its launches, and the masks that are drawn there."""

from gatewise.card.driver import Driver, Launch
from gatewise.card.platform import Card, Platform

__all__ = ["Card", "Driver", "Launch", "Platform"]
