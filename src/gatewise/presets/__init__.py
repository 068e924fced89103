"""Named settings: plain values of options, each with where it comes from; a module for each mapping.

A preset is a starting point; an option given beside it wins. It knows no option class: whoever uses it
hands its values to the options that have those names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gatewise.errors import unknown
from gatewise.presets import caption, classify, execute, forecast, lm, tag, task, translate
from gatewise.presets.base import Preset

__all__ = ["PRESETS", "Preset", "get_preset"]

_MODULES = (lm, classify, tag, forecast, translate, execute, caption, task)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {preset.name: preset for module in _MODULES for preset in module.PRESETS}
)


def get_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]
