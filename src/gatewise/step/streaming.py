"""The step engine behind a stream: one session, made anew where a control or the weights change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gatewise.engine.cpu import forks
from gatewise.errors import EngineError
from gatewise.mappings.seq_to_seq import LanguageModel
from gatewise.probe import Control, Record, Records, active_control
from gatewise.stack import Layers
from gatewise.step.choose import refusal, refusal_of_control
from gatewise.types import State

if TYPE_CHECKING:  # they load the compiler, which a stream on another engine does not need
    from gatewise.step.model import StepModel, StepStack
    from gatewise.step.reals import RealSession
    from gatewise.step.tokens import TokenSession


def stepping(
    model: nn.Module,
    batch: int,
    record: Record | None,
    control: Control | None,
    engine: str,
    dtype: str | None,
) -> Stepping | None:
    """The step engine for a stream, or None where another engine is asked for or this one cannot run it.

    Raises:
        EngineError: if it, or a dtype, is asked for by name and cannot be had.
    """
    if engine not in ("auto", "step"):
        if dtype is not None:
            raise EngineError(
                f"engine {engine} has no weights of {dtype}: leave out the engine or the dtype"
            )
        return None
    if isinstance(model, LanguageModel | Layers):
        why = refusal(model) or refusal_of_control(control)
        if why is None:
            return Stepping(model, batch, record, control, dtype or "float32")
    else:
        why = f"it knows stacks and language models, not a {type(model).__name__}"
    if engine == "step" or dtype is not None:
        raise EngineError(f"the step engine cannot run this: {why}; leave out engine and dtype")
    return None


class Stepping:
    """Columns of a model on the step engine.

    Args:
        model: that it can run.
        batch: B.
        record: what to read.
        control: what to set.
        dtype: of the packed weights.
    """

    def __init__(
        self,
        model: LanguageModel | Layers,
        batch: int,
        record: Record | None,
        control: Control | None,
        dtype: str,
    ) -> None:
        self._model, self._batch, self._dtype = model, batch, dtype
        self._record, self._control = record, control
        self._owner = self._packed()
        self._session = self._owner.start(batch, record=record, control=control)
        self._acting = control

    @forks.alive()
    def push(self, inputs: Tensor, times: Tensor) -> tuple[Tensor, Records | None]:
        """What the net gives for each step, and what was recorded; `times` (B,) are those of the first."""
        session = self._current()
        session.times.copy_(times)
        return session.push(inputs), session.record

    def reset(self, columns: list[int]) -> None:
        """Begin anew in these columns."""
        self._session.reset(columns)

    def fork(self, columns: list[int]) -> Stepping:
        """A second one that goes on from here with these columns."""
        twin = Stepping(self._model, len(columns), self._record, self._control, self._dtype)
        torch.index_select(self._session.memory, 0, torch.tensor(columns), out=twin._session.memory)
        return twin

    @property
    def state(self) -> State:
        """The state as the model has it, copied."""
        return self._owner.state(self._session)

    @state.setter
    def state(self, state: State) -> None:
        self._owner.load_state(self._session, state)

    def _packed(self) -> StepModel | StepStack:
        from gatewise.step.packed import packed_model, packed_stack

        if isinstance(self._model, LanguageModel):
            return packed_model(self._model, self._dtype)
        return packed_stack(self._model, self._dtype)

    def _current(self) -> TokenSession | RealSession:
        """The session, for the weights and the controls that there are now."""
        stack = self._model.stack if isinstance(self._model, LanguageModel) else self._model
        acting, owner = active_control(stack, self._control), self._packed()
        if owner is not self._owner or acting is not self._acting:
            session = owner.start(self._batch, record=self._record, control=acting)
            session.memory.copy_(self._session.memory)
            self._session, self._owner, self._acting = session, owner, acting
        return self._session
