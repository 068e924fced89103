"""Where a training option's value comes from: the command line, then --config, then --preset, then
the option's own default. With --resume the run itself takes the preset's place.

Limits (--epochs, --minutes, --steps) go together: the first of these that sets one replaces those of
all below it, so that `--epochs 3` is not cut short by a preset's minutes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gatewise.cli.options import check_value
from gatewise.errors import DataError, OptionError, unknown
from gatewise.presets import get_preset

LIMITS = ("epochs", "minutes", "steps")


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all layers, the later ones over the earlier ones."""
    values: dict[str, Any] = {}
    for layer in layers:
        if any(layer.get(name) is not None for name in LIMITS):
            values = {name: value for name, value in values.items() if name not in LIMITS}
        values |= layer
    return values


_OF_SCHEDULE = ("min_lr", "decay", "decay_every")
"""What belongs to one schedule and not to another."""


def fitted(
    values: Mapping[str, Any], asked: Mapping[str, Any], preset: Mapping[str, Any]
) -> dict[str, Any]:
    """`values` without what a preset sets and does not fit what was asked for.

    The warm-up is cut to half of a short run; a forget bias is left out for a cell that has no such gate, and what
    belongs to the preset's schedule where another was asked for.
    """
    found = dict(values)
    steps, warmup = values.get("steps"), values.get("warmup")
    if "warmup" not in asked and isinstance(steps, int) and isinstance(warmup, int):
        found["warmup"] = min(warmup, max(0, steps // 2))
    if asked.get("schedule", preset.get("schedule")) != preset.get("schedule"):
        for name in _OF_SCHEDULE:
            if name not in asked:
                found.pop(name, None)
    if "forget_bias" not in asked and "cell" in asked and "forget_bias" in values:
        from gatewise.cells import REGISTRY

        cell = REGISTRY.get(asked["cell"])
        if cell is not None and "f" not in cell.law.pre:
            del found["forget_bias"]
    return found


def preset_values(name: str, mapping: str) -> dict[str, Any]:
    """The values of a preset.

    Raises:
        UnknownNameError: if there is none of that name.
        OptionError: if it is for another mapping.
    """
    preset = get_preset(name)
    if preset.mapping != mapping:
        raise OptionError(
            f"--preset: expected one for {mapping}, found {name!r} for {preset.mapping}"
        )
    return dict(preset.values)


def read_config(path: Path, kinds: Sequence[type]) -> tuple[dict[str, Any], str | None]:
    """The options in a file, and the preset that it names.

    Args:
        path: a .toml (Python 3.11 or later) or .json file: one table of options, named as the
            flags are, with - or _.
        kinds: the option dataclasses.
    Raises:
        DataError: if the file cannot be read.
        UnknownNameError: if a name in it is no option.
        OptionError: if a value is of another type than its option.
    """
    table = {name.replace("-", "_"): value for name, value in _read_table(path).items()}
    preset = table.pop("preset", None)
    if preset is not None and not isinstance(preset, str):
        raise OptionError(f"{path}: preset: expected a name, found {preset!r}")
    hints = {
        field.name: typing.get_type_hints(kind)[field.name]
        for kind in kinds
        for field in dataclasses.fields(kind)
    }
    for name in table:
        if name not in hints:
            error = unknown("option", name, [*hints, "preset"])
            raise type(error)(f"{path}: {error}")
    values = {
        name: check_value(name, value, hints[name], str(path))
        for name, value in table.items()
        if value is not None
    }
    return values, preset


def _read_table(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8, found another byte at {error.start}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read --config: {error.strerror}") from None
    table = _parse(path, text)
    if not isinstance(table, dict):
        raise DataError(f"{path}: expected a table of options, found {type(table).__name__}")
    return table


def _parse(path: Path, text: str) -> Any:
    kind = path.suffix.lower()
    if kind not in (".toml", ".json"):
        raise DataError(f"{path}: expected a file whose name ends in .toml or .json")
    if kind == ".toml" and sys.version_info < (3, 11):
        raise DataError(
            f"{path}: TOML needs Python 3.11, this is {sys.version_info[0]}.{sys.version_info[1]}: "
            "write the same options as .json"
        )
    try:
        return json.loads(text) if kind == ".json" else _toml(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid {kind[1:].upper()}: {error}") from None


def _toml(text: str) -> Any:
    import importlib

    return importlib.import_module("tomllib").loads(text)
