"""The generator: what Python prints, the distributions of the paper, parts without a common program."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import gatewise as gw
from gatewise.errors import DataError, OptionError, UnknownNameError
from gatewise.tasks import programs
from gatewise.tasks.interpreter import run
from gatewise.tasks.programs import (
    ALPHABET,
    OPERATIONS,
    PARTS,
    Example,
    Hardness,
    draw,
    normal,
    parse_line,
    part_of,
    runnable,
    sample,
    serialise,
    verified,
)

ALL = list(itertools.product(range(1, 7), range(1, 4)))
Answers = Callable[[Sequence[str]], list[tuple[str, str]]]


def _agree(python_says: Answers, each: int, seed: int) -> int:
    """Programs of every hardness whose target, and whose interpretation, is what Python prints."""
    count = 0
    for length, nesting in ALL:
        drawn = list(sample(each, length, nesting, seed))
        found = python_says([source for source, _ in drawn])
        for (source, target), (how, printed) in zip(drawn, found, strict=True):
            assert (how, printed) == ("printed", target[:-1] + "\n"), source
            assert run(serialise(source)) + "." == target, source
            count += 1
    return count


def test_programs_print_their_targets(python_says: Answers) -> None:
    assert _agree(python_says, 200, seed=7) == 3600


@pytest.mark.slow
def test_fifteen_thousand_programs_print_their_targets(python_says: Answers) -> None:
    assert _agree(python_says, 834, seed=7) > 15_000


@pytest.mark.slow
def test_ninety_thousand_programs_print_their_targets(python_says: Answers) -> None:
    assert _agree(python_says, 5_000, seed=8) == 90_000


def test_the_hardest_programs_print_their_targets(python_says: Answers) -> None:
    drawn = list(sample(100, programs.LONGEST, programs.DEEPEST, seed=1))
    found = python_says([source for source, _ in drawn])
    assert found == [("printed", target[:-1] + "\n") for _, target in drawn]


@pytest.mark.parametrize(
    ("hardness", "mean"), [((1, 1), 19), ((4, 1), 25), ((4, 3), 51), ((6, 3), 59), ((8, 4), 85)]
)
def test_mean_lengths_of_inputs(hardness: tuple[int, int], mean: int) -> None:
    lengths = [len(serialise(source)) for source, _ in sample(3000, *hardness)]
    error = np.std(lengths) / np.sqrt(len(lengths))
    assert abs(np.mean(lengths) - mean) < 0.5 + 3 * error  # the page rounds to whole characters


def test_symbols_are_the_papers_42() -> None:
    assert len(ALPHABET) == len(set(ALPHABET)) == 42
    used = {c for source, target in sample(3000) for c in serialise(source) + target}
    assert used == set(ALPHABET)


_SHAPES = {
    "pair": r"print\(\(\d+[+-]\d+\)\)",
    "small product": r"print\(\(\d+\*\d+\)\)",
    "equality": r"print\(\d+\)",
    "variable": r"[a-j]=\d+;\nprint\(\([a-j][+-]\d+\)\)",
    "loop": r"[a-j]=\d+\nfor x in range\(\d+\):[a-j][+-]=\d+\nprint\([a-j]\)",
    "choice": r"print\(\(\d+ if \d+[<>]\d+ else \d+\)\)",
}


def test_operations_are_equally_likely() -> None:
    assert list(_SHAPES) == list(OPERATIONS)
    counts = Counter(
        next(name for name, shape in _SHAPES.items() if re.fullmatch(shape, source))
        for source, _ in sample(6000, length=3, nesting=1)
    )
    # chi-squared with 5 degrees of freedom: 20.5 at one in a thousand
    assert sum((counts[name] - 1000) ** 2 / 1000 for name in OPERATIONS) < 20.5


def _numbers(operation: str, length: int, n: int) -> list[list[int]]:
    drawn = (source for source, _ in sample(n, length, 1))
    kept = [source for source in drawn if re.fullmatch(_SHAPES[operation], source)]
    return [[int(d) for d in re.findall(r"\d+", source)] for source in kept]


def test_operands_are_uniform_with_both_ends() -> None:
    drawn = [n for numbers in _numbers("choice", 1, 5000) for n in numbers]
    counts = Counter(drawn)
    assert sorted(counts) == list(range(1, 11))
    mean = len(drawn) / 10
    assert sum((c - mean) ** 2 / mean for c in counts.values()) < 27.9  # 9 degrees, one in 1000
    large = [n for numbers in _numbers("pair", 4, 5000) for n in numbers]
    assert 1 <= min(large) < 80
    assert 9920 < max(large) <= 10_000
    assert abs(np.mean(large) - 5000.5) < 4 * 10_000 / np.sqrt(12 * len(large))


@pytest.mark.parametrize("length", [1, 3])
def test_factors_and_rounds_go_to_four_times_the_length(length: int) -> None:
    rounds = Counter(numbers[1] for numbers in _numbers("loop", length, 3000))
    assert sorted(rounds) == list(range(1, 4 * length + 1))
    sides = Counter(b > 4 * length for _, b in _numbers("small product", 3, 3000) if length == 3)
    assert length == 1 or min(sides[True], sides[False]) > 0.3 * sum(sides.values())


def test_variables_are_new_and_any() -> None:
    first = Counter()
    for source, _ in sample(3000, length=1, nesting=5):
        names = re.findall(r"^([a-j])=", source, re.MULTILINE)
        assert len(names) == len(set(names))
        first.update(names[:1])
    mean = sum(first.values()) / 10
    assert sum((first[c] - mean) ** 2 / mean for c in "abcdefghij") < 27.9


def test_the_earlier_value_goes_to_any_place() -> None:
    """With a variable of a loop as the first value, a second choice has it at each of four places."""
    shape = re.compile(r"print\(\(([a-j0-9]+) if ([a-j0-9]+)[<>]([a-j0-9]+) else ([a-j0-9]+)\)\)$")
    places = Counter()
    for source, _ in sample(8000, length=2, nesting=2):
        match = shape.search(source)
        if match and source.count("\n") == 2:
            places.update(k for k in range(4) if match[k + 1].isalpha())
    mean = sum(places.values()) / 4
    assert mean > 30
    assert sum((places[k] - mean) ** 2 / mean for k in range(4)) < 16.3  # 3 degrees, one in 1000


# ---------------------------------------------------------------------------- numbers, parts, forms


def test_the_fixed_interface() -> None:
    drawn = list(gw.tasks.programs.sample(5, length=4, nesting=3, seed=7))
    assert drawn == list(sample(5))
    assert [isinstance(s, str) and t.endswith(".") for s, t in drawn] == [True] * 5


@pytest.mark.parametrize("part", [None, *PARTS])
def test_an_example_follows_from_its_number(part: str | None) -> None:
    whole = list(sample(40, part=part))
    assert list(sample(7, part=part, start=30)) == whole[30:37]
    assert list(sample(40, part=part, seed=8)) != whole
    assert len(set(whole)) > 35


def test_parts_share_no_program() -> None:
    said = {part: {s for s, _ in sample(1500, 1, 1, part=part)} for part in PARTS}
    for one, other in itertools.combinations(PARTS, 2):
        assert not said[one] & said[other]
    for part, sources in said.items():
        assert {part_of(source) for source in sources} == {part}
        assert {part_of(serialise(source)) for source in sources} == {part}


def test_parts_have_eight_one_and_one_tenths() -> None:
    counts = Counter(part_of(source) for source, _ in sample(4000))
    assert abs(counts["train"] - 3200) < 4 * np.sqrt(4000 * 0.8 * 0.2)
    assert abs(counts["test"] - 400) < 4 * np.sqrt(4000 * 0.1 * 0.9)


def test_the_normal_form_is_the_generators() -> None:
    for source, _ in sample(200):
        assert normal(source) == normal(serialise(source)) == source
        spread = source.replace("+", " + ").replace("=", " = ").replace("(", "( ")
        spread = spread.replace("+ =", "+=").replace("- =", "-=")
        assert normal("\n" + spread + "  # in two lines or more, a comment\n") == source
    assert normal("for x in range(2):\n    a=1;b=2\n\nprint(a)") == (
        "for x in range(2):\n a=1;b=2\nprint(a)"
    )
    with pytest.raises(DataError, match=r"line 1, column 1: .*42 symbols.*found 'k'"):
        normal("k=1\nprint(k)")


def test_forms() -> None:
    for source, target in sample(50):
        assert runnable(serialise(source)) == source
        assert parse_line(serialise(source) + target) == (source, target)
    for line in ("print(2)", "print(2)@2", "print(2)@2@."):
        with pytest.raises(DataError, match=r"expected INPUT@TARGET"):
            parse_line(line)


def test_a_wrong_target_is_noticed() -> None:
    with pytest.raises(AssertionError, match="the interpreter found 3"):
        verified(Example("print((1+2))", "4."))


def test_refusals() -> None:
    for arguments in ({"length": 0}, {"length": 19}, {"nesting": 0}, {"nesting": 11}):
        with pytest.raises(OptionError, match="a length of 1 to 18 and a nesting of 1 to 10"):
            sample(1, **arguments)
    for arguments in ({"n": -1}, {"n": 1, "seed": -1}, {"n": 1, "start": -1}):
        with pytest.raises(OptionError, match="from 0"):
            sample(**arguments)
    with pytest.raises(UnknownNameError, match="did you mean 'train'"):
        list(sample(1, part="trian"))


def test_a_part_without_examples_is_an_error() -> None:
    def always(rng: np.random.Generator, hardness: Hardness) -> Example:
        return Example("print((6+1))", "7.")

    with pytest.raises(OptionError, match="found none among 10,000"):
        programs.draw_in_part(always, np.random.default_rng(0), Hardness(1), "test")
    assert draw(np.random.default_rng(0), Hardness(1)).target
