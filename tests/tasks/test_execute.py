"""The tasks by name: what they ask, by number and by part."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gatewise.errors import OptionError, UnknownNameError
from gatewise.tasks.curricula import start
from gatewise.tasks.execute import TASKS, Examples
from gatewise.tasks.interpreter import run
from gatewise.tasks.programs import ALPHABET, PARTS, Hardness, part_of, sample, serialise


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [1, 2, 7])
def test_every_task_draws_by_number_in_each_part(task: str, length: int) -> None:
    hardness = Hardness(length)
    said = {}
    for part in PARTS:
        examples = Examples(task, part=part)
        drawn = [examples.at(k, hardness) for k in range(60)]
        assert [examples.at(k, hardness) for k in (59, 3)] == [drawn[59], drawn[3]]
        assert {c for s, t in drawn for c in serialise(s) + t} <= set(ALPHABET)
        assert {part_of(source) for source, _ in drawn} == {part}
        said[part] = {source for source, _ in drawn}
    for one, other in itertools.combinations(PARTS, 2):
        assert not said[one] & said[other]


@pytest.mark.parametrize("length", [1, 4, 18])
def test_what_the_tasks_ask(length: int) -> None:
    for k in range(100):
        at = {task: Examples(task).at(k, Hardness(length)) for task in TASKS}
        source, target = at["addition"]
        numbers = source.removeprefix("print(").removesuffix(")").split("+")
        assert [len(number) for number in numbers] == [length, length]
        assert target == f"{sum(map(int, numbers))}." == run(source) + "."
        digits = at["memorise"].source
        assert (len(digits), digits.isdigit()) == (length, True)
        assert at["memorise"].target == digits + "."
        assert at["reverse"].target == at["reverse"].source[::-1] + "."
        assert at["double"].target == at["double"].source * 2 + "."


def test_programs_are_those_of_the_generator() -> None:
    examples = Examples(part="valid", seed=3)
    assert [examples.at(k, Hardness(4, 3)) for k in range(9)] == list(
        sample(9, 4, 3, seed=3, part="valid")
    )


def test_inputs_are_reversed_and_doubled_and_the_part_stays() -> None:
    plain = Examples("memorise", part="test")
    for k in range(20):
        source, target = plain.at(k, Hardness(6))
        shown = {
            (r, d): Examples("memorise", part="test", reverse_input=r, double_input=d).at(
                k, Hardness(6)
            )
            for r in (False, True)
            for d in (False, True)
        }
        assert {found.target for found in shown.values()} == {target}
        assert shown[True, False].source == source[::-1]
        assert shown[False, True].source == f"{source};{source}"
        assert shown[True, True].source == f"{source[::-1]};{source[::-1]}"


def test_a_curriculum_draws_the_hardness() -> None:
    mix = start("mix", Hardness(5))
    examples = Examples("memorise", part="train")
    lengths = [len(examples.at(k, mix.draw).source) for k in range(300)]
    assert sorted(set(lengths)) == [1, 2, 3, 4, 5]
    assert lengths == [len(examples.at(k, mix.draw).source) for k in range(300)]


def test_digits_are_uniform() -> None:
    text = "".join(Examples("memorise").at(k, Hardness(10)).source for k in range(500))
    counts = np.array([text.count(str(d)) for d in range(10)])
    assert ((counts - 500) ** 2 / 500).sum() < 27.9  # 9 degrees of freedom, one in a thousand


def test_refusals() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'memorise'"):
        Examples("memorize")
    with pytest.raises(UnknownNameError, match="unknown part"):
        Examples(part="dev")
    with pytest.raises(OptionError, match="seed from 0"):
        Examples(seed=-1)
    with pytest.raises(OptionError, match="number of an example"):
        Examples().at(-1, Hardness(1))
    with pytest.raises(OptionError, match="a length of 1 to 18"):
        Examples("memorise").at(0, Hardness(30))
