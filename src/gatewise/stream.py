"""A net that is fed as its sequence arrives: constant memory, equal to the whole sequence at once.

A stream holds a state and the time since its beginning. However its input is cut into pushes,
outputs, states, records and controls are those of one call over everything, to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from gatewise.errors import CheckpointError, OptionError, ShapeError
from gatewise.generate.context import device_of
from gatewise.modes import evaluating
from gatewise.stack import Layers
from gatewise.step.streaming import stepping
from gatewise.types import State, clone, map_state, select
from gatewise.unrolling import check_kinds

if TYPE_CHECKING:
    from gatewise.probe import Control, Record, Records
    from gatewise.text.base import Tokenizer

_FORMAT = {"format": "gatewise-stream-1"}


class Stream:
    """One step, or a few, at a time.

    >>> from gatewise.stack import Stack
    >>> stack = Stack("lstm", 3, 4)
    >>> stream = Stream(stack)
    >>> x = torch.randn(5, 1, 3)
    >>> parts = torch.cat([stream.push(x[:2]), stream.push(x[2:])])
    >>> torch.allclose(parts, stack(x).h, atol=1e-6), stream.time
    (True, 5)

    Args:
        model: a `Stack` (inputs are real vectors, outputs h) or a language model (inputs are
            tokens, outputs logits). It runs in evaluation mode, without gradients.
        batch: B, columns that go side by side.
        record: what to read at each push; see `record`.
        control: what to set; its times count from the stream's beginning.
        engine: "step" is the one for streams, and taken by "auto" where it can run the model; or the
            name of another engine.
        tokenizer: lets texts be pushed.
        dtype: weights of the step engine: float32, bfloat16, int8 or int4. Default: float32.

    Attributes:
        record: what was read during the last push, or None.
        ran: the name of the engine that ran the last push.

    Raises:
        OptionError: if the model reads backwards, or an option is outside its range.
        EngineError: if the step engine, or a dtype, is asked for by name and cannot be had.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: int = 1,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
        tokenizer: Tokenizer | None = None,
        dtype: str | None = None,
    ) -> None:
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise OptionError(f"batch: expected a whole number of 1 or more, found {batch!r}")
        if any(isinstance(m, Layers) and m.bidirectional for m in model.modules()):
            raise OptionError(
                "expected a net that reads forwards, found a bidirectional one: it needs the end "
                "of the sequence; call it on the whole"
            )
        check_kinds(record, control)
        if record is not None and record.grad:
            raise OptionError("a stream keeps no graph: leave out grad=True")
        self.model, self.batch = model, batch
        self.asked, self.control, self.engine = record, control, engine
        self.tokenizer, self.dtype = tokenizer, dtype
        self._steps = stepping(model, batch, record, control, engine, dtype)
        self.ran = ""
        self.unknowns: list[str] = []
        self.record: Records | None = None
        self._state: State = None
        self._times = torch.zeros(batch, dtype=torch.int64)
        self._fresh = torch.ones(batch, dtype=torch.bool)

    @property
    def time(self) -> int:
        """Steps since the beginning, of the column that has made the most."""
        return int(self._times.max())

    @torch.no_grad()
    def push(self, x: Tensor | np.ndarray[Any, Any] | Sequence[Any] | int | str) -> Tensor:
        """Feed the next steps; what the net gives for each of them.

        Afterwards `record` holds what was read during this push, with its times; a path is missing
        from it where none of these times was asked for.

        Args:
            x: tokens (T, B), or real inputs (T, B, I). Of one column B may be left out; of one
                step, with several columns, T. For a language model with a tokenizer also a text,
                into one column: what its vocabulary does not hold is added to `unknowns`. Tokens of more than one
                character (BPE, words) depend on where a text is cut.

        Returns:
            logits (T, B, V), or h (T, B, H) of a bare stack.

        Raises:
            ShapeError: if `x` does not fit.
            OptionError: if `x` is a text, and there is no tokenizer or more than one column.
        """
        inputs = self._inputs(x)
        result = (
            self._push(inputs) if self._steps is None or not len(inputs) else self._step(inputs)
        )
        if len(inputs):
            self._fresh = torch.zeros_like(self._fresh)
            self._times = self._times + len(inputs)
        return result

    def _step(self, inputs: Tensor) -> Tensor:
        """Through the step engine."""
        assert self._steps is not None
        result, self.record = self._steps.push(inputs, self._times)
        self.ran = "step"
        return result

    def _push(self, inputs: Tensor) -> Tensor:
        """Through the model."""
        with evaluating(self.model):
            out = self.model(
                inputs,
                self._state,
                reset=self._reset_mask(len(inputs)),
                start=self._start(),
                engine="auto" if self._steps is not None else self.engine,
                record=self.asked,
                control=self.control,
            )
        if len(inputs):
            self._state = out.state
        self.record, self.ran = out.record, out.engine
        result: Tensor = out.h if isinstance(self.model, Layers) else out.logits
        return result

    def fork(self, columns: Sequence[int] | None = None) -> Stream:
        """A second stream that goes on from here by itself.

        Args:
            columns: which columns it has, in this order; one may be repeated. Default: all.
        """
        index = self._columns(columns)
        if not len(index):
            raise OptionError("columns: a stream has at least one, found none")
        twin = Stream(
            self.model,
            len(index),
            record=self.asked,
            control=self.control,
            engine=self.engine,
            tokenizer=self.tokenizer,
            dtype=self.dtype,
        )
        if self._steps is None:
            twin._state = select(self._state, index)
        else:
            twin._steps = self._steps.fork(index.tolist())
        twin._times, twin._fresh = self._times[index], self._fresh[index]
        return twin

    def reset(self, columns: Sequence[int] | None = None) -> None:
        """Begin anew, at time 0: all columns, or those named."""
        chosen = self._columns(columns)
        self._times, self._fresh = self._times.clone(), self._fresh.clone()
        self._times[chosen] = 0
        self._fresh[chosen] = True
        if self._steps is not None:
            self._steps.reset(chosen.tolist())
        if bool(self._fresh.all()):
            self._state = None
        self.record = None

    # --- the state as data -----------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Tensor]:
        """All that the stream will need to go on, as a flat dict of tensors of its own.

        "time" (B,), "fresh" (B,): columns that have read nothing since they began; "state...":
        the net's state, by place. Assign it, or what `load` read, to go on from there.
        """
        parts = {"time": self._times.clone(), "fresh": self._fresh.clone()}
        state = clone(self._state)
        if self._steps is not None:
            state = None if bool(self._fresh.all()) else self._steps.state
        return parts | dict(_flatten(state, "state"))

    @state.setter
    def state(self, parts: Mapping[str, Tensor]) -> None:
        times, fresh = _column(parts, "time", self.batch), _column(parts, "fresh", self.batch)
        state = _build(parts, "state")
        strange = set(parts) - {"time", "fresh"} - {name for name, _ in _flatten(state, "state")}
        if strange:
            raise ShapeError(f"expected the state of a stream, found {', '.join(sorted(strange))}")
        self._check(state, bool(fresh.all()))
        if self._steps is not None:
            self._steps.state = state
        else:
            device = device_of(self.model)
            self._state = map_state(lambda s: s.to(device, copy=True), state)
        self._times = times.to("cpu", torch.int64, copy=True)
        self._fresh = fresh.to("cpu", torch.bool, copy=True)
        self.record = None

    def to_bytes(self) -> bytes:
        """The state as one safetensors document."""
        parts = {name: part.cpu().contiguous() for name, part in self.state.items()}
        return safetensors.torch.save(parts, _FORMAT)

    def from_bytes(self, data: bytes) -> None:
        """Go on from what `to_bytes` gave.

        Raises:
            CheckpointError: if it is something else.
            ShapeError: if it belongs to another net or batch.
        """
        try:
            parts = safetensors.torch.load(data)
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"expected the state of a stream, found {error}") from None
        self.state = parts

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, replaced as a whole.

        Raises:
            CheckpointError: if it cannot be written.
        """
        path = Path(path)
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_bytes(self.to_bytes())
            part.replace(path)
        except OSError as error:
            raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from None

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from the state in a file; see `from_bytes`."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise CheckpointError(f"expected the state of a stream: {error}") from None
        self.from_bytes(data)

    def _check(self, state: State, all_fresh: bool) -> None:
        """The state must have the places and sizes of the model's own."""
        if state is None and not all_fresh:
            raise ShapeError("expected the state of a stream, found no state but columns that run")
        zero = getattr(self.model, "zero_state", None)
        if state is None or zero is None:
            return
        with torch.no_grad():
            expected = {k: (v.dtype, *v.shape) for k, v in _flatten(zero(self.batch), "state")}
        found = {name: (part.dtype, *part.shape) for name, part in _flatten(state, "state")}
        if found != expected:
            raise ShapeError(
                f"expected the state of this net, batch {self.batch}: {expected}, found {found}"
            )

    # --- inputs ----------------------------------------------------------------------------------

    def _columns(self, columns: Sequence[int] | None) -> Tensor:
        """The columns meant, as an index; OptionError if one is not there."""
        chosen = list(range(self.batch)) if columns is None else list(columns)
        if any(isinstance(c, bool) or not hasattr(c, "__index__") for c in chosen) or any(
            not 0 <= c < self.batch for c in chosen
        ):
            raise OptionError(
                f"columns: expected numbers from 0 to {self.batch - 1}, found {columns}"
            )
        return torch.tensor([int(c) for c in chosen], dtype=torch.int64)

    def _start(self) -> int | Tensor:
        """The time of the next step: one number while all columns are at the same time."""
        first = int(self._times[0])
        return first if bool((self._times == first).all()) else self._times

    def _reset_mask(self, steps: int) -> Tensor | None:
        """(T, B): columns that begin while others go on are put back before the first step."""
        if self._state is None or not steps or not bool(self._fresh.any()):
            return None
        mask = torch.zeros(steps, self.batch, dtype=torch.bool)
        mask[0] = self._fresh
        return mask.to(device_of(self.model))

    def _inputs(self, x: Tensor | np.ndarray[Any, Any] | Sequence[Any] | int | str) -> Tensor:
        """`x` as (T, B) tokens or (T, B, I) reals, on the model's device."""
        if isinstance(x, str):
            x = self._encoded(x)
        real = isinstance(self.model, Layers)
        try:
            tensor = x if isinstance(x, Tensor) else torch.tensor(np.asarray(x))
        except (TypeError, ValueError, RuntimeError) as error:
            raise ShapeError(f"expected a tensor or numbers to push: {error}") from None
        if not real and (not tensor.numel() or not tensor.is_floating_point()):
            tensor = tensor.long()
        missing = 2 + real - tensor.ndim
        if missing == 1:
            tensor = tensor.unsqueeze(1 if self.batch == 1 else 0)
        elif missing == 2 and self.batch == 1:
            tensor = tensor[None, None]
        if tensor.ndim != 2 + real or tensor.shape[1] != self.batch:
            wanted = f"(T, {self.batch}, I)" if real else f"(T, {self.batch})"
            raise ShapeError(f"expected x of shape {wanted}, found {tuple(np.shape(x))}")
        if real:
            tensor = tensor.to(next(self.model.parameters()).dtype)
        return tensor.to(device_of(self.model))

    def _encoded(self, text: str) -> np.ndarray[Any, Any]:
        if self.tokenizer is None:
            raise OptionError("expected tokens, found a text: give the stream a tokenizer")
        if self.batch > 1:
            raise OptionError(
                f"a text goes into a stream of one column, found {self.batch}: push tokens (T, B)"
            )
        new = (u for u in self.tokenizer.unknowns(text) if u not in self.unknowns)
        self.unknowns.extend(new)
        return self.tokenizer.encode(text)


def _flatten(state: State, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield name, state
    elif state is not None:
        for place, part in enumerate(state):
            yield from _flatten(part, f"{name}.{place}")


def _build(parts: Mapping[str, Tensor], name: str) -> State:
    """The state whose tensors are named as `_flatten` does."""
    if name in parts:
        return parts[name]
    below = [key for key in parts if key.startswith(name + ".")]
    count = len({key[len(name) + 1 :].split(".")[0] for key in below})
    return tuple(_build(parts, f"{name}.{place}") for place in range(count)) if count else None


def _column(parts: Mapping[str, Tensor], name: str, batch: int) -> Tensor:
    found = parts.get(name)
    if found is None or found.shape != (batch,) or found.dtype.is_floating_point:
        shape = "nothing" if found is None else f"{found.dtype} {tuple(found.shape)}"
        raise ShapeError(f"expected {name!r} of a stream of batch {batch}, found {shape}")
    return found
