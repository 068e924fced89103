"""Sequence to vector to sequence: an encoder reads, what it knows at the end is the vector, a decoder writes.

    h[s] = Pred_e(h[s-1], E_e[x[s]]),   v = h[S],   h'[0] = bridge(v),   h'[t] = Pred_d(h'[t-1], E_d[y[t-1]])

(Cho et al. 2014, arXiv 1406.1078; Sutskever, Vinyals & Le 2014, arXiv 1409.3215). With attention the decoder
sees every h[s] too (`decoder`). It knows weights and the cost of a batch; no texts, no search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatewise.attention import Memory, valid_steps
from gatewise.cells.base import as_state, state_parts
from gatewise.errors import OptionError
from gatewise.mappings.config import check_choice, check_size, from_dict, to_dict
from gatewise.mappings.decoder import Decoder, DecoderOptions, Writing, Written
from gatewise.mappings.recurrent import dropped
from gatewise.mappings.tokens import check_tokens
from gatewise.probe import Control, Record, Records, control_of, joined, record_of
from gatewise.stack import Stack
from gatewise.types import State

BRIDGES = ("copy", "linear")


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderOptions(DecoderOptions):
    """Sizes and regularisation of an encoder and a decoder."""

    bidirectional: bool = False
    """Read in both directions, each with half of the units."""

    bridge: str = "copy"
    """How the decoder's first state comes from the encoder's last: copy, or linear (tanh W v + b)."""

    feed_vector: bool = False
    """Give the encoder's last output to the decoder at every step too, not only as its first state."""

    reverse_source: bool = False
    """Read the source from its end to its beginning (Sutskever et al. 2014)."""

    shared: bool = False
    """One vocabulary and one embedding for both sides."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        super().validate()
        check_choice("bridge", self.bridge, BRIDGES)
        if self.bidirectional and self.hidden_size % 2:
            raise OptionError(
                f"--bidirectional: each direction has half of the units, found an odd --hidden-size "
                f"{self.hidden_size}"
            )


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(EncoderDecoderOptions):
    """Everything that such a model is built from; JSON-able by `to_dict`."""

    source_size: int
    """Tokens of the source's vocabulary."""

    target_size: int
    """Tokens of the target's vocabulary."""

    def validate(self) -> None:
        """Raise OptionError if anything is outside its range."""
        super().validate()
        for name in ("source_size", "target_size"):
            check_size(name, getattr(self, name), 1 << 31)
        if self.shared and self.source_size != self.target_size:
            raise OptionError(
                f"--shared: expected one vocabulary, found {self.source_size} and "
                f"{self.target_size} tokens"
            )

    @classmethod
    def from_options(
        cls, options: EncoderDecoderOptions, source_size: int, target_size: int
    ) -> EncoderDecoderConfig:
        """`options` for two vocabularies."""
        config = cls(**vars(options), source_size=source_size, target_size=target_size)
        config.validate()
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderDecoderConfig:
        """The config that `to_dict` wrote; OptionError on what does not belong in it."""
        config = from_dict(cls, values, "encoder-decoder")
        config.validate()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return to_dict(self)


@dataclass(frozen=True, eq=False)
class Encoded:
    """What is known of sources that were read.

    Attributes:
        vector: the last layer's last output, (B, H): the lecture's vector.
        state: the decoder's first state.
        memory: what can be attended to, or None.
        h: outputs of all steps, (S, B, H).
        record: what was asked of the encoder, or None.
        engine: name of the engine that ran.
    """

    vector: Tensor
    state: State
    memory: Memory | None
    h: Tensor
    record: Records | None
    engine: str


@dataclass(frozen=True)
class PairOutput:
    """What the model computes from pairs.

    Attributes:
        logits: float32 (T, B, V).
        vector: (B, H).
        weights: (T, B, S) of the attention, or None.
        record: under ``encoder.`` and ``decoder.``, or None.
        engine: names of the engines that ran.
    """

    logits: Tensor
    vector: Tensor
    weights: Tensor | None
    record: Records | None
    engine: str


class EncoderDecoder(nn.Module):
    """Reads a sequence into a vector, and writes a sequence from it.

    Args:
        config: sizes and regularisation.
        device: of the weights; "meta" for their shapes alone.
    Raises:
        OptionError: if an option is outside its range.
    """

    def __init__(
        self, config: EncoderDecoderConfig, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        config.validate()
        self.config = config
        width, hidden = config.embedding_size, config.hidden_size
        extra = hidden if config.feed_vector else 0
        self.decoder = Decoder(config, config.target_size, hidden, extra, device=device)
        self.embedding = (
            self.decoder.embedding
            if config.shared
            else nn.Embedding(config.source_size, width, device=device)
        )
        self.encoder = _encoder(config, device)
        states = len(self.encoder._law.states)
        linear = config.bridge == "linear"
        self.bridge = nn.ModuleList(
            nn.Linear(hidden, hidden, device=device) for _ in range(states if linear else 0)
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def names(self) -> dict[str, Sequence[str]]:
        """Part -> every path that can be recorded and controlled in it."""
        return {"encoder": self.encoder.names(), "decoder": self.decoder.stack.names()}

    def encode(
        self,
        source: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> Encoded:
        """Read sources.

        Args:
            source: ids (S, B), int64.
            lengths: valid steps of each column (B,); default: all S.
            engine: name of an engine, or "auto".
            record, control: of the whole model; what is the encoder's of them counts.
        Raises:
            ShapeError: if `source` is not (S, B) of whole numbers.
            DataError: if a token is not in the vocabulary.
        """
        check_tokens(source, self.config.source_size)
        lengths = None if lengths is None else torch.as_tensor(lengths, device=source.device)
        if self.config.reverse_source:
            source = _reversed(source, lengths)
        names = self.names()
        out = self.encoder(
            dropped(F.embedding(source, self.embedding.weight), self.config.dropout, self.training),
            lengths=lengths,
            engine=engine,
            record=record_of(record, "encoder", names),
            control=control_of(control, "encoder", names),
        )
        state = self._bridged(out.state)
        memory = None
        if self.decoder.attention is not None:
            valid = valid_steps(lengths, len(source))
            memory = self.decoder.attention.prepare(out.h, valid)
        vector = self._vector(out.state)
        batch = source.shape[1]
        return Encoded(
            vector, self.decoder.begin(state, batch), memory, out.h, out.record, out.engine
        )

    def forward(
        self,
        source: Tensor,
        tokens: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> PairOutput:
        """Scores of the token after each of `tokens` (T, B), given `source` (S, B).

        The arguments are those of `encode`; names are ``encoder.layers.0.f``, ``decoder.layers.0.c``,
        or short: in both parts.
        """
        read = self.encode(source, lengths, engine=engine, record=record, control=control)
        out = self.write(tokens, read, engine=engine, record=record, control=control)
        assert out.logits is not None
        both = joined({"encoder": read.record, "decoder": out.record}, "decoder")
        engines = " and ".join(dict.fromkeys((read.engine, out.engine)))
        return PairOutput(out.logits, read.vector, out.weights, both, engines)

    def write(
        self,
        tokens: Tensor,
        read: Encoded,
        state: State = None,
        *,
        logits: str = "all",
        start: int = 0,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> Written:
        """Scores of the token after each of `tokens` (T, B), given what was read.

        Args:
            tokens: ids; the first is what a target begins with.
            read: of `encode`.
            state: of an earlier call; None begins.
            logits: "all", "last" or "none".
            start: time of the first token.
            engine: name of an engine, or "auto".
            record, control: of the whole model; what is the decoder's of them counts.
        """
        check_tokens(tokens, self.config.target_size)
        names = self.names()
        return self.decoder(  # type: ignore[no-any-return]
            tokens,
            read.state if state is None else state,
            read.memory,
            read.vector if self.config.feed_vector else None,
            logits=logits,
            start=start,
            engine=engine,
            record=record_of(record, "decoder", names),
            control=control_of(control, "decoder", names),
        )

    def writing(
        self, read: Encoded, *, engine: str = "auto", control: Control | None = None
    ) -> Writing:
        """The decoder about to write from what was read, token by token (`generate.conditional`)."""
        return Writing(
            self.decoder,
            read.state,
            read.memory,
            read.vector if self.config.feed_vector else None,
            engine=engine,
            control=control_of(control, "decoder", self.names()),
        )

    def loss(
        self,
        source: Tensor,
        source_lengths: Tensor | None,
        tokens: Tensor,
        targets: Tensor,
        target_lengths: Tensor | None = None,
        *,
        engine: str = "auto",
    ) -> tuple[Tensor, Tensor, str]:
        """(cost with smoothing, mean nats without, engine) of `targets` (T, B) after `tokens` (T, B)."""
        read = self.encode(source, source_lengths, engine=engine)
        vector = read.vector if self.config.feed_vector else None
        loss, nats, out = self.decoder.loss(
            tokens, targets, read.state, read.memory, vector, lengths=target_lengths, engine=engine
        )
        return loss, nats, out.engine

    def _bridged(self, state: State) -> State:
        """The decoder's first state: that of both directions side by side, perhaps through W and tanh."""
        parts = []
        for k, part in enumerate(state_parts(self.encoder._law, state)):
            whole = self._sides(part)
            parts.append(self.bridge[k](whole).tanh() if len(self.bridge) else whole)
        return as_state(parts)

    def _vector(self, state: State) -> Tensor:
        return self._sides(state_parts(self.encoder._law, state)[0])[-1]

    def _sides(self, part: Tensor) -> Tensor:
        """(L D, B, H / D) as (L, B, H)."""
        count = self.encoder.num_directions
        split = part.view(-1, count, *part.shape[1:])
        return split.transpose(1, 2).reshape(len(split), part.shape[1], -1)


def _encoder(config: EncoderDecoderConfig, device: torch.device | str | None) -> Stack:
    return Stack(
        config.cell,
        config.embedding_size,
        config.hidden_size // 2 if config.bidirectional else config.hidden_size,
        config.num_layers,
        dropout=config.dropout if config.num_layers > 1 else 0.0,
        bidirectional=config.bidirectional,
        weight_drop=config.weight_drop,
        zoneout=config.zoneout,
        init_bias=None if config.forget_bias is None else {"f": config.forget_bias},
        device=device,
    )


def _reversed(source: Tensor, lengths: Tensor | None) -> Tensor:
    """Each column from its end to its beginning; the padding stays behind."""
    if lengths is None:
        return source.flip(0)
    steps = torch.arange(len(source), device=source.device).unsqueeze(1)
    return source.gather(0, torch.where(steps < lengths, lengths - 1 - steps, steps))
