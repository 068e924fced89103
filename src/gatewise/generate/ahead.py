"""Several steps at once, where the model draws tokens itself; they are handed out one by one.

What a sample would have drawn after its end is thrown away: at most one block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gatewise.generate.context import Stepper
from gatewise.generate.options import SamplingOptions
from gatewise.step.drawing import Drawing
from gatewise.types import State

_BLOCK = 16
"""Steps of a call: what a call costs besides is then small, and a text still appears as it is written."""


class Ahead:
    """The tokens of the next few steps.

    Args:
        step: a model that draws.
        options: how to draw.
        offsets: what is added to the scores, (V,), or None.
        seeds: of the samples.
    """

    def __init__(
        self, step: Stepper, options: SamplingOptions, offsets: Tensor | None, seeds: Sequence[int]
    ) -> None:
        self._step, self._seeds = step, list(seeds)
        self._drawing = Drawing(
            float(options.temperature),
            options.top_k,
            float(options.top_p),
            float(options.min_p),
            offsets,
        )
        self._tokens = self._logprobs = torch.empty(0, 0)

    @staticmethod
    def suits(step: Stepper, options: SamplingOptions) -> bool:
        """Whether the model can draw what the options ask for."""
        return step.draws and options.repetition_penalty == 1 and not options.no_repeat_ngram

    @property
    def empty(self) -> bool:
        """Whether all that were drawn have been handed out."""
        return not len(self._tokens)

    def fill(
        self, tokens: Tensor, state: State, time: int, samples: Sequence[int], count: int, most: int
    ) -> tuple[State, int]:
        """Draw the next block: the state after it, and its number of steps.

        Args:
            tokens: the last tokens (n,).
            state: the state before them.
            time: theirs.
            samples: which samples they belong to.
            count: tokens that each sample has.
            most: at most so many steps.
        """
        steps = min(_BLOCK, most)
        seeds = torch.tensor([self._seeds[k] if self._seeds else 0 for k in samples])
        positions = torch.full((len(samples),), count, dtype=torch.int64)
        self._tokens, self._logprobs, state = self._step.draw(
            tokens, state, time, steps, self._drawing, seeds, positions
        )
        return state, steps

    def next(self) -> tuple[Tensor, Tensor]:
        """The next token of each sample, and its log-probability."""
        tokens, logprobs = self._tokens[0], self._logprobs[0]
        self._tokens, self._logprobs = self._tokens[1:], self._logprobs[1:]
        return tokens, logprobs

    def keep(self, places: Tensor) -> None:
        """Go on with these samples only."""
        if self.empty:
            return
        self._tokens, self._logprobs = self._tokens[:, places], self._logprobs[:, places]
