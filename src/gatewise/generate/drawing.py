"""Drawn answers for sources that were read: each source has numbers of its own, whoever is beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gatewise.generate.choose import draw, mix, uniform
from gatewise.generate.conditional import Answer, Conditioned, write_greedily
from gatewise.generate.options import SamplingOptions


class Draws:
    """A decoder whose columns are repeated, and the numbers that each draws with (`generate.Conditioned`).

    Sample k of a source depends on the options' seed, k and the source's own scores.

    Args:
        model: with a column for each source.
        options: temperature, top_k, top_p, min_p and seed; without a seed, one from torch's generator.
        n: samples of each source.
    """

    def __init__(self, model: Conditioned, options: SamplingOptions, n: int) -> None:
        self._model, self._options, self._n = model, options, n
        seed = options.seed
        self.seed = int(torch.randint(1 << 62, ())) if seed is None else seed
        self._seeds: list[int] = []
        self._time = 0

    def write(
        self, begin: Tensor, end: int, limits: Sequence[int], alpha: float = 0.0
    ) -> list[list[Answer]]:
        """Up to `n` different answers of each source, the most probable first.

        The arguments are those of `write_greedily`; equal answers count once.
        """
        count, n = len(begin), self._n
        columns = torch.arange(count, device=begin.device).repeat_interleave(n)
        self._model.select(columns)
        self._seeds = [mix(self.seed, k) for _ in range(count) for k in range(n)]
        repeated = [limit for limit in limits for _ in range(n)]
        found = write_greedily(
            self, begin[columns], end, repeated, choose=self._choose, alpha=alpha
        )
        parts = [found[at : at + n] for at in range(0, len(found), n)]
        return [sorted(_distinct(part), key=lambda one: -one.logprob) for part in parts]

    def step(self, tokens: Tensor) -> Tensor:
        """Scores (B, V) of what follows."""
        return self._model.step(tokens)

    def select(self, columns: Tensor) -> None:
        """Go on with these of the columns."""
        self._seeds = [self._seeds[k] for k in columns.tolist()]
        self._model.select(columns)

    def _choose(self, scores: Tensor) -> Tensor:
        numbers = [uniform(seed, self._time) for seed in self._seeds]
        self._time += 1
        uniforms = torch.tensor(numbers, dtype=torch.float64, device=scores.device)
        return draw(scores, uniforms, self._options)


def _distinct(answers: Sequence[Answer]) -> list[Answer]:
    return list({(one.ids, one.ended): one for one in answers}.values())
