"""Record and Control for a model of several nets, such as an encoder and a decoder.

A path that begins with a part's name means that part alone (``encoder.layers.0.f``); any other name
means every part that has it (``f``, ``layers.0.f``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gatewise.errors import unknown
from gatewise.probe.control import Control
from gatewise.probe.record import Record, Records


def record_of(
    record: Record | None, part: str, names: Mapping[str, Sequence[str]]
) -> Record | None:
    """What `record` asks of one part; None if nothing.

    Args:
        record: what is asked of the whole model.
        part: one of `names`.
        names: part -> the paths that it has ("layers.0.f", ...).
    Raises:
        UnknownNameError: if a name is in no part.
    """
    if record is None:
        return None
    own = [n for name in record.names if (n := _own(name, part, names)) is not None]
    if not own:
        return None
    asked = copy.copy(record)
    object.__setattr__(asked, "names", tuple(dict.fromkeys(own)))
    if callable(record.to):
        sink = record.to
        object.__setattr__(asked, "to", lambda path, *rest: sink(f"{part}.{path}", *rest))
    elif record.to is not None:
        object.__setattr__(asked, "to", Path(str(record.to)) / part)
    return asked


def control_of(
    control: Control | None, part: str, names: Mapping[str, Sequence[str]]
) -> Control | None:
    """What `control` does in one part; None if nothing. Memory controls act in every part.

    Args:
        control: what acts in the whole model.
        part: one of `names`.
        names: part -> the paths that it has.
    Raises:
        UnknownNameError: if a name is in no part.
    """
    if control is None:
        return None
    found = []
    for rule in control.rules:
        if rule.name is None:
            found.append(rule)
        elif (name := _own(rule.name, part, names)) is not None:
            found.append(replace(rule, name=name))
    return Control(tuple(found)) if found else None


def joined(parts: Mapping[str, Records | None], main: str) -> Records | None:
    """What was recorded in all parts, under whole paths.

    Args:
        parts: part -> its records, whose times are its own.
        main: the part whose times the whole has; `Records.times_of` gives those of any path.
    """
    found = {part: records for part, records in parts.items() if records is not None}
    if not found:
        return None
    values = {f"{part}.{n}": v for part, records in found.items() for n, v in records.items()}
    times = found.get(main, next(iter(found.values()))).times
    whole = Records(values, times)
    whole.own_times = {f"{p}.{n}": r.times for p, r in found.items() for n in r}
    return whole


def _own(name: str, part: str, names: Mapping[str, Sequence[str]]) -> str | None:
    """The name inside `part` that `name` means, or None."""
    first, _, rest = name.partition(".")
    if first in names:
        return rest if first == part else None
    having = [p for p, paths in names.items() if any(_means(name, path) for path in paths)]
    if not having:
        paths = [f"{p}.{path}" for p, all_of in names.items() for path in all_of]
        raise unknown("name to record or control", name, paths)
    return name if part in having else None


def _means(name: str, path: str) -> bool:
    """Whether a name, short or a path, is that of a path."""
    return path == name or (not name.startswith("layers.") and path.endswith(f".{name}"))
