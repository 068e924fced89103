"""What a contestant is: a name, the dtype it computes in, and a function that enters it for a task.

A new one is a function and a line in the table of its kind (`training.CONTESTANTS`, ...). The function raises
`Excluded` with the reason where it cannot take part; the reason is shown in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from gatewise.errors import unknown

Task = TypeVar("Task")
Entry = TypeVar("Entry")


class Excluded(Exception):
    """A contestant cannot take part; says why."""


@dataclass(frozen=True)
class Contestant(Generic[Task, Entry]):
    """One of those that take turns.

    Args:
        label: as people read it.
        dtype: of its products.
        enter: makes it ready for a task.
        ours: it is gatewise, whose results must be right: a peer that errs is left out.
    """

    label: str
    dtype: str
    enter: Callable[[Task], Entry]
    ours: bool = False


def select(
    known: Mapping[str, Contestant[Task, Entry]], names: Iterable[str], always: str
) -> dict[str, Contestant[Task, Entry]]:
    """The contestants of some names, `always` among them; all of them for no name.

    Raises:
        UnknownNameError: if there is none of a name.
    """
    asked = set(names)
    for name in sorted(asked):
        if name not in known:
            raise unknown("contestant", name, known)
    return {n: c for n, c in known.items() if not asked or n in asked or n == always}
