"""Curricula: how hard the next example is, and when it gets harder (Zaremba & Sutskever 2014, section 4.1).

A curriculum is a value: it never changes, `after` a validation it gives the next one, and it goes to JSON
and back, so that a run that was stopped goes on exactly. It draws from the random numbers it is given and
has none of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gatewise.errors import DataError, OptionError, unknown
from gatewise.tasks.programs import Hardness

PASSED = 0.95
"""An accuracy above it is enough to go on."""
PATIENCE = 5
"""Evaluations after which accuracy must not be worse than so many evaluations ago."""

LONG = 20
"""Evaluations of two spans, of which the later must not be worse on average, where a stage waits to be passed."""

Move = Literal["stay", "harder", "settle"]


@dataclass(frozen=True)
class Curriculum:
    """How hard examples are now, on the way to a target.

    >>> naive = start("naive", Hardness(2, 2))
    >>> naive.current, naive.after(0.97)[0].current
    (Hardness(length=1, nesting=1), Hardness(length=2, nesting=1))

    Args:
        name: in `CURRICULA`.
        target: the hardness to be reached.
        current: the hardness of its stage: of validation, and of most examples of naive and combined.
        figures: the accuracies of this stage so far, by which it is seen that it stalls; the last five, or of a
            kind that waits the last forty.
    """

    name: str
    target: Hardness
    current: Hardness
    figures: tuple[float, ...] = ()

    def draw(self, rng: np.random.Generator) -> Hardness:
        """The hardness of the next example."""
        return CURRICULA[self.name].draw(self, rng)

    def after(self, valid: float, train: float | None = None) -> tuple[Curriculum, Move]:
        """The curriculum after an evaluation, and what has happened.

        A stage is over when validation accuracy exceeds 0.95, or when it stalls: accuracy is below that
        of five evaluations ago; of mastery, the mean of twenty evaluations is not above that of the twenty
        before. The next stage is one longer; after the greatest length, one deeper and of length 1 again. At
        the last stage "settle" says: multiply the rate by 0.8.

        Args:
            valid: accuracy on validation examples of hardness `current`, 0 to 1.
            train: accuracy in training, by which the authors' program sees that it stalls. Default:
                that of validation, which is what the paper says.
        Raises:
            OptionError: if an accuracy is not from 0 to 1.
        """
        figure = valid if train is None else train
        for one in (valid, figure):
            if not 0 <= one <= 1:
                raise OptionError(f"expected an accuracy from 0 to 1, found {one}")
        waits = CURRICULA[self.name].waits
        stalls = _levelled((*self.figures, figure)) if waits else self._is_worse(figure)
        if not (valid > PASSED or stalls):
            kept = (*self.figures, figure)[-(2 * LONG if waits else PATIENCE) :]
            return dataclasses.replace(self, figures=kept), "stay"
        harder = self._next()
        move: Move = "settle" if harder == self.current else "harder"
        return dataclasses.replace(self, current=harder, figures=(figure,)), move

    def _is_worse(self, figure: float) -> bool:
        """Whether an accuracy is below that of five evaluations ago."""
        return len(self.figures) >= PATIENCE and figure < self.figures[-PATIENCE]

    def _next(self) -> Hardness:
        length, nesting = self.current
        if length < self.target.length:
            return Hardness(length + 1, nesting)
        return Hardness(1, nesting + 1) if nesting < self.target.nesting else self.current

    def to_json(self) -> dict[str, Any]:
        """Itself, as JSON has it."""
        return {
            "name": self.name,
            "target": list(self.target),
            "current": list(self.current),
            "figures": list(self.figures),
        }


def _levelled(figures: tuple[float, ...]) -> bool:
    """Whether the last evaluations are on average no better than those before them."""
    if len(figures) < 2 * LONG:
        return False
    return sum(figures[-LONG:]) <= sum(figures[-2 * LONG : -LONG])


def start(name: str, target: Hardness) -> Curriculum:
    """The curriculum before training.

    Raises:
        UnknownNameError: if there is none of that name.
        OptionError: if the target is out of range.
    """
    if name not in CURRICULA:
        raise unknown("curriculum", name, CURRICULA)
    climbs = CURRICULA[name].climbs
    return Curriculum(name, target.checked(), Hardness(1, 1) if climbs else target)


def from_json(stored: Mapping[str, Any]) -> Curriculum:
    """What `to_json` gave.

    Raises:
        DataError: if it did not give that.
    """
    try:
        target, current = (_hardness(stored[key]) for key in ("target", "current"))
        figures = tuple(float(one) for one in stored["figures"])
        begun = start(str(stored["name"]), target)
        if current.checked().length > target.length or current.nesting > target.nesting:
            raise ValueError("beyond its target")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"expected a stored curriculum, found {dict(stored)!r:.200}") from error
    return dataclasses.replace(begun, current=current, figures=figures)


def _hardness(stored: Any) -> Hardness:
    length, nesting = stored
    return Hardness(int(length), int(nesting))


# ---------------------------------------------------------------------------- the ways to choose


def _current(curriculum: Curriculum, rng: np.random.Generator) -> Hardness:
    return curriculum.current


def _mixed(curriculum: Curriculum, rng: np.random.Generator) -> Hardness:
    """One for the whole example, as the paper says; the authors' program draws a length for each operand."""
    target = curriculum.target
    return Hardness(
        int(rng.integers(1, target.length, endpoint=True)),
        int(rng.integers(1, target.nesting, endpoint=True)),
    )


def _combined(curriculum: Curriculum, rng: np.random.Generator) -> Hardness:
    return _mixed(curriculum, rng) if rng.integers(5) == 0 else curriculum.current


def _reached(curriculum: Curriculum, rng: np.random.Generator) -> Hardness:
    """Four of five of the stage, one of any hardness up to it, so that nothing is forgotten."""
    if rng.integers(5):
        return curriculum.current
    return _mixed(dataclasses.replace(curriculum, target=curriculum.current), rng)


@dataclass(frozen=True)
class Kind:
    """A way to choose.

    Args:
        summary: in one line, for people.
        draw: the hardness of an example.
        climbs: whether it starts at (1, 1); else its one stage is the target.
        waits: whether a stage is left only when it is passed, or has been level for long.
    """

    summary: str
    draw: Callable[[Curriculum, np.random.Generator], Hardness]
    climbs: bool
    waits: bool = False


CURRICULA: dict[str, Kind] = {
    "baseline": Kind("always the target", _current, climbs=False),
    "naive": Kind("step by step up to the target", _current, climbs=True),
    "mix": Kind("any hardness up to the target, equally often", _mixed, climbs=False),
    "combined": Kind("four parts naive, one part mix", _combined, climbs=True),
    "mastery": Kind(
        "step by step, each learnt before the next; not in the paper",
        _reached,
        climbs=True,
        waits=True,
    ),
}

__all__ = ["CURRICULA", "Curriculum", "Kind", "Move", "from_json", "start"]
