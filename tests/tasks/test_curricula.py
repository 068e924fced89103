"""Curricula: what each draws, when it moves, and that it goes on exactly from what was stored."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from gatewise.errors import DataError, OptionError, UnknownNameError
from gatewise.tasks.curricula import CURRICULA, Curriculum, from_json, start
from gatewise.tasks.programs import Hardness

TARGET = Hardness(3, 2)


def _drawn(curriculum: Curriculum, n: int = 3000) -> Counter[Hardness]:
    rng = np.random.default_rng(0)
    return Counter(curriculum.draw(rng) for _ in range(n))


def test_baseline_and_naive_draw_one_hardness() -> None:
    assert set(_drawn(start("baseline", TARGET))) == {TARGET}
    assert set(_drawn(start("naive", TARGET))) == {(1, 1)}


def test_mix_draws_each_equally_often() -> None:
    counts = _drawn(start("mix", TARGET))
    assert len(counts) == 6
    assert sum((c - 500) ** 2 / 500 for c in counts.values()) < 20.5  # 5 degrees, one in a thousand


def test_combined_is_four_parts_naive_and_one_part_mix() -> None:
    counts = _drawn(start("combined", TARGET))
    assert len(counts) == 6
    expected = 3000 * (4 / 5 + 1 / 5 / 6)
    assert abs(counts[Hardness(1, 1)] - expected) < 4 * np.sqrt(expected * (1 - expected / 3000))


@pytest.mark.parametrize("name", ["naive", "combined", "mastery"])
def test_it_climbs_first_in_length_then_in_nesting(name: str) -> None:
    now, path, moves = start(name, TARGET), [], []
    for _ in range(7):
        path.append(tuple(now.current))
        now, move = now.after(0.96)
        moves.append(move)
    assert path == [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2), (3, 2)]
    assert moves == ["harder"] * 5 + ["settle"] * 2


@pytest.mark.parametrize("name", ["baseline", "mix"])
def test_what_does_not_climb_settles(name: str) -> None:
    now, move = start(name, TARGET).after(0.99)
    assert (now.current, move) == (TARGET, "settle")


def _moves(figures: list[float], **kwargs: list[float]) -> list[str]:
    now, moves = start("naive", TARGET), []
    for k, figure in enumerate(figures):
        now, move = now.after(figure, **{name: each[k] for name, each in kwargs.items()})
        moves.append(move)
    return moves


def test_exactly_95_percent_is_not_enough() -> None:
    assert _moves([0.95, 0.9501]) == ["stay", "harder"]


def test_it_stalls_when_it_is_worse_than_five_evaluations_ago() -> None:
    assert _moves([0.5, 0.4, 0.4, 0.4, 0.4, 0.5, 0.4]) == ["stay"] * 7
    assert _moves([0.5, 0.4, 0.4, 0.4, 0.4, 0.49]) == ["stay"] * 5 + ["harder"]
    # a new stage begins with the figure of the evaluation that ended the last one
    assert (
        _moves([0.5, 0.4, 0.4, 0.4, 0.4, 0.49, 0.1, 0.1, 0.1, 0.1])
        == ["stay"] * 5 + ["harder"] + ["stay"] * 4
    )


def test_accuracy_in_training_can_say_that_it_stalls() -> None:
    assert _moves([0.1] * 6, train=[0.9, 0.8, 0.8, 0.8, 0.8, 0.7])[-1] == "harder"
    assert _moves([0.6, 0.1, 0.1, 0.1, 0.1, 0.1], train=[0.5] * 6) == ["stay"] * 6


def test_mastery_leaves_a_stage_when_it_is_passed_or_has_long_been_level() -> None:
    now = start("mastery", TARGET)
    for figure in [0.5, 0.4] * 10 + [0.4, 0.51] * 9 + [0.4]:  # twenty, and nineteen no better
        now, move = now.after(figure)
        assert move == "stay"
    assert now.after(0.9)[1] == "stay"  # on average better
    assert now.after(0.41)[1] == "harder"
    assert start("mastery", TARGET).after(0.96)[1] == "harder"


def test_mastery_goes_back_to_what_was_reached() -> None:
    now, _ = start("mastery", TARGET).after(0.96)
    counts = _drawn(now)
    assert set(counts) == {(1, 1), (2, 1)}
    assert abs(counts[Hardness(1, 1)] - 300) < 70


@pytest.mark.parametrize("name", CURRICULA)
def test_it_goes_on_from_json(name: str) -> None:
    rng = np.random.default_rng(1)
    now = start(name, Hardness(4, 3))
    for figure in rng.uniform(0, 1, 60).tolist():
        stored = from_json(json.loads(json.dumps(now.to_json())))
        assert stored == now
        assert stored.after(figure) == now.after(figure)
        now, _ = now.after(figure)


def test_a_curriculum_is_a_value() -> None:
    begun = start("naive", TARGET)
    begun.after(0.99)
    assert begun == start("naive", TARGET)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "steep"},
        {"current": [9, 1]},
        {"current": [1]},
        {"current": [0, 1]},
        {"figures": None},
        {"target": "ab"},
    ],
)
def test_what_was_not_stored_by_it_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError, match="expected a stored curriculum"):
        from_json(start("naive", TARGET).to_json() | change)
    with pytest.raises(DataError, match="expected a stored curriculum"):
        from_json({})


def test_refusals() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'naive'"):
        start("naiv", TARGET)
    with pytest.raises(OptionError, match="a length of 1"):
        start("naive", Hardness(0))
    for figure in (1.5, -0.1, float("nan")):
        with pytest.raises(OptionError, match="an accuracy from 0 to 1"):
            start("naive", TARGET).after(figure)
