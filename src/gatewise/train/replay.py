"""The passes of a step, recorded once on a card and replayed: a step then costs what the card takes, not what
Python takes to launch some five hundred kernels.

A recording reads and writes the same memory each time: batch and state are copied in, gradients and
results stand where they stood. Masks are drawn anew, from the seeds that the step would have drawn itself
(`noise.Tape`). What is updated with the gradients is no part of it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from gatewise.errors import EngineError
from gatewise.mappings import LanguageLearner
from gatewise.mappings.learner import Batch, Learner, Loss
from gatewise.noise import Tape
from gatewise.types import State, clone, detach, state_tensors

WARM_UP = 3  # steps of a shape before it is recorded: kernels are made, libraries choose theirs


@dataclass(frozen=True)
class Passes:
    """What a step has computed before its update; the gradients are at the parameters."""

    loss: Loss
    norm: Tensor


Run: TypeAlias = Callable[[Batch, State], Passes]
Recorder: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes what is to be recorded, and gives what replays it; recording need not run it."""
Key: TypeAlias = tuple[tuple[object, ...], ...]


def can_be_recorded(learner: Learner, device: torch.device) -> bool:
    """Whether a learner's steps can be: language models on a card, but for costs that ask the card on the way."""
    if device.type != "cuda" or not isinstance(learner, LanguageLearner):
        return False
    return learner.model.config.softmax != "adaptive"


def on_card(run: Callable[[], None]) -> Callable[[], None]:
    """Record the kernels that `run` launches as a CUDA graph."""
    gc.collect()  # what an earlier step has left would bind the gradients to its stream
    graph = torch.cuda.CUDAGraph()
    # evaluations and checkpoints in other threads may go on meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    replay: Callable[[], None] = graph.replay
    return replay


class Replayed:
    """A step's passes; those of the shape that comes most often are replayed.

    Args:
        run: computes them, the same kernels for the same shapes; nothing in it may wait for the card.
        parameters: what has gradients.
        notice: is told in one line where recording failed; everything then runs as without.
        record: how. Default: on a card.
    """

    def __init__(
        self,
        run: Run,
        parameters: Sequence[Tensor],
        notice: Callable[[str], None],
        record: Recorder = on_card,
    ) -> None:
        self._run, self._parameters, self._notice = run, parameters, notice
        self._record = record
        self._seen: dict[Key, int] = {}
        self._recording: _Recording | None = None
        self._failed = False

    def __call__(self, batch: Batch, state: State) -> Passes:
        """The passes of one step; the gradients are None before."""
        if self._failed:
            return self._run(batch, state)
        key = _key(batch, state)
        recording = self._recording
        if recording is None and self._is_usual(key):
            recording = self._recording = self._recorded(key, batch, state)
        if recording is None or not recording.serves(key, self._parameters):
            return self._run(batch, state)
        return recording.replay(batch, state, self._parameters)

    def _is_usual(self, key: Key) -> bool:
        self._seen[key] = self._seen.get(key, 0) + 1
        return self._seen[key] > WARM_UP

    def _recorded(self, key: Key, batch: Batch, state: State) -> _Recording | None:
        try:
            return _Recording(key, batch, state, self._run, self._parameters, self._record)
        except (RuntimeError, EngineError) as error:
            self._failed = True
            for parameter in self._parameters:
                parameter.grad = None
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            self._notice(f"steps are not recorded on the card, each is launched anew: {line}")
            return None


class _Recording:
    """One recorded step, and the memory that it reads and writes."""

    def __init__(
        self,
        key: Key,
        batch: Batch,
        state: State,
        run: Run,
        parameters: Sequence[Tensor],
        record: Recorder,
    ) -> None:
        self._key, self._places = key, _places(parameters)
        self._inputs = tuple(t.clone() for t in batch.inputs)
        self._state = clone(state)
        self._tape = Tape(self._inputs[0].device)
        still = replace(batch, inputs=self._inputs)

        def once() -> None:
            with self._tape.recording():
                found = run(still, self._state)
            # without their graphs, which would keep the stream of the recording alive
            loss = replace(
                found.loss, loss=found.loss.loss.detach(), state=detach(found.loss.state)
            )
            self._found = Passes(loss, found.norm.detach())
            self._gradients = [p.grad for p in parameters]
            for parameter in parameters:
                parameter.grad = None

        self._replay = record(once)

    def serves(self, key: Key, parameters: Sequence[Tensor]) -> bool:
        """Whether it is of these shapes, and the weights are where they were."""
        return key == self._key and self._places == _places(parameters)

    def replay(self, batch: Batch, state: State, parameters: Sequence[Tensor]) -> Passes:
        """The passes for another batch and state."""
        for own, given in zip(self._inputs, batch.inputs, strict=True):
            own.copy_(given)
        for own, given in zip(state_tensors(self._state), state_tensors(state), strict=True):
            own.copy_(given)
        self._tape.draw()
        self._replay()
        for parameter, gradient in zip(parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._found


def _key(batch: Batch, state: State) -> Key:
    tensors = (*batch.inputs, *state_tensors(state))
    return tuple((t.shape, t.dtype, t.device) for t in tensors)


def _places(parameters: Sequence[Tensor]) -> list[int]:
    return [p.data_ptr() for p in parameters]
