"""Models packed for generation and streaming: `StepModel` for tokens, `StepStack` for real inputs.

    model = StepModel(language_model, dtype="int8")       # packed once; shared by any number of threads
    session = model.start(batch=4)                        # states of 4 columns; record=, control= as ever
    scores = session.feed(prompt)                         # (T, B) tokens -> (B, V) scores after the last
    scores = session.step(tokens)                         # (B,) -> (B, V)
    tokens, logprobs = session.run(tokens, 100, Drawing(temperature=0.7, top_k=40), seeds)
    twin = session.fork([0, 0, 3]); saved = session.save(); session.restore(saved)
    session.record["layers.0.f"]; model.state(session); model.load_state(session, state)

One call of `run` is one call of machine code for all of its steps. `choose.refusal` says why a model cannot
be packed. Packed weights are copies: pack again after training.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gatewise.cells.base import start_state, state_parts
from gatewise.engine.base import Direction
from gatewise.engine.cpu import forks
from gatewise.engine.cpu.step.formats import FORMATS, Format, Quantised
from gatewise.engine.cpu.step.program import REALS, ROWS, TABLE, host
from gatewise.engine.cpu.step.tiles import Target
from gatewise.errors import EngineError, unknown
from gatewise.mappings.seq_to_seq import LanguageModel
from gatewise.probe import Control, Record
from gatewise.stack import Layers
from gatewise.step.choose import DTYPES, refusal
from gatewise.step.core import Core
from gatewise.step.reals import RealSession
from gatewise.step.session import Session
from gatewise.step.tokens import TokenSession
from gatewise.step.weights import (
    Part,
    embedding_rows,
    layer_part,
    linear_part,
    padded,
    state_places,
)
from gatewise.types import State

_TABLE_BYTES = 96 << 20
"""A table of first-layer pre-activations is made up to this size, or that of the model's own weights in float32,
unless it is asked for."""

Stored = Mapping[str, Quantised]


class _Packed:
    """What both kinds have."""

    core: Core

    def __init__(self, model: LanguageModel | Layers, dtype: str, target: Target | None) -> None:
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        if why := refusal(model):
            raise EngineError(f"the step engine cannot run this: {why}; leave out dtype")
        self.dtype = dtype
        self._form: Format = FORMATS[dtype]
        self._target = host() if target is None else target
        # not the stack itself: what is packed must not keep it alive (see `packed`)
        stack: Layers = model.stack if isinstance(model, LanguageModel) else model
        self._names, self._states = stack.names(), stack.state_form
        self._directions: tuple[Direction, ...] = tuple(stack.directions())
        self._start = self._start_row()

    @property
    def names(self) -> tuple[str, ...]:
        """Every path that can be recorded and controlled."""
        return self._names

    def bytes(self) -> int:
        """Bytes in memory."""
        return self.core.resident()

    def read_bytes(self) -> int:
        """Bytes that a step of one column reads: what bounds its speed."""
        return self.core.read()

    def _start_row(self) -> Tensor:
        """The state of a column before its first step, as one row."""
        places, size = state_places(self._directions, self._target.lanes)
        row = torch.zeros(size)
        for d, here in zip(self._directions, places, strict=True):
            units = d.weights.hidden_size
            like = torch.zeros(1, units)
            start = start_state(d.law, dict.fromkeys(here, units), 1, like, d.start)
            for name, at in here.items():
                row[at : at + units] = start[name][0].detach()
        return row

    def _layers(self, table: Tensor | None, stored: Stored) -> tuple[Part, ...]:
        parts = []
        for number, direction in enumerate(self._directions):
            names = {"ih": f"weight_ih_l{number}", "hh": f"weight_hh_l{number}"}
            own = {k: stored[n] for k, n in names.items() if n in stored}
            given = table if number == 0 else None
            parts.append(layer_part(direction, self._form, self._target, given, own))
        return tuple(parts)

    def state(self, session: Session) -> State:
        """The states of a session as those of the model, copied: pass it to the model to continue."""
        parts = tuple(
            next(iter(p.values())) if len(p) == 1 else tuple(p.values()) for p in session.parts()
        )
        return self._states.whole(parts)

    def load_state(self, session: Session, state: State) -> None:
        """Let a session go on from a state of the model; None begins anew."""
        if state is None:
            session.reset()
            return
        law, split = self._states.law, self._states.split(state)
        session.set_parts(
            [dict(zip(law.states, state_parts(law, part), strict=True)) for part in split]
        )


class StepModel(_Packed):
    """A language model packed for generation.

    Args:
        model: the model, of float32 weights on a CPU.
        dtype: "float32", "bfloat16", "int8" (a scale for each row) or "int4" (a scale for each 64
            weights); vectors are rounded to match, sums are exact or float32.
        table: fold the embedding into the first layer (exact): V x G H float32. Default: where that
            takes 96 MB, or as much as the model's weights in float32, at most.
        threads: at most so many. Default: torch's, or one where little is read.
        stored: matrices given in whole numbers, by their names in the model's state_dict.
        target: processor to emit for. Default: this one.

    Raises:
        EngineError: if the model cannot be packed; the message says why.
    """

    @forks.alive()
    def __init__(
        self,
        model: LanguageModel,
        dtype: str = "float32",
        *,
        table: bool | None = None,
        threads: int | None = None,
        stored: Stored | None = None,
        target: Target | None = None,
    ) -> None:
        super().__init__(model, dtype, target)
        stored = stored or {}
        embedding = model.embedding.weight
        if table is None:
            own = 4 * sum(p.numel() for p in model.parameters())
            table = self._table_bytes(len(embedding)) <= max(_TABLE_BYTES, own)
        of_layers = {n.removeprefix("stack."): q for n, q in stored.items()}
        weight, bias = model.decoder_weights()
        name = "embedding.weight" if model.decoder is None else "decoder.weight"
        project = None
        if model.projection is not None:
            given = stored.get("projection.weight", model.projection.weight)
            project = linear_part(given, None, self._form, self._target)
        self.core = Core(
            self._directions,
            self._form,
            self._target,
            TABLE if table else ROWS,
            self._layers(embedding if table else None, of_layers),
            None if table else embedding_rows(embedding, self._form),
            linear_part(stored.get(name, weight), bias, self._form, self._target),
            model.config.decoder,
            project,
            threads,
        )

    def _table_bytes(self, tokens: int) -> int:
        first = self._directions[0]
        size = padded(first.weights.hidden_size, self._target.lanes)
        return 4 * tokens * len(first.law.pre) * size

    def start(
        self, batch: int = 1, *, record: Record | None = None, control: Control | None = None
    ) -> TokenSession:
        """Columns at their beginning.

        Args:
            batch: how many.
            record: what to read in each call.
            control: what to set; its times count from a column's beginning.
        """
        return TokenSession(self.core, self._start, batch, record, control)


class StepStack(_Packed):
    """A stack packed for streaming; arguments as for `StepModel`."""

    @forks.alive()
    def __init__(
        self,
        stack: Layers,
        dtype: str = "float32",
        *,
        threads: int | None = None,
        stored: Stored | None = None,
        target: Target | None = None,
    ) -> None:
        super().__init__(stack, dtype, target)
        layers = self._layers(None, stored or {})
        self.core = Core(self._directions, self._form, self._target, REALS, layers, threads=threads)

    def start(
        self, batch: int = 1, *, record: Record | None = None, control: Control | None = None
    ) -> RealSession:
        """Columns at their beginning; see `StepModel.start`."""
        return RealSession(self.core, self._start, batch, record, control)
