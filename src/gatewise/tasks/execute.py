"""The tasks of learning to execute, by name: programs, addition, memorise, reverse, double.

Examples are numbered. Number k is a function of task, seed, part, hardness and k, so that batches can be
drawn by position and a run that was stopped goes on with the very next one. All are texts over the 42
symbols of `programs.ALPHABET`, and every target is found a second time by what knows nothing of how it was
drawn (`Task.answer`). A further task is two functions and a row of `TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gatewise.errors import DataError, OptionError, unknown
from gatewise.tasks import programs
from gatewise.tasks.interpreter import run
from gatewise.tasks.programs import (
    END_OF_TARGET,
    PARTS,
    Draw,
    Example,
    Hardness,
    draw_in_part,
    stream,
)

DOUBLED = ";"
"""Between the two copies of a doubled input, as in the paper."""


@dataclass(frozen=True)
class Task:
    """A kind of example.

    Args:
        summary: in one line, for people.
        draw: one example of a hardness.
        answer: the true answer to a source, without the '.'; DataError where it is no source.
        nests: whether the nesting of a hardness means anything.
        runs: whether the sources are programs.
    """

    summary: str
    draw: Draw
    answer: Callable[[str], str]
    nests: bool = False
    runs: bool = False


def addition(rng: np.random.Generator, hardness: Hardness) -> Example:
    """`print(a+b)` of two numbers of L digits each (section 4.2 of the paper)."""
    lowest = 10 ** (hardness.length - 1) if hardness.length > 1 else 0
    a, b = rng.integers(lowest, 10**hardness.length, size=2).tolist()
    return Example(f"print({a}+{b})", f"{a + b}{END_OF_TARGET}")


def memorise(rng: np.random.Generator, hardness: Hardness) -> Example:
    """L digits, to be said again: memorisation (section 4.3)."""
    digits = _digits(rng, hardness)
    return Example(digits, digits + END_OF_TARGET)


def reverse(rng: np.random.Generator, hardness: Hardness) -> Example:
    """L digits, to be said backwards."""
    digits = _digits(rng, hardness)
    return Example(digits, digits[::-1] + END_OF_TARGET)


def double(rng: np.random.Generator, hardness: Hardness) -> Example:
    """L digits, to be said twice."""
    digits = _digits(rng, hardness)
    return Example(digits, digits * 2 + END_OF_TARGET)


def _digits(rng: np.random.Generator, hardness: Hardness) -> str:
    return "".join(map(str, rng.integers(10, size=hardness.length).tolist()))


def _given_digits(source: str) -> str:
    text = source.strip()
    for column, character in enumerate(text, 1):
        if character not in "0123456789":
            raise DataError(f"column {column}: expected a digit, found {character!r}")
    if not text:
        raise DataError("expected digits, found none")
    return text


TASKS: dict[str, Task] = {
    "programs": Task("what a generated program prints", programs.draw, run, nests=True, runs=True),
    "addition": Task("the sum of two numbers", addition, run, runs=True),
    "memorise": Task("the same digits", memorise, _given_digits),
    "reverse": Task("the digits backwards", reverse, lambda text: _given_digits(text)[::-1]),
    "double": Task("the digits twice", double, lambda text: _given_digits(text) * 2),
}

Draws = Callable[[np.random.Generator], Hardness]
"""A hardness for each example, as a curriculum draws it."""


@dataclass(frozen=True)
class Examples:
    """The examples of a task, by number.

    >>> Examples("addition").at(0, Hardness(3))
    Example(source='print(950+662)', target='1612.')
    >>> Examples("memorise", reverse_input=True, double_input=True).at(0, Hardness(4))
    Example(source='8669;8669', target='9668.')

    Args:
        task: a name in `TASKS`.
        seed: of all examples.
        part: "train", "valid" or "test", which share no example; None: any.
        reverse_input: show the source backwards.
        double_input: show the source twice, with ';' between (after reversing).
    Raises:
        UnknownNameError: if there is no such task or part.
        OptionError: if the seed is negative.
    """

    task: str = "programs"
    seed: int = 7
    part: str | None = None
    reverse_input: bool = False
    double_input: bool = False

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise unknown("task", self.task, TASKS)
        if self.part is not None and self.part not in PARTS:
            raise unknown("part", self.part, PARTS)
        if self.seed < 0:
            raise OptionError(f"expected a seed from 0, found {self.seed}")

    def at(self, k: int, hardness: Hardness | Draws) -> Example:
        """Example number k; its part is that of the source before it is reversed or doubled.

        Args:
            k: from 0.
            hardness: of the example, or what draws it (the `draw` of a curriculum).
        Raises:
            OptionError: if k or the hardness is out of its range.
        """
        if k < 0:
            raise OptionError(f"expected the number of an example from 0, found {k}")
        task, rng = TASKS[self.task], stream(self.seed, k, self.part)
        wanted = hardness if isinstance(hardness, Hardness) else hardness(rng)
        found = draw_in_part(task.draw, rng, wanted.checked(), self.part)
        said = task.answer(found.source) + END_OF_TARGET
        assert said == found.target, f"{found} but the answer is {said}"
        return Example(self.shown(found.source), found.target)

    def shown(self, source: str) -> str:
        """A source as the model is to read it."""
        text = source[::-1] if self.reverse_input else source
        return f"{text}{DOUBLED}{text}" if self.double_input else text


__all__ = ["TASKS", "Draws", "Examples", "Task", "addition", "double", "memorise", "reverse"]
