"""What a preset is: plain values of options, with where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A named setting.

    Attributes:
        name: on the command line.
        mapping: what it trains ("lm").
        summary: one line.
        source: where the values come from.
        values: option name -> value.
    """

    name: str
    mapping: str
    summary: str
    source: str
    values: Mapping[str, Any]


def preset(name: str, summary: str, source: str, mapping: str = "lm", **values: Any) -> Preset:
    """A preset of the values given by name."""
    return Preset(name, mapping, summary, source, MappingProxyType(values))


__all__ = ["Preset", "preset"]
