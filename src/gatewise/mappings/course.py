"""A course: fresh examples for each epoch, as hard as a curriculum says, and the fixed ones that judge it.

It knows texts, ids and hardness; no model. An epoch's examples are a function of the seed, the epoch and the
curriculum at its beginning: the state of a course (`state`) is the two curricula, so that a run is taken up
again in the middle of an epoch with the same examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gatewise.errors import OptionError
from gatewise.mappings.config import check_choice, check_size
from gatewise.mappings.pairs import Pairs
from gatewise.metrics.answers import AnswerTally
from gatewise.tasks import curricula
from gatewise.tasks.curricula import CURRICULA, Curriculum
from gatewise.tasks.execute import TASKS, Draws, Examples
from gatewise.tasks.programs import (
    ALPHABET,
    END_OF_INPUT,
    END_OF_TARGET,
    Example,
    Hardness,
    serialise,
)
from gatewise.text.characters import CharTokenizer
from gatewise.text.ragged import Ragged

TOKENIZER = CharTokenizer(ALPHABET)
"""The 42 symbols; what is not among them is unknown."""

BEGIN, END = (int(TOKENIZER.encode(mark)[0]) for mark in (END_OF_INPUT, END_OF_TARGET))
"""Ids of '@', after which an answer begins, and '.', which ends it."""

FORMS = ("pairs", "stream")


@dataclass(frozen=True, kw_only=True)
class CourseOptions:
    """What is to be learned, and in which order."""

    task: str = "programs"
    """programs, addition, memorise, reverse or double."""

    form: str = "pairs"
    """pairs (an encoder reads, a decoder answers) or stream (the paper's: one model reads one long
    stream a column, its state carried, the cost counted on the answers alone)."""

    length: int = 2
    """Of programs: operands have up to so many digits (1 to 10^LENGTH)."""

    nesting: int = 2
    """Of programs: so many operations, each on the result of the one before."""

    digits: int = 3
    """Of the other tasks: digits of a number."""

    curriculum: str = "combined"
    """baseline (always the hardest), naive (step by step), mix (any), combined (naive, and some
    of mix), mastery (step by step, each learnt before the next)."""

    reverse_input: bool = False
    """Show what is read backwards."""

    double_input: bool = False
    """Show what is read twice."""

    examples: int = 12_800
    """Examples of an epoch, each one new; after it the curriculum may move. stream: about so many."""

    valid_examples: int = 1000
    """Examples of an evaluation, of each hardness that is looked at."""

    settle: float = 1.0
    """Factor on the learning rate each time when accuracy passes or stalls at the hardest stage (paper: 0.8)."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_choice("task", self.task, TASKS)
        check_choice("form", self.form, FORMS)
        check_choice("curriculum", self.curriculum, CURRICULA)
        check_size("examples", self.examples)
        check_size("valid_examples", self.valid_examples)
        if not 0 < self.settle <= 1:
            raise OptionError(
                f"--settle: expected a factor above 0 and up to 1, found {self.settle}"
            )
        self.target()

    def target(self) -> Hardness:
        """How hard it is to become."""
        programs = TASKS[self.task].nests
        return Hardness(
            self.length if programs else self.digits, self.nesting if programs else 1
        ).checked()

    def examples_of(self, part: str, seed: int) -> Examples:
        """The examples of a part, by number."""
        return Examples(self.task, seed, part, self.reverse_input, self.double_input)


def encoded(examples: Iterable[Example]) -> Pairs:
    """Examples as ids: sources without '@', targets without '.'."""
    sources, targets = [], []
    for source, target in examples:
        sources.append(TOKENIZER.encode(serialise(source)[:-1]))
        targets.append(TOKENIZER.encode(target[:-1]))
    return Pairs(Ragged.of(sources, np.int64), Ragged.of(targets, np.int64))


_FEWEST = 100
"""Held-out examples below which a stage of mastery is left after one epoch."""


class Course:
    """The examples of a run.

    Args:
        options: what is learned.
        seed: of all examples.
    Attributes:
        now: the curriculum, as evaluations have moved it.
        drawn: that of the epoch in hand: `now` when the epoch began.
        settled: how often accuracy has passed or stalled at the hardest stage.
    """

    def __init__(self, options: CourseOptions, seed: int) -> None:
        options.validate()
        self.options, self.seed = options, seed
        self.target = options.target()
        self.now = self.drawn = curricula.start(options.curriculum, self.target)
        self.settled = 0
        self._train = options.examples_of("train", seed)
        self._fixed: dict[tuple[str, Hardness], Pairs] = {}

    @property
    def rate(self) -> float:
        """Factor on the learning rate."""
        return self.options.settle**self.settled

    def begin(self) -> None:
        """An epoch begins: from here on examples are as hard as the curriculum says now."""
        self.drawn = self.now

    def examples(self, first: int, count: int) -> list[Example]:
        """Training examples from a number on."""
        return [self._train.at(k, self.drawn.draw) for k in range(first, first + count)]

    def epoch(self, epoch: int) -> Pairs:
        """The examples of an epoch."""
        return encoded(self.examples(epoch * self.options.examples, self.options.examples))

    def fixed(self, part: str, hardness: Hardness | None = None) -> Pairs:
        """Always the same examples of "valid" or "test", of one hardness; default: the target."""
        wanted = hardness or self.target
        if (part, wanted) not in self._fixed:
            self._fixed[part, wanted] = encoded(
                fixed_examples(self.options, part, wanted, self.options.valid_examples, self.seed)
            )
        return self._fixed[part, wanted]

    def after(self, found: AnswerTally) -> str | None:
        """Let the curriculum move after an evaluation of the stage; a line if it did.

        Args:
            found: its `stage` says the accuracy at `now.current`.
        """
        before = self.now.current
        accuracy = 1.0 if self._too_few() else found.stage["stage_accuracy"]
        self.now, move = self.now.after(accuracy)
        if move == "stay":
            return None
        if move == "settle":
            self.settled += 1
            factor = self.options.settle
            return (
                None if factor == 1 else f"curriculum: learning rate times {factor:g} from here on"
            )
        return f"curriculum: {_said(before)} -> {_said(self.now.current)}"

    def _too_few(self) -> bool:
        """Whether a stage that waits to be passed cannot be judged: of sums of one digit 9 are held out."""
        waits = curricula.CURRICULA[self.now.name].waits
        return waits and len(self.fixed("valid", self.now.current).source) < _FEWEST

    def state(self) -> dict[str, Any]:
        """What a resumed run needs; JSON-able."""
        return {"now": self.now.to_json(), "drawn": self.drawn.to_json(), "settled": self.settled}

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.now, self.drawn = (curricula.from_json(state[name]) for name in ("now", "drawn"))
        self.settled = int(state["settled"])

    def described(self) -> dict[str, Any]:
        """What a checkpoint says of the data."""
        return dataclasses.asdict(self.options) | {"seed": self.seed}


def fixed_examples(
    options: CourseOptions, part: str, hardness: Hardness | Draws, count: int, seed: int
) -> list[Example]:
    """`count` different examples of a part, or all that were found where it has fewer."""
    examples, found = options.examples_of(part, seed), {}
    for k in range(4 * count):
        one = examples.at(k, hardness)
        found[one.source] = one
        if len(found) == count:
            break
    return list(found.values())


def _said(hardness: Hardness) -> str:
    return f"length {hardness.length}, nesting {hardness.nesting}"


def stage_of(curriculum: Curriculum) -> dict[str, int]:
    """How hard examples are now, for a log."""
    return {"length": curriculum.current.length, "nesting": curriculum.current.nesting}


__all__ = [
    "BEGIN",
    "END",
    "FORMS",
    "TOKENIZER",
    "Course",
    "CourseOptions",
    "encoded",
    "fixed_examples",
    "stage_of",
]
