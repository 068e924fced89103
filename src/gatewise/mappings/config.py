"""Options that check themselves, and configs that go through JSON: what all mappings' options share."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Collection, Mapping
from types import UnionType
from typing import Any, TypeVar

from gatewise.cells import REGISTRY
from gatewise.errors import OptionError, unknown

MAX_SIZE = 1 << 20
MAX_LAYERS = 256

T = TypeVar("T")


def flag(name: str) -> str:
    """The option `batch_size` as it is written on the command line."""
    return "--" + name.replace("_", "-")


def check_choice(name: str, found: object, valid: Collection[str]) -> None:
    """Raise OptionError unless the option is one of some words."""
    if found not in valid:
        raise OptionError(f"{flag(name)}: expected one of {', '.join(valid)}, found {found!r}")


def check_size(name: str, found: object, largest: int = MAX_SIZE, least: int = 1) -> None:
    """Raise OptionError unless the option is a whole number in a range."""
    whole = isinstance(found, int) and not isinstance(found, bool)
    if not (whole and least <= found <= largest):  # type: ignore[operator]
        raise OptionError(
            f"{flag(name)}: expected a whole number from {least} to {largest:,}, found {found}"
        )


def check_rate(name: str, found: float | None) -> None:
    """Raise OptionError unless the option is a share from 0 to below 1, or not given."""
    if found is not None and not 0 <= found < 1:
        raise OptionError(
            f"{flag(name)}: expected a share of at least 0 and below 1, found {found}"
        )


def check_cell(cell: str, forget_bias: float | None) -> None:
    """Raise unless there is that cell, and a forget gate where its bias is asked for.

    Raises:
        UnknownNameError: there is no such cell.
        OptionError: it has no forget gate, or the bias is no number.
    """
    if cell not in REGISTRY:
        raise unknown("cell", cell, REGISTRY)
    if forget_bias is None:
        return
    if "f" not in REGISTRY[cell].law.pre:
        raise OptionError(f"--forget-bias: the cell {cell} has no forget gate; leave it out")
    if not math.isfinite(forget_bias):
        raise OptionError(f"--forget-bias: expected a number, found {forget_bias}")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain values: numbers, texts, lists."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def from_dict(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """The dataclass that `to_dict` wrote.

    Args:
        cls: a dataclass.
        values: by the names of its fields.
        what: it is, for messages.
    Raises:
        OptionError: a name, a type or a missing value that does not fit.
    """
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise unknown(f"{what} option", name, fields)
    known = {name: _typed(name, value, hints[name]) for name, value in values.items()}
    for name, field in fields.items():
        missing = field.default is dataclasses.MISSING and name not in known
        if missing and field.default_factory is dataclasses.MISSING:
            raise OptionError(f"{what} config: expected a value of {name}, found none")
    made: T = cls(**known)
    return made


def _typed(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type that a field has."""
    choices = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
    for kind in choices:
        if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
            item = typing.get_args(kind)[0]
            return tuple(_typed(name, each, item) for each in value)
        if kind is type(None) and value is None:
            return None
        if kind is float and type(value) in (int, float):
            return float(value)
        if type(value) is kind:
            return value
    raise OptionError(f"{flag(name)}: expected {hint}, found {value!r}")
