"""The series that are always there: made here, or read off Python's own library."""

from __future__ import annotations

import numpy as np

from gatewise.tasks.code_lines import library_histories
from gatewise.tasks.histories import Histories, History
from gatewise.tasks.waves import mackey_glass, seasonal

EMBEDDED = ("seasonal", "mackey-glass", "library")

STEPS = 3000
"""Of a series that is made here."""

_SAID = {
    "seasonal": "a trend, a season of 24 steps and noise, made here",
    "mackey-glass": "the chaotic series of Mackey and Glass, made here",
    "library": "how the lines of Python's standard library are indented",
}


def embedded_series(name: str) -> Histories:
    """The series of that name, one of `EMBEDDED`, and that it is used."""
    note = f"no data given: using {_SAID[name]}"
    if name == "library":
        return Histories(library_histories().series, [], [note])
    values = (seasonal if name == "seasonal" else mackey_glass)(STEPS)
    return Histories([History(name, values, np.zeros((STEPS, 0)))], [], [note])
