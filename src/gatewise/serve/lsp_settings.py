"""What a client can set, under the protocol's kind of names; every value is checked, and a wrong one is only told."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

SECTION = "gatewise"
"""Of a client's configuration."""


@dataclass(frozen=True)
class Settings:
    """How an editor is served.

    Args:
        n: continuations that are offered.
        max_tokens: longest continuation, in tokens: characters, words or pieces of words.
        temperature: above 1 more surprising, below 1 surer; 0: always the most probable.
        top_p: keep the fewest most probable tokens that together reach this probability.
        min_p: keep the tokens at least this many times as probable as the most probable one.
        multi_line: go on over the end of the line.
        max_lines: then at most so many lines.
        words: end after so many words; 0: no matter how many.
        sentences: end after so many sentences; 0: no matter how many.
        closing: end after a bracket that closes one which the continuation did not open.
        confidence: end before a token that is less probable than this.
        debounce: milliseconds of rest before what was not asked for is thought about.
        automatic: offer inline completions without being asked.
        context: characters before the place that are read, at least where there are more.
        suffix: put first what the text behind the place goes on from.
        timeout: milliseconds after which what there is is offered.
    """

    n: int = 3
    max_tokens: int = 32
    temperature: float = 0.7
    top_p: float = 1.0
    min_p: float = 0.0
    multi_line: bool = False
    max_lines: int = 8
    words: int = 0
    sentences: int = 0
    closing: bool = False
    confidence: float = 0.0
    debounce: int = 0
    automatic: bool = True
    context: int = 32_768
    suffix: bool = True
    timeout: int = 2_000

    @property
    def lines(self) -> int:
        """After how many lines a continuation ends."""
        return self.max_lines if self.multi_line else 1


_RANGES: dict[str, tuple[float, float]] = {
    "n": (1, 10),
    "max_tokens": (1, 1_024),
    "temperature": (0, 10),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "max_lines": (1, 100),
    "words": (0, 1_000),
    "sentences": (0, 100),
    "confidence": (0, 1),
    "debounce": (0, 10_000),
    "context": (16, 1_000_000),
    "timeout": (1, 600_000),
}


def _client_name(name: str) -> str:
    first, *more = name.split("_")
    return first + "".join(part.capitalize() for part in more)


_NAMES = {_client_name(field.name): field.name for field in fields(Settings)}


def changed(settings: Settings, values: object) -> tuple[Settings, list[str]]:
    """Settings with a client's values, and a line for each that cannot be used.

    Args:
        settings: what holds where nothing is said.
        values: of the section, or of a whole configuration that has it.
    """
    if isinstance(values, Mapping) and isinstance(values.get(SECTION), Mapping):
        values = values[SECTION]
    if values is None:
        return settings, []
    if not isinstance(values, Mapping):
        return settings, [f"expected an object, found {_shown(values)}"]
    taken: dict[str, Any] = {}
    problems = []
    for key, value in values.items():
        name = _NAMES.get(str(key))
        if name is None:
            problems.append(_no_such(str(key)))
        elif (problem := _problem(name, value)) is not None:
            problems.append(f"{key}: {problem}")
        else:
            taken[name] = float(value) if isinstance(getattr(settings, name), float) else value
    return replace(settings, **taken), problems


def as_client(settings: Settings) -> dict[str, Any]:
    """All of them under the names that a client uses."""
    return {key: getattr(settings, name) for key, name in _NAMES.items()}


def _no_such(key: str) -> str:
    near = difflib.get_close_matches(key, _NAMES, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown setting {_shown(key)}: expected one of {', '.join(sorted(_NAMES))}{hint}"


def _problem(name: str, value: object) -> str | None:
    default = getattr(Settings, name)
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"expected true or false, found {_shown(value)}"
    low, high = _RANGES[name]
    kind = "a whole number" if isinstance(default, int) else "a number"
    good = isinstance(value, int if isinstance(default, int) else int | float)
    # NaN lies between nothing; an integer may be too large to be a float
    if isinstance(value, bool) or not good or not low <= value <= high:  # type: ignore[operator]
        return f"expected {kind} from {low:,} to {high:,}, found {_shown(value)}"
    if name == "top_p" and value == 0:
        return "expected a number over 0, found 0"
    return None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
