"""The Dec of every mapping that ends in a sequence: a recurrent net that writes, token after token.

    h[t] = Pred(h[t-1], [E[y[t-1]]; context...]),   logits[t] = W o[t] + b

It begins from a state that somebody made of a vector, and may attend to a memory: then o[t] = tanh(C [context;
h[t]]) (Luong et al. 2015, arXiv 1508.04025, eq. 5), with input feeding o[t-1] goes into the next step too (section
3.3), else o = h. Without feeding all steps of a target run in one call of an engine; with it, or where
the model reads its own tokens (scheduled sampling), one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatewise.attention import KINDS, Attention, Memory
from gatewise.errors import OptionError
from gatewise.losses import linear_cross_entropy
from gatewise.mappings.config import check_choice, check_rate, check_size
from gatewise.mappings.recurrent import RecurrentOptions, build_stack, dropped
from gatewise.noise import Noise
from gatewise.probe import Control, Record, Records, in_sequence
from gatewise.text.batches import PADDING
from gatewise.types import State, select


@dataclass(frozen=True, kw_only=True)
class DecoderOptions(RecurrentOptions):
    """Sizes and regularisation of a net that writes a sequence."""

    embedding_size: int = 256
    """Width of the token embeddings."""

    attention: str = "none"
    """none: the lecture's single vector; or additive, general, dot: look at every step that was read."""

    input_feeding: bool = False
    """Give what was attended to into the next step too; slower: one step after the other."""

    tied: bool = False
    """Use the output tokens' embedding as the decoder's weights."""

    smoothing: float = 0.0
    """Label smoothing: share of the target spread over all tokens."""

    scheduled_sampling: float = 0.0
    """Share of the steps in training that read the model's own token instead of the text's; slower."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        super().validate()
        check_size("embedding_size", self.embedding_size)
        check_choice("attention", self.attention, ("none", *KINDS))
        check_rate("smoothing", self.smoothing)
        check_rate("scheduled_sampling", self.scheduled_sampling)
        if self.input_feeding and self.attention == "none":
            raise OptionError(
                "--input-feeding: needs --attention; without it nothing is attended to"
            )


@dataclass(frozen=True)
class Written:
    """What a decoder computes.

    Attributes:
        logits: float32 scores (T, B, V), (1, B, V) for "last", None for "none".
        output: o, (T, B, O): what the scores are made of.
        weights: (T, B, S) of the attention, or None.
        state: of the stack, and with input feeding o[T]; pass it back in to continue.
        record: what was asked for, or None.
        engine: name of the engine that ran.
    """

    logits: Tensor | None
    output: Tensor
    weights: Tensor | None
    state: State
    record: Records | None
    engine: str


class Decoder(nn.Module):
    """A net that writes tokens, from a state and perhaps a memory.

    Args:
        options: sizes and regularisation.
        vocab_size: V.
        memory_size: width of a step of the memory, where there is attention.
        extra: width of a vector that goes into every step beside the token; 0: none.
        device: of the weights; "meta" for their shapes alone.
    """

    def __init__(
        self,
        options: DecoderOptions,
        vocab_size: int,
        memory_size: int = 0,
        extra: int = 0,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.options, self.vocab_size, self.extra = options, vocab_size, extra
        width, hidden = options.embedding_size, options.hidden_size
        self.embedding = nn.Embedding(vocab_size, width, device=device)
        fed = hidden if options.input_feeding else 0
        self.stack = build_stack(options, width + fed + extra, device=device)
        self.attention: Attention | None = None
        self.combine: nn.Linear | None = None
        if options.attention != "none":
            self.attention = Attention(options.attention, hidden, memory_size, device=device)
            self.combine = nn.Linear(memory_size + hidden, hidden, bias=False, device=device)
        narrow = options.tied and width != hidden
        self.projection = nn.Linear(hidden, width, bias=False, device=device) if narrow else None
        self.decoder = None if options.tied else nn.Linear(hidden, vocab_size, device=device)
        self.bias = nn.Parameter(torch.zeros(vocab_size, device=device)) if options.tied else None

    def begin(self, state: State, batch: int) -> State:
        """The decoder's state before its first step, from that of its stack."""
        if not self.options.input_feeding:
            return state
        weight = self.embedding.weight
        return state, weight.new_zeros(batch, self.options.hidden_size)

    def forward(
        self,
        tokens: Tensor,
        state: State,
        memory: Memory | None = None,
        vector: Tensor | None = None,
        *,
        logits: str = "all",
        lengths: Tensor | None = None,
        start: int = 0,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> Written:
        """Scores of the token after each of `tokens` (T, B).

        Args:
            tokens: ids, int64; the first is what a sequence begins with.
            state: of `begin`, or of an earlier call.
            memory: what is attended to.
            vector: (B, extra), beside every token.
            logits: "all", "last" (of T) or "none".
            lengths: valid steps of each column (B,).
            start: time of the first token.
            engine, record, control: as in `gatewise.unroll`.
        """
        run = _Run(self, memory, vector, lengths, engine, control)
        x = dropped(F.embedding(tokens, self.embedding.weight), self.options.dropout, self.training)
        written = run.stepwise(x, state, start, record) if self.options.input_feeding else (
            run.at_once(x, state, start, record)
        )  # fmt: skip
        if logits == "none":
            return written
        shown = written.output if logits == "all" else written.output[-1:]
        return replace(written, logits=self.scores(shown))

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: State,
        memory: Memory | None = None,
        vector: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
        engine: str = "auto",
    ) -> tuple[Tensor, Tensor, Written]:
        """(cost with smoothing, mean nats without, output) of `targets`, PADDING where none counts."""
        if self.training and self.options.scheduled_sampling:
            tokens = self._own_tokens(tokens, state, memory, vector, engine)
        out = self(tokens, state, memory, vector, logits="none", lengths=lengths, engine=engine)
        weight, bias = self.decoder_weights()
        rows, wanted = self._projected(out.output).flatten(0, 1), targets.flatten()
        smoothing = self.options.smoothing if self.training else 0.0
        loss = linear_cross_entropy(
            rows, weight, bias, wanted, ignore_index=PADDING, label_smoothing=smoothing
        )
        if not smoothing:
            return loss, loss.detach(), out
        return loss, loss.detach() - smoothing * _ahead(rows, weight, bias, wanted), out

    @torch.no_grad()
    def _own_tokens(
        self,
        tokens: Tensor,
        state: State,
        memory: Memory | None,
        vector: Tensor | None,
        engine: str,
    ) -> Tensor:
        """`tokens` with some of them replaced by what the model would write there.

        Scheduled sampling (Bengio et al. 2015, arXiv 1506.03099): here the share is the same for the
        whole training, and the model's token is its most probable one after the text's own tokens, so
        that one more pass does it, in parallel over time (Mihaylova & Martins 2019, arXiv 1906.07651).
        """
        out = self(tokens, state, memory, vector, engine=engine)
        own = torch.cat((tokens[:1], out.logits.argmax(-1)[:-1]))
        share = self.options.scheduled_sampling
        swap = Noise.draw().drops("sampling", tuple(tokens.shape), share, device=tokens.device)
        swap[0] = False
        return torch.where(swap, own, tokens)

    def decoder_weights(self) -> tuple[Tensor, Tensor | None]:
        """The output weights (V, E or H) and bias (V,)."""
        if self.decoder is not None:
            return self.decoder.weight, self.decoder.bias
        return self.embedding.weight, self.bias

    def scores(self, output: Tensor) -> Tensor:
        """The logits of o, float32 or float64."""
        found = F.linear(self._projected(output), *self.decoder_weights())
        return found if found.dtype == torch.float64 else found.float()

    def _projected(self, output: Tensor) -> Tensor:
        return output if self.projection is None else self.projection(output)


class Writing:
    """A decoder on its way: what it was given, and its state, for B columns (`generate.Conditioned`).

    Args:
        decoder: puts itself into evaluation mode for nobody: call it inside `modes.evaluating`.
        state: of `Decoder.begin`.
        memory, vector: as in `Decoder.forward`.
        engine, control: as in `gatewise.unroll`.
    """

    def __init__(
        self,
        decoder: Decoder,
        state: State,
        memory: Memory | None = None,
        vector: Tensor | None = None,
        *,
        engine: str = "auto",
        control: Control | None = None,
    ) -> None:
        self._decoder, self._state = decoder, state
        self._memory, self._vector = memory, vector
        self._engine, self._control = engine, control
        self._time = 0

    def step(self, tokens: Tensor) -> Tensor:
        """Scores (B, V) of what follows when `tokens` (B,) were written."""
        out = self._decoder(
            tokens.unsqueeze(0),
            self._state,
            self._memory,
            self._vector,
            logits="last",
            start=self._time,
            engine=self._engine,
            control=self._control,
        )
        self._state = out.state
        self._time += 1
        scores: Tensor = out.logits[0]
        return scores

    def select(self, columns: Tensor) -> None:
        """Go on with these of the columns (B',); repeats are allowed."""
        self._state = select(self._state, columns)
        if self._memory is not None:
            self._memory = self._memory.select(columns)
        if self._vector is not None:
            self._vector = self._vector.index_select(0, columns)


class _Run:
    """One call of a decoder: what stays the same over its steps."""

    def __init__(
        self,
        decoder: Decoder,
        memory: Memory | None,
        vector: Tensor | None,
        lengths: Tensor | None,
        engine: str,
        control: Control | None,
    ) -> None:
        self.decoder, self.memory, self.vector = decoder, memory, vector
        self.lengths, self.engine, self.control = lengths, engine, control

    def at_once(self, x: Tensor, state: State, start: int, record: Record | None) -> Written:
        """All steps in one call of an engine."""
        out = self.decoder.stack(
            self._beside(x),
            state,
            lengths=self.lengths,
            start=start,
            engine=self.engine,
            record=record,
            control=self.control,
        )
        output, weights = self._attended(out.h)
        return Written(None, output, weights, out.state, out.record, out.engine)

    def stepwise(self, x: Tensor, state: State, start: int, record: Record | None) -> Written:
        """One step after the other: o[t-1] is an input."""
        assert isinstance(state, tuple)
        inner, fed = state
        outputs, all_weights, records, name = [], [], [], ""
        for t, one in enumerate(x.unbind()):
            fed_in = torch.cat((one, fed), -1).unsqueeze(0)  # type: ignore[arg-type]
            valid = None if self.lengths is None else (self.lengths > t).long()
            out = self.decoder.stack(
                self._beside(fed_in),
                inner,
                lengths=valid,
                start=start + t,
                engine=self.engine,
                record=record,
                control=self.control,
            )
            output, weights = self._attended(out.h)
            inner, fed, name = out.state, output[0], out.engine
            outputs.append(output)
            all_weights.append(weights)
            records.append(out.record)
        weights = torch.cat(all_weights) if all_weights[0] is not None else None  # type: ignore[arg-type]
        return Written(None, torch.cat(outputs), weights, (inner, fed), in_sequence(records), name)

    def _beside(self, x: Tensor) -> Tensor:
        """x with the vector beside every step."""
        if self.vector is None:
            return x
        return torch.cat((x, self.vector.to(x).expand(len(x), -1, -1)), -1)

    def _attended(self, h: Tensor) -> tuple[Tensor, Tensor | None]:
        """o and the weights of the attention."""
        decoder = self.decoder
        if decoder.attention is None or decoder.combine is None:
            return dropped(h, decoder.options.dropout, decoder.training), None
        assert self.memory is not None
        context, weights = decoder.attention(h, self.memory)
        output = decoder.combine(torch.cat((context, h), -1)).tanh()
        return dropped(output, decoder.options.dropout, decoder.training), weights


@torch.no_grad()
def _ahead(rows: Tensor, weight: Tensor, bias: Tensor | None, wanted: Tensor) -> Tensor:
    """How far the score of a target is above the mean of all scores, on average.

    With smoothing e the cost is log sum exp z - (1 - e) z[y] - e mean z: this times e more than without,
    and known without another pass over the vocabulary.
    """
    counts = wanted != PADDING
    h, classes = rows[counts].to(weight), wanted[counts]
    above = (h * weight[classes]).sum(-1) - h @ weight.mean(0)
    if bias is not None:
        above = above + bias[classes] - bias.mean()
    return above.mean()
