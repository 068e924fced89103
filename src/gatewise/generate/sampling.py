"""Drawing continuations of a prompt, many at once, token by token."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DivergedError, OptionError
from gatewise.generate.ahead import Ahead
from gatewise.generate.choose import Ngrams, RepetitionPenalty, Uniforms, draw, mix, offsets
from gatewise.generate.context import Context, Stepper, TokenModel, read
from gatewise.generate.endings import Decoder, Writer
from gatewise.generate.options import SamplingOptions
from gatewise.types import State, select

if TYPE_CHECKING:
    from gatewise.probe import Control

# A decoder sees this many tokens of the prompt before those of the sample.
BEFORE = 8


class TextDecoder(Protocol):
    """What generation asks of a tokenizer; each `gatewise.text.tokenizers.Tokenizer` is one."""

    vocab_size: int
    eos_id: int | None
    unknown_id: int | None

    def encode(self, text: str, /) -> Any:
        """The ids of `text`, (T,)."""

    def decoder(self) -> Decoder:
        """A fresh incremental decoder."""


@dataclass(frozen=True)
class Step:
    """One token for each sample.

    Args:
        tokens: (n,) int64; -1 for samples that had finished before, or end without one.
        logprobs: (n,), nats: the model's own log-probability of each token, at temperature 1 and
            before any penalty or filter; 0 where there is no token.
        finished: (n,) bool, after this step.
        texts: what each sample's text grew by; "" where a character or stop string is still open,
            and always without a tokenizer.
    """

    tokens: Tensor
    logprobs: Tensor
    finished: Tensor
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """One continuation.

    Args:
        ids: its tokens, those that ended it included.
        text: its text, what ended it excluded; "" without a tokenizer.
        logprob: sum of the tokens' log-probabilities in nats, at temperature 1.
        finish_reason: "stop" (an ending of the options, or no token was left) or "length".
        stop: the stop string that it met, or "".
    """

    ids: tuple[int, ...]
    text: str
    logprob: float
    finish_reason: str
    stop: str = ""


class _Row:
    """What is known of one sample so far."""

    def __init__(self, writer: Writer | None, ngrams: Ngrams | None) -> None:
        self.ids: list[int] = []
        self.logprob = 0.0
        self.writer = writer
        self.ngrams = ngrams
        self.reason = ""

    def finish(self, reason: str) -> str:
        """Close the sample; the text that was held back."""
        text = self.writer.flush() if self.writer else ""
        # the text that was held back may have met one more rule
        self.reason = (self.writer.reason if self.writer else "") or reason
        return text

    def sample(self) -> Sample:
        return Sample(
            tuple(self.ids),
            self.writer.text if self.writer else "",
            self.logprob,
            self.reason or "length",
            self.writer.stop if self.writer else "",
        )


class Generation(Iterator[Step]):
    """The steps of n samples as an iterator; `samples` holds the results, at any time.

    Between two steps nothing is held: no autograd mode, no random state, no mode of the model. It
    may be left at any step; `close` says so and frees the state.

    Args:
        step: the model.
        context: the prompt, read.
        options: how to draw.
        tokenizer: gives texts, and is needed by the options that watch the text.
        first: number of the first sample, so that more samples can be drawn later.
    """

    def __init__(
        self,
        step: Stepper,
        context: Context,
        options: SamplingOptions,
        tokenizer: TextDecoder | None = None,
        *,
        first: int = 0,
    ) -> None:
        if options.watches_text and tokenizer is None:
            raise OptionError(
                "stop texts, brackets and limits of lines, sentences, words or characters need a tokenizer"
            )
        self.seed = secrets.randbits(32) if options.seed is None else options.seed
        self._step, self._context, self._options = step, context, options
        n, vocab_size = options.n, context.logits.shape[-1]
        self._offsets = offsets(options, vocab_size, context.logits.device)
        self._stop_ids = frozenset(options.stop_ids)
        self._uniforms = Uniforms(self.seed, first, n if options.temperature > 0 else 0)
        self._penalty = repetition_penalty(context, options, n, vocab_size)
        self._ahead = (
            Ahead(step, options, self._offsets, self._uniforms.seeds)
            if Ahead.suits(step, options)
            else None
        )
        self._samples = _rows(context, options, tokenizer)
        self._active: list[int] = list(range(n)) if options.max_tokens else []
        self._state: State = context.state
        self._time = context.time
        self._columns = 1
        self._tokens: Tensor | None = None
        self._count = 0

    @property
    def samples(self) -> list[Sample]:
        """The samples so far; unfinished ones count as "length"."""
        return [row.sample() for row in self._samples]

    def close(self) -> None:
        """End here."""
        self._active = []
        self._state = None

    def run(self) -> list[Sample]:
        """All remaining steps, then the samples."""
        for _ in self:
            pass
        return self.samples

    @torch.inference_mode()
    def __next__(self) -> Step:
        if not self._active:
            self._state = None
            raise StopIteration
        if self._ahead is not None and self._tokens is not None:
            return self._next_ahead(self._ahead)
        n = len(self._samples)
        logits = self._scores()
        rows = None
        if len(self._active) < n:
            rows = torch.tensor(self._active, device=logits.device)
        scores = self._adjusted(logits, rows)
        for place in (scores.amax(-1) == -torch.inf).nonzero().flatten().tolist():
            self._samples[self._active[place]].reason = "stop"
        tokens = draw(scores, self._numbers(logits.device), self._options)
        logprobs = logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        if self._penalty is not None:
            self._penalty.add(tokens, rows)
        self._tokens = tokens
        self._count += 1
        return self._note(tokens.tolist(), logprobs.tolist())

    def _next_ahead(self, ahead: Ahead) -> Step:
        """The next step of those that the model has drawn itself."""
        assert self._tokens is not None
        if ahead.empty:
            self._spread()
            left = self._options.max_tokens - self._count
            self._state, steps = ahead.fill(
                self._tokens, self._state, self._time, self._active, self._count, left
            )
            self._time += steps
        self._tokens, logprobs = ahead.next()
        self._count += 1
        return self._note(self._tokens.tolist(), logprobs.tolist())

    def _scores(self) -> Tensor:
        """Logits (m, V) of the active samples, after the tokens of the step before."""
        if self._tokens is None:
            return self._context.logits.expand(len(self._active), -1)
        self._spread()
        logits, self._state = self._step(self._tokens.unsqueeze(0), self._state, self._time)
        self._time += 1
        return logits

    def _spread(self) -> None:
        """Copy the prompt's state to all samples, once they differ."""
        if self._columns < len(self._active) and self._columns == 1:
            self._state = select(self._state, torch.zeros(len(self._active), dtype=torch.int64))
        self._columns = len(self._active)

    def _numbers(self, device: torch.device) -> Tensor:
        if self._options.temperature == 0:
            return torch.empty(0)
        uniforms = self._uniforms.next()
        if len(self._active) < len(uniforms):
            uniforms = uniforms[self._active]
        return uniforms.to(device)

    def _adjusted(self, logits: Tensor, rows: Tensor | None) -> Tensor:
        """The scores after bias, penalty and bans."""
        scores = logits if self._offsets is None else logits + self._offsets
        if self._penalty is not None:
            scores = self._penalty(scores, rows)
        if self._options.no_repeat_ngram:
            scores = self._without_repeats(scores)
        return scores

    def _without_repeats(self, scores: Tensor) -> Tensor:
        scores = scores.clone()
        for place, number in enumerate(self._active):
            row = self._samples[number]
            assert row.ngrams is not None
            scores[place, list(row.ngrams.banned())] = -torch.inf
        return scores

    def _note(self, tokens: list[int], logprobs: list[float]) -> Step:
        """Take the tokens of the active samples down, and drop the samples that finished."""
        n = len(self._samples)
        texts, ids, nats = [""] * n, [-1] * n, [0.0] * n
        for number, token, logprob in zip(self._active, tokens, logprobs, strict=True):
            row = self._samples[number]
            if math.isnan(logprob):
                raise DivergedError(
                    "expected finite scores, found NaN: the model's weights are broken; "
                    "load an earlier checkpoint"
                )
            if row.reason:  # no token was left for it
                texts[number] = row.finish("stop")
                continue
            written = len(row.ids)
            texts[number] = self._extend(row, token, logprob)
            if len(row.ids) > written:  # else the model was not sure enough of it
                ids[number], nats[number] = token, logprob
        step = Step(
            torch.tensor(ids),
            torch.tensor(nats),
            torch.tensor([bool(row.reason) for row in self._samples]),
            tuple(texts),
        )
        self._drop_finished()
        return step

    def _extend(self, row: _Row, token: int, logprob: float) -> str:
        if self._options.doubts(logprob, len(row.ids)):
            return row.finish("stop")
        row.ids.append(token)
        row.logprob += logprob
        if row.ngrams is not None:
            row.ngrams.add(token)
        if token in self._stop_ids:
            return row.finish("stop")
        text = row.writer.push(token) if row.writer else ""
        if row.writer and row.writer.done:
            row.reason = row.writer.reason
        elif self._count == self._options.max_tokens:
            text += row.finish("length")
        return text

    def _drop_finished(self) -> None:
        kept = [place for place, k in enumerate(self._active) if not self._samples[k].reason]
        if len(kept) == len(self._active):
            return
        self._active = [self._active[place] for place in kept]
        if not kept or self._tokens is None:
            return
        index = torch.tensor(kept)
        if self._ahead is not None:
            self._ahead.keep(index)
        if self._columns > 1:
            self._state = select(self._state, index)
            self._columns = len(kept)
        self._tokens = self._tokens[index.to(self._tokens.device)]


def repetition_penalty(
    context: Context, options: SamplingOptions, n: int, vocab_size: int
) -> RepetitionPenalty | None:
    """The penalty that the options ask for, with the prompt's tokens seen by all n samples."""
    if options.repetition_penalty == 1:
        return None
    device = context.logits.device
    seen = context.ids.tolist()
    return RepetitionPenalty(options.repetition_penalty, n, vocab_size, seen, device)


def _rows(context: Context, options: SamplingOptions, tokenizer: TextDecoder | None) -> list[_Row]:
    size = options.no_repeat_ngram
    shared = Ngrams(size, context.ids) if size else None
    before = context.ids[-BEFORE:].tolist()
    return [
        _Row(
            Writer(tokenizer.decoder(), options, before) if tokenizer else None,
            Ngrams(size, (), shared) if size else None,
        )
        for _ in range(options.n)
    ]


def generate(
    model: TokenModel,
    prompt: Sequence[int] | np.ndarray[Any, Any] | Tensor | Context,
    options: SamplingOptions | None = None,
    *,
    tokenizer: TextDecoder | None = None,
    state: State = None,
    start: int = 0,
    control: Control | None = None,
    engine: str = "auto",
) -> Generation:
    """n continuations of a prompt, drawn in one batch, as an iterator of steps.

    The prompt is read once; its state is then copied to the samples. Equal seeds give equal texts,
    and torch's global random state is left alone. Sample k draws the same numbers whatever n is;
    its text is then the same too, unless the last bits of a kernel's sums, which may depend on the
    width of the batch, decide between two tokens.

    An empty prompt stands for a line's beginning: the model's first input is the tokenizer's
    newline, or its end-of-sequence token. Where there is neither, it is a token drawn evenly from
    the vocabulary. This token counts as a step of time, but not as text.

    Args:
        model: obeys `TokenModel`.
        prompt: ids (T,), or what `read` returned for them.
        options: how to draw; default: 200 tokens of one sample at temperature 1.
        tokenizer: for texts and stop strings.
        state: the model's state before the prompt, batch 1; default: its initial state.
        start: time of the prompt's first token: controls count from there.
        control: what to set in the model's gates.
        engine: engine of the recurrent layers.

    Raises:
        OptionError: if options contradict each other, the tokenizer or the vocabulary.
    """
    options = options or SamplingOptions()
    step = Stepper(model, control=control, engine=engine)
    if not isinstance(prompt, Context):
        ids = np.asarray(prompt, dtype=np.int64)
        if not ids.size:
            ids = first_input(model, tokenizer, options)
        prompt = read(step, ids, state=state, start=start)
    elif state is not None or start:
        raise OptionError("a context has its own state and time: leave out state and start")
    return Generation(step, prompt, options, tokenizer)


def first_input(
    model: object, tokenizer: TextDecoder | None, options: SamplingOptions
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The token (1,) that stands for an empty prompt; see `generate`."""
    if tokenizer is not None:
        newline = np.asarray(tokenizer.encode("\n"), dtype=np.int64)
        if len(newline) == 1 and newline[0] != tokenizer.unknown_id:
            return newline
        if tokenizer.eos_id is not None:
            return np.array([tokenizer.eos_id], dtype=np.int64)
    vocab_size = getattr(model if tokenizer is None else tokenizer, "vocab_size", 0)
    allowed = sorted(set(range(vocab_size)) - set(options.banned))
    if not allowed:
        raise OptionError("empty prompt: expected a tokenizer or a model with vocab_size")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    return np.array([allowed[mix(seed, -1) % len(allowed)]], dtype=np.int64)
