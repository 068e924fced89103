"""A packed language model as generation asks for one: tokens and a state in, scores and a state out.

A state is a plain tensor (B, R), one row for a column, so that `gatewise.types.select` forks and drops columns.
Calls from several threads do not meet: each takes a session of its own from those that are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.engine.cpu import forks
from gatewise.errors import OptionError
from gatewise.mappings.seq_to_seq import LanguageModel
from gatewise.probe import Control, active_control
from gatewise.step.drawing import Drawing
from gatewise.step.model import StepModel
from gatewise.step.packed import packed_model
from gatewise.step.tokens import TokenSession
from gatewise.types import State

_KEPT = 8
"""Sessions that are kept for the next call."""

_SCORES = 1 << 22
"""Scores that are in memory at once while a cost is measured."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class StepOutput:
    """What a call computes.

    Args:
        logits: scores, (T, B, V), or (1, B, V) for "last".
        state: pass it back in to continue.
        engine: "step".
    """

    logits: Tensor
    state: State
    engine: str = "step"


@dataclass(frozen=True)
class StepLoss:
    """The cost of one chunk.

    Args:
        nats: mean per target.
        state: the state after the chunk.
    """

    nats: Tensor
    state: State


class StepLanguageModel:
    """Obeys `gatewise.generate.TokenModel`, and draws several tokens in one call.

    It is packed again where the model's weights have changed since.

    Args:
        model: the language model.
        dtype: of the packed weights.

    Raises:
        EngineError: if the model cannot be packed.
    """

    def __init__(self, model: LanguageModel, dtype: str = "float32") -> None:
        self._model, self.dtype = model, dtype
        self.packed = packed_model(model, dtype)
        self._free: list[tuple[StepModel, Control | None, TokenSession]] = []

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self._model.vocab_size

    @property
    def device(self) -> torch.device:
        """Where tokens are expected."""
        return torch.device("cpu")

    def __call__(
        self,
        tokens: Tensor,
        state: State = None,
        *,
        logits: str = "all",
        start: int | Tensor = 0,
        engine: str = "auto",
        control: Control | None = None,
    ) -> StepOutput:
        """Tokens (T, B) to scores and a state; see `LanguageModel`."""
        if engine not in ("auto", "step"):
            raise OptionError(f"expected the engine step, as the model is packed, found {engine}")

        def read(session: TokenSession) -> Tensor:
            if logits == "last":
                return session.feed(tokens).unsqueeze(0)
            return session.push(tokens)

        scores, new = self._run(tokens.shape[1], state, start, control, read)
        return StepOutput(scores, new)

    @forks.alive()
    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: State = None,
        *,
        start: int = 0,
        engine: str = "auto",
    ) -> StepLoss:
        """Mean nats of `targets` (T, B) given `tokens` (T, B); see `LanguageModel.loss`."""
        rows = max(1, _SCORES // (tokens.shape[1] * self.vocab_size))
        total = torch.zeros((), dtype=torch.float64)
        for at in range(0, len(tokens), rows):
            out = self(tokens[at : at + rows], state, start=start + at, engine=engine)
            scores, wanted = out.logits.flatten(0, 1), targets[at : at + rows].flatten()
            total += F.cross_entropy(scores, wanted, reduction="sum").double()
            state = out.state
        return StepLoss((total / targets.numel()).float(), state)

    def draw(
        self,
        tokens: Tensor,
        state: State,
        start: int,
        steps: int,
        drawing: Drawing,
        seeds: Tensor,
        positions: Tensor,
        control: Control | None = None,
    ) -> tuple[Tensor, Tensor, State]:
        """Feed tokens (B,), then draw `steps` more: they and their log-probabilities, (steps, B).

        Args:
            tokens: the last ones.
            state: the state before them.
            start: their time.
            steps: how many.
            drawing: how.
            seeds: (B,) int64.
            positions: (B,) int64: which number of its seed each column's next token is drawn with.
            control: what to set.
        """
        (drawn, logprobs), new = self._run(
            len(tokens),
            state,
            start,
            control,
            lambda session: session.run(tokens, steps, drawing, seeds, positions),
        )
        return drawn, logprobs, new

    @forks.alive()
    def _run(
        self,
        batch: int,
        state: State,
        start: int | Tensor,
        control: Control | None,
        call: Callable[[TokenSession], _Result],
    ) -> tuple[_Result, Tensor]:
        control = active_control(self._model.stack, control)
        with self._session(batch, control) as session:
            if isinstance(state, Tensor) and state.ndim == 2:
                session.restore((state, session.times))
            else:
                session.packed_state(self.packed, state)
            session.times.copy_(torch.as_tensor(start))
            return call(session), session.memory.clone()

    @contextmanager
    def _session(self, batch: int, control: Control | None) -> Iterator[TokenSession]:
        """A session that nobody else uses."""
        packed = self.packed = packed_model(self._model, self.dtype)
        session = None
        for place, (owner, own, free) in enumerate(self._free):
            if owner is packed and own is control and free.batch == batch:
                session = self._take(place, free)
                break
        if session is None:
            # a session is kept: whoever comes next may be in inference mode, or not
            with torch.inference_mode(False):
                session = packed.start(batch, control=control)
        yield session
        self._free.insert(0, (packed, control, session))
        del self._free[_KEPT:]

    def _take(self, place: int, expected: TokenSession) -> TokenSession | None:
        """The free session at a place, or None where another thread was quicker."""
        try:
            entry = self._free.pop(place)
        except IndexError:
            return None
        if entry[2] is expected:
            return expected
        self._free.insert(0, entry)
        return None
