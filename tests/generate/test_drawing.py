"""Drawn answers of many sources: each its own numbers, the same alone and among others."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gatewise.generate.choose import mix
from gatewise.generate.drawing import Draws
from gatewise.generate.options import SamplingOptions

END = 3


class Table:
    """Scores that depend on the source and the last token alone (`generate.Conditioned`)."""

    def __init__(self, sources: int, first: int = 0) -> None:
        draw = torch.Generator().manual_seed(0)
        self._tables = torch.randn(8, 5, 5, generator=draw, dtype=torch.float64)
        self._columns = torch.arange(first, first + sources)

    def step(self, tokens: Tensor) -> Tensor:
        return self._tables[self._columns, tokens]

    def select(self, columns: Tensor) -> None:
        self._columns = self._columns[columns]


def write(
    sources: int, first: int = 0, n: int = 4, **options: float
) -> list[list[tuple[int, ...]]]:
    drawing = Draws(Table(sources, first), SamplingOptions(seed=7, **options), n)  # type: ignore[arg-type]
    found = drawing.write(torch.zeros(sources, dtype=torch.int64), END, [12] * sources)
    return [[one.ids for one in several] for several in found]


def test_a_source_alone_gets_what_it_gets_among_others() -> None:
    together = write(3)
    for k in range(3):
        assert write(1, first=k) == [together[k]]


def test_more_samples_begin_with_the_same_ones() -> None:
    assert set(write(1, n=2)[0]) <= set(write(1, n=20)[0])


def test_equal_answers_count_once_and_the_most_probable_is_first() -> None:
    draws = Draws(Table(1), SamplingOptions(seed=1, temperature=0.01), 5)
    (found,) = draws.write(torch.zeros(1, dtype=torch.int64), END, [12])
    assert len({one.ids for one in found}) == len(found) < 5
    assert [one.logprob for one in found] == sorted((o.logprob for o in found), reverse=True)
    for one in found:
        assert math.isclose(one.logprob, math.fsum(one.token_logprobs))


def test_draws_follow_the_probabilities() -> None:
    count = 2000
    expected = Table(1).step(torch.zeros(1, dtype=torch.int64))[0].softmax(-1)
    draws = Draws(Table(1), SamplingOptions(seed=3), count)
    draws._seeds = [mix(3, k) for k in range(count)]
    chosen = draws._choose(Table(1).step(torch.zeros(1, dtype=torch.int64)).expand(count, -1))
    found = torch.bincount(chosen, minlength=5).double() / count
    torch.testing.assert_close(found, expected, atol=0.04, rtol=0)
