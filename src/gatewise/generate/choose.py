"""From the scores of one step to one token per sample: penalties, filters, and the draw.

The draw inverts the cumulative distribution, in the order of the tokens, at a given uniform number, so a
sample's tokens follow from its own row of scores and its own numbers, whatever else is in the batch. The
numbers are those that the step engine draws with inside its kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import OptionError
from gatewise.generate.options import SamplingOptions

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def filtered(scores: Tensor, options: SamplingOptions) -> tuple[Tensor, Tensor | None]:
    """Probabilities after temperature, top-k, top-p and min-p.

    Args:
        scores: (n, V), penalties applied.
        options: temperature must not be 0.

    Returns:
        weights: (n, K), in proportion to the probabilities; 0 where a filter took the token away.
        ids: (n, K), the tokens they belong to; None: all of them in order, K = V.
    """
    # the largest becomes 0: however small the temperature is, nothing overflows
    scores = (scores.double() - scores.amax(-1, keepdim=True)) / options.temperature
    ids = None
    if 0 < options.top_k < scores.shape[-1]:
        scores, ids = scores.topk(options.top_k, dim=-1)
    elif options.top_p < 1:
        scores, ids = scores.sort(dim=-1, descending=True, stable=True)
    weights = scores.softmax(-1, dtype=torch.float64)
    if options.top_p < 1:
        before = weights.cumsum(-1) - weights
        weights = weights.masked_fill(before >= options.top_p, 0.0)
    if options.min_p > 0:
        least = options.min_p * weights.amax(-1, keepdim=True)
        weights = weights.masked_fill(weights < least, 0.0)
    return weights, ids


def draw(scores: Tensor, uniforms: Tensor, options: SamplingOptions) -> Tensor:
    """One token per row of `scores` (n, V), from `uniforms` (n,) float64 in [0, 1)."""
    if options.temperature == 0:
        return scores.argmax(-1)
    weights, ids = filtered(scores, options)
    if ids is not None:  # in the order of the tokens, however they were found
        ids, order = ids.sort(-1)
        weights = weights.gather(-1, order)
    reached = weights.cumsum(-1)
    aim = uniforms.unsqueeze(-1) * reached[:, -1:]
    # right: the first place whose cumulative weight exceeds the aim, so its own weight is not 0
    place = torch.searchsorted(reached, aim, right=True).clamp_(max=weights.shape[-1] - 1)
    return (place if ids is None else ids.gather(-1, place)).squeeze(-1)


class Uniforms:
    """Uniform numbers for each sample, by counting (SplitMix64): from the seed, its number and the position.

    Sample k's numbers depend on the seed and k, neither on n nor on which samples still run.
    """

    def __init__(self, seed: int, first: int, count: int) -> None:
        self.seeds = [mix(seed, first + k) for k in range(count)]
        self.position = 0

    def next(self) -> Tensor:
        """(n,) float64 on the CPU."""
        self.position += 1
        return torch.tensor(
            [uniform(seed, self.position - 1) for seed in self.seeds], dtype=torch.float64
        )


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) of a seed and a position: the output of SplitMix64 as 53 bits."""
    key = _finalised(seed + _GOLDEN)
    return (_finalised(key + _GOLDEN * (position + 1)) >> 11) * 2.0**-53


def _finalised(x: int) -> int:
    x &= _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def mix(seed: int, number: int) -> int:
    """A seed of 63 bits from two numbers (the finaliser of SplitMix64)."""
    return _finalised((seed & _MASK) * _GOLDEN + (number + 1) * 0xD1342543DE82EF95) >> 1


def check_ids(options: SamplingOptions, vocab_size: int) -> None:
    """Raise OptionError if an id of the options is not in the vocabulary."""
    for name, numbers in (
        ("banned", options.banned),
        ("bias", tuple(options.bias)),
        ("stop_ids", options.stop_ids),
    ):
        if numbers and max(numbers) >= vocab_size:
            raise OptionError(
                f"{name}: expected ids below the vocabulary's size {vocab_size}, "
                f"found {max(numbers)}"
            )


def offsets(options: SamplingOptions, vocab_size: int, device: torch.device) -> Tensor | None:
    """What bias and banned ids add to the scores, (V,); None where they add nothing.

    Raises:
        OptionError: if an id is not in the vocabulary, or all are banned.
    """
    check_ids(options, vocab_size)
    if not options.banned and not options.bias:
        return None
    added = torch.zeros(vocab_size)
    for token, value in options.bias.items():
        added[token] = value
    added[list(options.banned)] = -torch.inf
    if bool((added == -torch.inf).all()):
        raise OptionError("banned: expected at least one id that can be drawn, found all banned")
    return added.to(device)


class RepetitionPenalty:
    """Divides positive scores of tokens seen before by theta, and multiplies negative ones."""

    def __init__(
        self, theta: float, n: int, vocab_size: int, seen: Sequence[int], device: torch.device
    ) -> None:
        self._theta = theta
        self._seen = torch.zeros(n, vocab_size, dtype=torch.bool, device=device)
        self._seen[:, torch.as_tensor(np.unique(seen), dtype=torch.int64, device=device)] = True

    def __call__(self, scores: Tensor, rows: Tensor | None) -> Tensor:
        """`scores` (m, V) of the samples `rows` (m,) (None: all), penalised."""
        seen = self._seen if rows is None else self._seen[rows]
        smaller = torch.where(scores > 0, scores / self._theta, scores * self._theta)
        return torch.where(seen, smaller, scores)

    def add(self, tokens: Tensor, rows: Tensor | None) -> None:
        """Note `tokens` (m,) of the samples `rows`."""
        if rows is None:
            self._seen.scatter_(1, tokens.unsqueeze(1), True)
        else:
            self._seen[rows, tokens] = True

    def reorder(self, rows: Tensor) -> None:
        """Row k becomes a copy of row `rows[k]` (m,)."""
        self._seen = self._seen[rows]


class Ngrams:
    """The n-grams of one history: what may not follow, if none may occur twice.

    Args:
        size: n.
        before: the n-grams of the prompt, shared by all samples; None for the prompt's own.
        history: tokens to begin with.
    """

    def __init__(
        self, size: int, history: Sequence[int] | np.ndarray[Any, Any], before: Ngrams | None = None
    ) -> None:
        self._size = size
        self._before = before
        self._followers: dict[tuple[int, ...], set[int]] = {}
        self._tail: tuple[int, ...] = before._tail if before else ()
        for token in history:
            self.add(int(token))

    def add(self, token: int) -> None:
        """Note the next token."""
        if len(self._tail) == self._size - 1:
            self._followers.setdefault(self._tail, set()).add(token)
        # [-0:] would keep everything
        self._tail = (*self._tail, token)[-(self._size - 1) :] if self._size > 1 else ()

    def banned(self) -> set[int]:
        """Tokens that would complete an n-gram a second time."""
        if len(self._tail) < self._size - 1:
            return set()
        own = self._followers.get(self._tail, set())
        return own | self._before.banned_after(self._tail) if self._before else own

    def banned_after(self, tail: tuple[int, ...]) -> set[int]:
        """Tokens that followed `tail`."""
        return self._followers.get(tail, set())
