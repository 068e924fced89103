"""A trained language model, ready to use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.checkpoint import Checkpoint
from gatewise.complete import Completer, Completion, Continuation, notes_of
from gatewise.errors import CheckpointError, DataError, GatewiseError, OptionError, unknown
from gatewise.generate import SamplingOptions
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.mappings.streams import CostModel, evaluate_stream
from gatewise.metrics import Tally
from gatewise.probe import Control, Record, Records, in_sequence
from gatewise.run.base import Run, check_weights, fill
from gatewise.run.packing import Packing
from gatewise.run.stored import as_dense, stored_weights
from gatewise.stream import Stream
from gatewise.text.base import Tokenizer
from gatewise.text.corpora import Tokens
from gatewise.text.tokenizers import from_json

if TYPE_CHECKING:
    from gatewise.complete import Batcher

# What `complete` assumes where nothing is asked for: a little surer than the model itself.
COMPLETION = {"max_tokens": 64, "temperature": 0.7}

# Tokens read at once by `read`: its logits are the largest thing in memory.
_CHUNK = 256


@dataclass(frozen=True, repr=False)
class Reading:
    """A text as the model reads it.

    Args:
        text: the text.
        ids: its tokens, (T,).
        tokens: how each is shown.
        nats: (T,) float64, the cost of each token given those before; NaN for the first.
        record: what was recorded (batch 1), or None.
        notes: what to tell about the text, a line each.
    """

    text: str
    ids: np.ndarray[Any, np.dtype[np.int64]]
    tokens: list[str]
    nats: Tensor
    record: Records | None
    notes: list[str]

    @property
    def nats_per_token(self) -> float:
        """Mean cost; NaN for a text of one token."""
        return float(self.nats[1:].mean())

    def __repr__(self) -> str:
        recorded = f", record of {', '.join(self.record)}" if self.record else ""
        size = f"{len(self.tokens):,} tokens, {self.nats_per_token:.4f} nats/token"
        return (
            f"Reading({self.text[:40]!r}, {size if len(self.tokens) > 1 else '1 token'}{recorded})"
        )

    def _repr_html_(self) -> str:
        from gatewise.display import Markup
        from gatewise.run.showing import reading_html

        record = Markup() if self.record is None else Markup(self.record._repr_html_())
        return reading_html(self.tokens, self.nats.tolist(), record, self.notes)


class LanguageRun(Run):
    """A run of `gatewise train lm`.

    Attributes:
        model: a `LanguageModel`.
        tokenizer: its tokenizer.
    """

    mapping = "lm"
    verbs = ("complete", "generate", "read", "evaluate", "stream")
    model: LanguageModel

    def __init__(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        super().__init__(checkpoint, model)
        self.tokenizer: Tokenizer = _tokenizer(checkpoint)
        self._packing = Packing(self.model, *stored_weights(checkpoint))
        if self.tokenizer.vocab_size != self.model.vocab_size:
            raise CheckpointError(
                f"{self.path}: expected a tokenizer of {self.model.vocab_size} tokens, "
                f"found {self.tokenizer.vocab_size}: model and tokenizer do not belong together"
            )

    @property
    def dtype(self) -> str | None:
        """Weights of the step engine that answer: as exported, or as `pack` was told; else None."""
        return self._packing.dtype

    def pack(self, dtype: str) -> None:
        """Let the step engine answer with weights of that dtype where nothing else is asked for.

        Args:
            dtype: float32, bfloat16, int8 or int4.

        Raises:
            EngineError: if the step engine cannot run this model; the message says why.
        """
        self._packing.settle(dtype)

    def completer(
        self,
        *,
        control: Control | None = None,
        engine: str = "auto",
        dtype: str | None = None,
    ) -> Completer:
        """What answers many requests; see `gatewise.complete`.

        Args:
            control: what to set in the gates.
            engine: "step" is the one for generation, and taken by "auto" where it can run the model;
                or an engine of the recurrent layers.
            dtype: weights of the step engine: float32, bfloat16, int8 or int4.

        Raises:
            EngineError: if what was asked for by name cannot be had; the message says why.
        """
        model = self._packing.form(engine, dtype)
        return Completer(model, self.tokenizer, control=control, engine=engine)

    def batcher(
        self,
        *,
        control: Control | None = None,
        dtype: str | None = None,
        **options: Any,
    ) -> Batcher:
        """What answers many users at once; see `gatewise.complete.Batcher`.

        Args:
            control: what to set in the gates, for all of them.
            dtype: weights of the step engine: float32, bfloat16, int8 or int4. Default: as they were exported, else
                float32.
            options: cache_bytes, waiting.

        Raises:
            EngineError: the step engine cannot run this model; the message says why.
        """
        from gatewise.complete.batch import Batcher
        from gatewise.step.generation import StepLanguageModel

        model = self._packing.form("step", dtype)
        assert isinstance(model, StepLanguageModel)
        return Batcher(model, self.tokenizer, control=control, **options)

    def complete(
        self,
        prefix: str,
        n: int = 3,
        *,
        beams: int = 0,
        control: Control | None = None,
        engine: str = "auto",
        dtype: str | None = None,
        **options: Any,
    ) -> list[Completion]:
        """Up to n different continuations, the most probable first.

        Args:
            prefix: any text. Ask `completer().notes(prefix)` what the model does not know of it.
            n: how many to draw; equal ones count once.
            beams: 0 draws; more searches with so many beams (at least n), and finds the same each
                time.
            control: what to set in the gates.
            engine, dtype: see `completer`.
            options: fields of `SamplingOptions`; 64 tokens at temperature 0.7 if not given.

        Raises:
            OptionError: if an option is outside its range.
        """
        if isinstance(beams, bool) or not isinstance(beams, int) or beams < 0:
            raise OptionError(f"beams: expected a whole number of 0 or more, found {beams!r}")
        chosen = sampling_options({**COMPLETION, **options, "n": n})
        completer = self.completer(control=control, engine=engine, dtype=dtype)
        if beams:
            return completer.search(prefix, n, beams, chosen)
        continuation = completer.start(prefix, chosen)
        continuation.run()
        return continuation.completions

    def generate(
        self,
        prompt: str = "",
        *,
        control: Control | None = None,
        engine: str = "auto",
        dtype: str | None = None,
        **options: Any,
    ) -> Continuation:
        """Continue a prompt piece by piece: iterate, or call `run()`.

        Args:
            prompt: any text; empty for the beginning of a line.
            control: what to set in the gates.
            engine, dtype: see `completer`.
            options: fields of `SamplingOptions`.
        """
        completer = self.completer(control=control, engine=engine, dtype=dtype)
        return completer.start(prompt, sampling_options(options))

    def stream(
        self,
        batch: int = 1,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
        dtype: str | None = None,
    ) -> Stream:
        """The model, one step or a few at a time; see `gatewise.stream.Stream`."""
        return Stream(
            self.model,
            batch,
            record=record,
            control=control,
            engine=engine,
            tokenizer=self.tokenizer,
            dtype=dtype or (self.dtype if engine in ("auto", "step") else None),
        )

    def read(
        self,
        text: str,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> Reading:
        """A text through the model: the cost of each token, and what was recorded.

        Raises:
            DataError: if the text has no token.
        """
        ids = np.asarray(self.tokenizer.encode(text), dtype=np.int64)
        if not len(ids):
            raise DataError("expected a text of at least one token, found none")
        stream = self.stream(record=record, control=control, engine=engine)
        nats, records = [torch.full((1,), torch.nan, dtype=torch.float64)], []
        for start in range(0, len(ids), _CHUNK):
            scores = stream.push(ids[start : start + _CHUNK])[:, 0].double().log_softmax(-1).cpu()
            target = torch.from_numpy(ids[start + 1 : start + 1 + _CHUNK])
            nats.append(-scores[: len(target)].gather(1, target.unsqueeze(1)).squeeze(1))
            records.append(stream.record)
        shown = [self.tokenizer.tokens[i] for i in ids.tolist()]
        notes = notes_of(self.tokenizer, text)
        return Reading(text, ids, shown, torch.cat(nats), in_sequence(records), notes)

    def evaluate(
        self,
        data: str | Tokens,
        *,
        batch_size: int = 1,
        engine: str = "auto",
        dtype: str | None = None,
    ) -> Tally:
        """The cost of a whole text, read once with the state carried.

        Args:
            data: a text, or a part of a corpus that this run's tokenizer made.
            batch_size: 1 reads it in one piece; more cut it into so many columns, which is quicker.
            engine: engine of the recurrent layers, or "step".
            dtype: weights of the step engine, to measure what they cost: float32, bfloat16, int8 or
                int4. Default: as they were exported, else the model itself.

        Raises:
            OptionError: if `batch_size` is less than 1.
            DataError: if there are fewer than two tokens.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise OptionError(
                f"batch_size: expected a whole number of 1 or more, found {batch_size!r}"
            )
        tokens = tokens_of(self.tokenizer, data) if isinstance(data, str) else data
        model: CostModel = self.model
        if dtype is not None or self.dtype is not None or engine == "step":
            model = self._packing.form(engine, dtype)
        found = evaluate_stream(model, tokens, self.tokenizer, batch_size=batch_size, engine=engine)
        assert found is not None  # only a stop makes it None
        return found


def tokens_of(tokenizer: Tokenizer, text: str) -> Tokens:
    """A text as a part of a corpus, in memory."""
    ids = tokenizer.encode(text).astype(np.uint32)
    unknown_id = tokenizer.unknown_id
    missing = 0 if unknown_id is None else int((ids == unknown_id).sum())
    size = len(text.encode(errors="replace"))
    return Tokens(ids, len(text), size, missing, [("text", 0)])


def build(checkpoint: Checkpoint) -> tuple[type[LanguageRun], nn.Module]:
    """The model of a checkpoint of mapping "lm", with its weights."""
    checkpoint = as_dense(checkpoint)
    try:
        config = LanguageModelConfig.from_dict(checkpoint.config.get("model") or {})
        model = _adaptive(config, checkpoint) if config.softmax == "adaptive" else _blank(config)
    except CheckpointError:
        raise
    except GatewiseError as error:
        raise CheckpointError(f"{checkpoint.path}: not a language model: {error}") from None
    fill(model, checkpoint)
    return LanguageRun, model


def _blank(config: LanguageModelConfig) -> LanguageModel:
    """The model without memory for its weights: nothing is drawn, and any size costs nothing."""
    with torch.device("meta"):
        return LanguageModel(config)


def _adaptive(config: LanguageModelConfig, checkpoint: Checkpoint) -> LanguageModel:
    """A model whose adaptive softmax needs real tensors to be built.

    The sizes are a claim of the folder: they are compared with its weights before they are believed.
    """
    plain = dataclasses.replace(config, softmax="full", cutoffs=(), tied=True)
    check_weights(_blank(plain), checkpoint, among=("embedding.", "stack."))
    with torch.random.fork_rng(devices=[]):
        return LanguageModel(config)


def sampling_options(options: Mapping[str, Any]) -> SamplingOptions:
    """SamplingOptions by name.

    Raises:
        UnknownNameError: if there is no such option.
        OptionError: if one is outside its range.
    """
    names = [field.name for field in dataclasses.fields(SamplingOptions)]
    for name in options:
        if name not in names:
            raise unknown("option", name, names)
    return SamplingOptions(**options)


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    if checkpoint.tokenizer_json is None:
        raise CheckpointError(f"{checkpoint.path}: expected a tokenizer.json, found none")
    return from_json(checkpoint.tokenizer_json)
