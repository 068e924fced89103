"""Option dataclasses as flags: which of them were given, with the dataclass's own help and defaults.

The training options live where they are used, as dataclasses whose fields are documented in the
source. `flags_of` makes from such a class another whose fields are all None unless given, so that
what stands on the command line can be told from a default, and put over a file or a preset.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any

from cyclopts import Group, Parameter

from gatewise.errors import OptionError

Json = Annotated[
    bool,
    Parameter(
        name="--json",
        negative="",
        show_default=False,
        help="One JSON document on standard output; all else goes to standard error.",
    ),
]
Engine = Annotated[
    str,
    Parameter(
        name="--engine",
        help="Engine of the recurrent layers; `gatewise info` lists them. auto: the quickest.",
    ),
]


def field_help(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass, by name; those of its bases too."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = after.value if isinstance(after, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found[node.target.id] = " ".join(text.value.split())
    return found


def flags_of(
    cls: type, group: str, order: int, module: str, defaults: Mapping[str, Any] | None = None
) -> type:
    """A dataclass with the fields of `cls`, each None unless given on the command line.

    Args:
        cls: a dataclass whose fields are of str, int, float, bool, tuples of them, or None.
        group: heading in the help.
        order: of that heading among the others.
        module: name of the module that holds the result.
        defaults: what the help shows in place of the fields' own, by name.
    """
    help_of, kinds = field_help(cls), typing.get_type_hints(cls)
    panel = Group(group, sort_key=order)
    fields = []
    for field in dataclasses.fields(cls):
        kind, item = plain_kind(kinds[field.name])
        about = Parameter(
            help=help_of[field.name],
            group=panel,
            show_default=_said(shown((defaults or {}).get(field.name, field.default))),
            converter=_list_converter(item) if item else None,
            n_tokens=1 if item else None,
        )
        fields.append((field.name, Annotated[kind | None, about], None))
    made = dataclasses.make_dataclass(f"{cls.__name__}Flags", fields, kw_only=True, frozen=True)
    made.__module__ = module
    return made


def plain_kind(hint: Any) -> tuple[Any, type | None]:
    """(the type without None, the type of its items if it is a tuple)."""
    if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(part for part in typing.get_args(hint) if part is not NoneType)
    if typing.get_origin(hint) is tuple:
        return hint, typing.get_args(hint)[0]
    return hint, None


def given(flags: Sequence[object]) -> dict[str, Any]:
    """The values that were given, by the name of their field."""
    values: dict[str, Any] = {}
    for part in flags:
        assert dataclasses.is_dataclass(part)
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if value is not None:
                values[field.name] = value
    return values


def check_value(name: str, value: Any, hint: Any, where: str) -> Any:
    """`value` of a file as the type that the option has.

    Raises:
        OptionError: if it is of another type.
    """
    kind, item = plain_kind(hint)
    if item is not None:
        if not isinstance(value, list):
            raise OptionError(f"{where}: {name}: expected a list, found {value!r}")
        return tuple(check_value(name, each, item, where) for each in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise OptionError(f"{where}: {name}: expected {_WORDS[kind]}, found {value!r}")
    return value


_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def shown(value: Any) -> str:
    """A default as the help shows it; empty where there is none to show."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(str(each) for each in value)
    return str(value)


def _said(text: str) -> Callable[[Any], str] | bool:
    return (lambda _: text) if text else False


def _list_converter(item: type) -> Callable[..., Any]:
    """Numbers with commas between them: an option must not take what follows it."""

    def convert(kind: Any, tokens: Sequence[Any]) -> tuple[Any, ...]:
        parts = [part.strip() for token in tokens for part in token.value.split(",")]
        try:
            return tuple(item(part) for part in parts if part)
        except ValueError:
            raise ValueError(
                f"expected numbers with commas between them, found {tokens[-1].value!r}"
            ) from None

    return convert


def with_flag_names(error: OptionError, names: Mapping[str, Any] | Sequence[str]) -> OptionError:
    """An error about the option `top_k` as one about the flag `--top-k`."""
    text = str(error)
    for name in names:
        if text.startswith(f"{name}:"):
            return OptionError(f"--{name.replace('_', '-')}{text[len(name) :]}")
    return error
