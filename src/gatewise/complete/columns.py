"""Rows of states through a packed model: what a batcher asks of the step engine.

A state is a row (R,) of its own, so that samples come and go: rows are copied into a session of as many columns, and out of
it. Sessions are few and kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gatewise.engine.cpu import forks
from gatewise.errors import DivergedError
from gatewise.probe import Control
from gatewise.step.drawing import Drawing
from gatewise.step.generation import StepLanguageModel
from gatewise.step.tokens import TokenSession

PIECE = 64
"""Tokens that are scored at a time: pieces are of one size, so that sums are the same whatever else is to be done."""
COLUMNS = 96
"""That go side by side at most: more are no quicker together, and each takes a row of scores."""


def broken() -> DivergedError:
    """The scores are not finite."""
    return DivergedError(
        "expected finite scores, found NaN: the model's weights are broken; load an earlier checkpoint"
    )


@dataclass(frozen=True, eq=False)
class Rows:
    """Samples as the model sees them, drawn alike.

    Args:
        states: before the last token of each, (n, R).
        tokens: the last ones.
        times: theirs.
        seeds: of the draws.
        drawn: how many tokens each has drawn: which number of its seed comes next.
    """

    states: Tensor
    tokens: list[int]
    times: list[int]
    seeds: list[int]
    drawn: list[int]


@dataclass(frozen=True, eq=False)
class Drawn:
    """What came out of them.

    Args:
        tokens, logprobs: of each sample, step by step.
        states: before the last token of each, (n, R).
    """

    tokens: list[list[int]]
    logprobs: list[list[float]]
    states: Tensor


class Columns:
    """A packed model.

    Args:
        model: packed for the step engine.
        control: acts on all rows.

    Attributes:
        start: the state before a text, (R,).
    """

    def __init__(self, model: StepLanguageModel, control: Control | None = None) -> None:
        self.model, self._control = model, control
        self._packed = model.packed
        self._sessions: dict[int, TokenSession] = {}
        self.start = self._session(1).memory[0].clone()

    @forks.alive()
    def feed(self, state: Tensor, ids: NDArray[Any], position: int) -> Tensor:
        """The state after some more tokens, the first of which stands at `position`."""
        session = self._placed(state, position)
        session.feed(_column(ids))
        return session.memory[0].clone()

    @forks.alive()
    def score(self, state: Tensor, ids: NDArray[Any], position: int) -> tuple[float, Tensor]:
        """Log-probability in nats of all but the first of the tokens, each given those before, and the state before
        the last.
        """
        _, own, state = self._nats(state, ids, position)
        return float(own.double().sum()), state

    @forks.alive()
    def best(
        self, state: Tensor, ids: NDArray[Any], position: int, count: int
    ) -> tuple[list[float], list[tuple[tuple[int, float], ...]], Tensor]:
        """Of all but the first of the tokens: log-probability in nats, the `count` most probable in its place with theirs, the
        best first, and the state before the last.
        """
        nats, own, state = self._nats(state, ids, position)
        values, places = nats.topk(min(count, nats.shape[1]))
        best = [
            tuple(zip(*row, strict=True))
            for row in zip(places.tolist(), values.tolist(), strict=True)
        ]
        return own.tolist(), best, state

    def _nats(
        self, state: Tensor, ids: NDArray[Any], position: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities (N - 1, V) behind each token but the last, those of the tokens that came, the state.

        Raises:
            DivergedError: they are not finite.
        """
        session, line = self._placed(state, position), _column(ids)
        nats = session.push(line[:-1])[:, 0].log_softmax(-1)
        own = nats.gather(1, line[1:])[:, 0]
        if bool(own.isnan().any()):
            raise broken()
        return nats, own, session.memory[0].clone()

    @forks.alive()
    def step(
        self, states: Sequence[Tensor], tokens: Sequence[int], positions: Sequence[int]
    ) -> Tensor:
        """The states (n, R) after one more token of each of several texts."""
        count = len(tokens)
        session = self._session(_width(count))
        torch.stack(tuple(states), out=session.memory[:count])
        session.times[:count] = torch.tensor(positions)
        line = torch.zeros(1, session.batch, dtype=torch.int64)
        line[0, :count] = torch.tensor(tokens)
        session.feed(line)
        return session.memory[:count].clone()

    @forks.alive()
    def draw(self, several: Sequence[Rows], steps: int, drawing: Drawing) -> list[Drawn]:
        """So many tokens for each row, all drawn in the same way; those that were given together stay together."""
        sizes = [len(rows.tokens) for rows in several]
        count = sum(sizes)
        session = self._session(_width(count))
        torch.cat([rows.states for rows in several], out=session.memory[:count])
        named = ("tokens", "seeds", "drawn", "times")
        values = [[one for rows in several for one in getattr(rows, name)] for name in named]
        numbers = torch.zeros(len(named), session.batch, dtype=torch.int64)
        numbers[:, :count] = torch.tensor(values)
        tokens, seeds, positions, times = numbers.unbind()
        session.times.copy_(times)
        found, logprobs = session.run(tokens, steps, drawing, seeds, positions)
        after = torch.split(session.memory[:count].clone(), sizes)
        lines, nats = found.T.tolist(), logprobs.T.tolist()
        ends = itertools.accumulate(sizes)
        return [
            Drawn(lines[end - size : end], nats[end - size : end], states)
            for size, end, states in zip(sizes, ends, after, strict=True)
        ]

    def _placed(self, state: Tensor, position: int) -> TokenSession:
        session = self._session(1)
        session.memory[0] = state
        session.times[0] = position
        return session

    def _session(self, batch: int) -> TokenSession:
        """A session of so many columns, kept for the next call."""
        if batch not in self._sessions:
            with torch.inference_mode(False):  # the first is made before the batcher's thread
                self._sessions[batch] = self._packed.start(batch, control=self._control)
        return self._sessions[batch]


def _column(ids: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(ids, np.int64)).unsqueeze(1)


def _width(columns: int) -> int:
    """Columns of the session that is taken: few sizes, so that few sessions are kept."""
    return columns if columns <= 8 else -(-columns // 8) * 8
