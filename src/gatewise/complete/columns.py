"""Rows of states through a packed model: what a batcher asks of the step engine.

A state is a row (R,) of its own, so that samples come and go: rows are copied into a session of as many columns, and out of
it. Sessions are few and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gatewise.engine.cpu import forks
from gatewise.probe import Control
from gatewise.step.drawing import Drawing
from gatewise.step.generation import StepLanguageModel
from gatewise.step.tokens import TokenSession


@dataclass(frozen=True, eq=False)
class Row:
    """A sample as the model sees it.

    Args:
        state: before its last token, (R,).
        token: its last one.
        time: that token's.
        seed: of its draws.
        drawn: how many tokens it has drawn: which number of its seed comes next.
    """

    state: Tensor
    token: int
    time: int
    seed: int
    drawn: int


@dataclass(frozen=True, eq=False)
class Drawn:
    """What came out of a row.

    Args:
        tokens, logprobs: of each step.
        state: before the last of the tokens, (R,).
    """

    tokens: list[int]
    logprobs: list[float]
    state: Tensor


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
    def score(self, state: Tensor, ids: NDArray[Any], position: int) -> float:
        """Log-probability in nats of all but the first of the tokens, each given those before."""
        session, line = self._placed(state, position), _column(ids)
        nats = session.push(line[:-1])[:, 0].log_softmax(-1)
        return float(nats.gather(1, line[1:]).double().sum())

    @forks.alive()
    def draw(self, rows: Sequence[Row], steps: int, drawing: Drawing) -> list[Drawn]:
        """So many tokens for each row, all drawn in the same way."""
        session = self._session(_width(len(rows)))
        memory, times = session.memory, session.times
        seeds, tokens, positions = torch.zeros(3, session.batch, dtype=torch.int64).unbind()
        for place, row in enumerate(rows):
            memory[place] = row.state
            tokens[place], seeds[place] = row.token, row.seed
            positions[place], times[place] = row.drawn, row.time
        found, logprobs = session.run(tokens, steps, drawing, seeds, positions)
        after = memory[: len(rows)].clone()
        lines = zip(found.T.tolist(), logprobs.T.tolist(), after.unbind(), strict=False)
        return [Drawn(*line) for line in lines]

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
