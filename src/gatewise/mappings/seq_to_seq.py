"""Sequence to sequence, step by step: the recurrent language model.

    x[t] = E[token[t]],  h[t] = Pred(h[t-1], x[t]),  logits[t] = Dec(h[t])

It knows weights, dropout and the cost of one chunk; it does not know texts, batches or optimizers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatewise.errors import ShapeError, unknown
from gatewise.losses import (
    AdaptiveSoftmax,
    activation_regularisation,
    linear_cross_entropy,
    temporal_activation_regularisation,
)
from gatewise.mappings.options import LanguageModelConfig
from gatewise.mappings.tokens import check_tokens
from gatewise.noise import Noise
from gatewise.probe import Control, Record, Records
from gatewise.stack import Stack
from gatewise.types import State

_NONLINEARITIES = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}


@dataclass(frozen=True)
class LanguageOutput:
    """What the model computes from tokens.

    Attributes:
        logits: float32 scores (T, B, V), (1, B, V) for "last", None for "none"; log-probabilities
            with an adaptive softmax.
        h: the last layer's outputs (T, B, H), before output dropout.
        state: pass it back in to continue.
        record: what was asked for, or None.
        engine: name of the engine that ran.
    """

    logits: Tensor | None
    h: Tensor
    state: State
    record: Records | None
    engine: str


@dataclass(frozen=True)
class LossOutput:
    """The cost of one chunk.

    Attributes:
        loss: scalar with its graph, penalties included.
        nats: scalar without a graph: mean nats per target, no penalties.
        state: the state after the chunk, with its graph.
        h: the last layer's outputs (T, B, H).
        engine: name of the engine that ran.
    """

    loss: Tensor
    nats: Tensor
    state: State
    h: Tensor
    engine: str


class LanguageModel(nn.Module):
    """A recurrent language model: embedding, Stack, decoder.

    Args:
        config: sizes, sharing and regularisation.
        counts: (V,) how often each token occurs; an adaptive softmax orders its clusters by it.
        device: of the weights; "meta" for their shapes alone.
    Raises:
        OptionError: if an option is outside its range.
    """

    config: LanguageModelConfig

    def __init__(
        self,
        config: LanguageModelConfig,
        counts: Tensor | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        config.validate()
        self.config = config
        size, width = config.vocab_size, config.embedding_size
        self.embedding = _embedding(size, width, device)
        self.stack = Stack(
            config.cell,
            width,
            list(config.layer_sizes),
            len(config.layer_sizes),
            dropout=config.hidden_rate if len(config.layer_sizes) > 1 else 0.0,
            proj_size=config.proj_size,
            locked_dropout=config.locked_dropout,
            weight_drop=config.weight_drop,
            zoneout=config.zoneout,
            learned_state=config.learned_state,
            init_bias=None if config.forget_bias is None else {"f": config.forget_bias},
            device=device,
        )
        self.projection: nn.Linear | None = None
        self.decoder: nn.Linear | None = None
        self.softmax: AdaptiveSoftmax | None = None
        self.bias: nn.Parameter | None = None
        self._build_decoder(self.stack.output_size, counts, device)
        if config.initialisation == "uniform":
            self._initialise()

    def _build_decoder(
        self, width: int, counts: Tensor | None, device: torch.device | str | None
    ) -> None:
        config = self.config
        if config.softmax == "adaptive":
            frequency = torch.ones(config.vocab_size) if counts is None else counts
            cutoffs = list(config.cutoffs) or None
            self.softmax = AdaptiveSoftmax(width, frequency, cutoffs=cutoffs, device=device)
            # kept, so that the stored config alone gives the shapes
            self.config = dataclasses.replace(config, cutoffs=tuple(self.softmax.cutoffs))
        elif config.tied:
            if width != config.embedding_size:
                self.projection = nn.Linear(width, config.embedding_size, bias=False, device=device)
            self.bias = nn.Parameter(torch.zeros(config.vocab_size, device=device))
        else:
            self.decoder = nn.Linear(width, config.vocab_size, device=device)

    @torch.no_grad()
    def _initialise(self) -> None:
        """word_language_model's: in its order, so that equal seeds give equal weights."""
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        if self.decoder is not None:
            nn.init.zeros_(self.decoder.bias)
            nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.config.vocab_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def zero_state(self, batch: int) -> State:
        """The state before the first token, for `batch` columns."""
        return self.stack.zero_state(batch)

    def forward(
        self,
        tokens: Tensor,
        state: State = None,
        *,
        logits: str = "all",
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        start: int | Tensor = 0,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> LanguageOutput:
        """Scores of the token after each of `tokens`.

        Args:
            tokens: ids (T, B), int64.
            state: from an earlier call; None begins anew.
            logits: "all", "last" (each column's last valid time) or "none".
            lengths: valid steps of each column (B,); default: all T.
            reset: (T, B), true where a column's state is cleared before that step.
            start: time of the first token, a number or (B,).
            engine: name of an engine, or "auto".
            record: what to read.
            control: what to set.
        Raises:
            ShapeError: if `tokens` is not (T, B) of whole numbers.
            DataError: if a token is not in the vocabulary.
        """
        if logits not in ("all", "last", "none"):
            raise unknown("logits", logits, ("all", "last", "none"))
        check_tokens(tokens, self.vocab_size)
        out = self.stack(
            self._embed(tokens),
            state,
            lengths=lengths,
            reset=reset,
            start=start,
            engine=engine,
            record=record,
            control=control,
        )
        scores = None
        if logits != "none":
            h = out.h if logits == "all" else _last(out.h, lengths)
            scores = self.scores(self._drop(h, "output", self.config.dropout))
        return LanguageOutput(scores, out.h, out.state, out.record, out.engine)

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: State = None,
        *,
        start: int = 0,
        engine: str = "auto",
    ) -> LossOutput:
        """Mean cross entropy of `targets` (T, B) given `tokens` (T, B), penalties added."""
        if targets.shape != tokens.shape:
            raise ShapeError(
                f"expected targets of tokens' shape {tuple(tokens.shape)}, "
                f"found {tuple(targets.shape)}"
            )
        out = self(tokens, state, logits="none", start=start, engine=engine)
        dropped = self._drop(out.h, "output", self.config.dropout)
        loss = self._cross_entropy(dropped.flatten(0, 1), targets.flatten())
        nats = loss.detach()
        if self.config.activation_penalty:
            loss = loss + activation_regularisation(dropped, self.config.activation_penalty)
        if self.config.temporal_penalty and len(out.h) > 1:
            loss = loss + temporal_activation_regularisation(out.h, self.config.temporal_penalty)
        return LossOutput(loss, nats, out.state, out.h, out.engine)

    def inputs(self, tokens: Tensor) -> Tensor:
        """What the stack reads of tokens (T, B): their embeddings, (T, B, E)."""
        check_tokens(tokens, self.vocab_size)
        return self._embed(tokens)

    def token_nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """The cost of each target (T, B) given the stack's outputs h (T, B, H), with its graph: (T, B)."""
        scores = self.scores(h).log_softmax(-1)
        return -scores.gather(-1, targets.unsqueeze(-1)).squeeze(-1)

    def _embed(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self.embedding.weight)
        rate = self.config.dropout_embedding
        if self.training and rate:
            rows = _mask("embedding", (self.vocab_size,), rate, x)
            x = x * rows[tokens].unsqueeze(-1)
        return self._drop(x, "input", self.config.input_rate)

    def _drop(self, x: Tensor, name: str, rate: float) -> Tensor:
        if not self.training or not rate:
            return x
        shape = (1, *x.shape[1:]) if self.config.locked_dropout else tuple(x.shape)
        return x * _mask(name, shape, rate, x)

    def decoder_weights(self) -> tuple[Tensor, Tensor | None]:
        """The decoder's weight (V, H or E) and bias (V,)."""
        if self.decoder is not None:
            return self.decoder.weight, self.decoder.bias
        return self.embedding.weight, self.bias

    def _project(self, h: Tensor) -> Tensor:
        return h if self.projection is None else self.projection(h)

    def scores(self, h: Tensor) -> Tensor:
        """What the decoder says of outputs h (T, B, H): scores (T, B, V), log-probabilities with an
        adaptive softmax.
        """
        if self.softmax is not None:
            return self.softmax.log_probs(h).float()
        scores = F.linear(self._project(h), *self.decoder_weights())
        if self.config.decoder != "linear":
            scores = _NONLINEARITIES[self.config.decoder](scores)
        return scores if scores.dtype == torch.float64 else scores.float()

    def _cross_entropy(self, h: Tensor, targets: Tensor) -> Tensor:
        if self.softmax is not None:
            return self.softmax.loss(h, targets)
        if self.config.decoder != "linear":
            return F.cross_entropy(self.scores(h), targets)
        weight, bias = self.decoder_weights()
        return linear_cross_entropy(self._project(h), weight, bias, targets)

    def extra_repr(self) -> str:
        return f"vocab_size={self.vocab_size}, tied={self.config.tied}"


def _mask(name: str, shape: Sequence[int], rate: float, like: Tensor) -> Tensor:
    return Noise.draw().keep(name, shape, rate, dtype=like.dtype, device=like.device)


def _last(h: Tensor, lengths: Tensor | None) -> Tensor:
    """(1, B, H): `h` at each column's last valid time; time 0 where there is none."""
    if lengths is None:
        return h[-1:]
    index = (lengths.to(h.device) - 1).clamp(min=0)
    return h.gather(0, index.view(1, -1, 1).expand(1, -1, h.shape[-1]))


def _embedding(size: int, width: int, device: torch.device | str | None) -> nn.Embedding:
    """An embedding; of one without memory nothing is drawn, since torch would load its compiler for it."""
    weight = torch.empty(size, width, device=device)
    found = nn.Embedding(size, width, _weight=weight)
    if not weight.is_meta:
        found.reset_parameters()
    return found
