"""A text that a model has read: the scores of what comes next, and the state to go on from.

This is all that generation knows of a model: tokens and a state in, scores and a state out. It does
not know cells, engines or text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.errors import OptionError, ShapeError
from gatewise.modes import evaluating
from gatewise.types import State

if TYPE_CHECKING:
    from gatewise.probe import Control
    from gatewise.step.drawing import Drawing

# Tokens read at once: long prompts need no more memory than this many.
_CHUNK = 512


class TokenModel(Protocol):
    """What generation asks of a model; `gatewise.mappings.seq_to_seq.LanguageModel` is one."""

    def __call__(
        self,
        tokens: Tensor,
        state: State = None,
        *,
        logits: str = "all",
        start: int = 0,
        engine: str = "auto",
        control: Control | None = None,
    ) -> Any:
        """Tokens (T, B) to an object with .logits and .state."""


@dataclass(frozen=True)
class Context:
    """A prompt that has been read.

    Args:
        ids: its tokens, (T,) int64.
        logits: scores of the next token, (1, V) float32 or float64.
        state: the model's state after it, batch 1.
        time: how many steps the model has made since its sequence began.
    """

    ids: np.ndarray[Any, np.dtype[np.int64]]
    logits: Tensor
    state: State
    time: int


class Stepper:
    """A model, called one step after the other: in evaluation mode, without gradients.

    Args:
        model: obeys `TokenModel`. If it is in training mode, it is back there after each call.
        control: acts at the times that it names; see `start`.
        engine: which engine the model is to use.
    """

    def __init__(
        self, model: TokenModel, *, control: Control | None = None, engine: str = "auto"
    ) -> None:
        self._model = model
        self._control = control
        self._engine = engine
        self.device = device_of(model)

    @property
    def draws(self) -> bool:
        """Whether the model draws tokens itself, several in one call."""
        return hasattr(self._model, "draw") and self._engine in ("auto", "step")

    @torch.inference_mode()
    def draw(
        self,
        tokens: Tensor,
        state: State,
        start: int,
        steps: int,
        drawing: Drawing,
        seeds: Tensor,
        positions: Tensor,
    ) -> tuple[Tensor, Tensor, State]:
        """What `gatewise.step.generation.StepLanguageModel.draw` gives, of a model that draws."""
        found: tuple[Tensor, Tensor, State] = self._model.draw(  # type: ignore[attr-defined]
            tokens, state, start, steps, drawing, seeds, positions, self._control
        )
        return found

    @torch.inference_mode()
    def __call__(self, tokens: Tensor, state: State, start: int) -> tuple[Tensor, State]:
        """Scores after the last of `tokens` (T, B), as (B, V) float, and the state there."""
        with evaluating(self._model):
            out = self._model(
                tokens.to(self.device),
                state,
                logits="last",
                start=start,
                engine=self._engine,
                control=self._control,
            )
        logits: Tensor = out.logits
        scores = logits.reshape(-1, logits.shape[-1])[-tokens.shape[1] :]
        return (scores if scores.dtype == torch.float64 else scores.float()), out.state


def read(
    step: Stepper,
    ids: Sequence[int] | np.ndarray[Any, Any] | Tensor,
    *,
    after: Context | None = None,
    state: State = None,
    start: int = 0,
) -> Context:
    """The context of a prompt, or of a longer one where `after` holds its beginning.

    Args:
        step: the model.
        ids: the tokens that follow `after`, or the whole prompt, (T,). None of them: `after`.
        after: what has been read already.
        state: the model's state before the prompt, where `after` is not given.
        start: time of the prompt's first token, where `after` is not given.

    Raises:
        OptionError: if there is nothing to read.
        ShapeError: if `ids` is not a list of numbers.
    """
    tokens = np.asarray(ids, dtype=np.int64)
    if tokens.ndim != 1:
        raise ShapeError(f"expected a prompt of ids (T,), found the shape {tokens.shape}")
    if after is not None:
        state, start = after.state, after.time
    if not len(tokens):
        if after is None:
            raise OptionError("expected a prompt of at least one token, found none")
        return after
    logits: Tensor | None = None
    for at in range(0, len(tokens), _CHUNK):
        chunk = torch.from_numpy(tokens[at : at + _CHUNK]).unsqueeze(1)
        logits, state = step(chunk, state, start + at)
    assert logits is not None
    known = tokens if after is None else np.concatenate([after.ids, tokens])
    return Context(known, logits, state, start + len(tokens))


def device_of(model: object) -> torch.device:
    """Where the parameters of `model` are."""
    if isinstance(model, nn.Module):
        for parameter in model.parameters():
            return parameter.device
    return torch.device("cpu")
