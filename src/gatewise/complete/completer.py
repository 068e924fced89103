"""From a text to its continuations: what an editor, a terminal and a server ask for.

Everything that completes goes through `Completer`, so it is the one place that knows how a prefix
becomes a state (`context`) and how requests become steps of the model (`start`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gatewise.errors import OptionError
from gatewise.generate import (
    Context,
    Generation,
    Hypothesis,
    Sample,
    SamplingOptions,
    Stepper,
    TokenModel,
    beam_search,
    first_input,
    read,
)
from gatewise.text.base import Tokenizer, display

if TYPE_CHECKING:
    from gatewise.probe import Control

# More unknown characters than this are counted, not listed.
_LISTED = 10


@dataclass(frozen=True)
class TokenScores:
    """Tokens of a text, and how probable they were, at temperature 1 and without any bias.

    Args:
        ids: the tokens, (N,).
        logprobs: of each given those before, in nats; None where nothing stands before.
        best: the most probable tokens in the place of each, with theirs, the best first.
        offsets: characters of the text before each.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    best: tuple[tuple[tuple[int, float], ...], ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class Completion:
    """One way to go on.

    Args:
        text: what follows the prefix; an ending that the options asked for is not part of it.
        logprob: log-probability of the tokens in nats, at temperature 1; the ending's token counts.
        tokens: how many.
        finish_reason: "stop" or "length".
        stop: the stop string that it met, or "".
        scores: of the tokens that the text shows, where they were asked for.
    """

    text: str
    logprob: float
    tokens: int
    finish_reason: str
    stop: str = ""
    scores: TokenScores | None = None


@dataclass(frozen=True)
class Delta:
    """A piece of text that became definite.

    Args:
        sample: number of the continuation that it belongs to, from 0.
        text: at least one character.
    """

    sample: int
    text: str


class Continuation(Iterator[Delta]):
    """The continuations of one text, piece by piece as they are written.

    Leaving the loop, or `close`, stops the work: between two pieces nothing runs.

    Attributes:
        notes: what the user should be told about the prompt, a line each.
        seed: with which the same texts can be drawn again.
    """

    def __init__(self, generation: Generation, notes: Sequence[str], trim: bool) -> None:
        self._generation = generation
        self._waiting: deque[Delta] = deque()
        self._trim_all = trim
        self._trim = [trim] * len(generation.samples)
        self.notes = list(notes)
        self.seed = generation.seed

    def __next__(self) -> Delta:
        while not self._waiting:
            step = next(self._generation)
            for sample, text in enumerate(step.texts):
                text = self._trimmed(sample, text)
                if text:
                    self._waiting.append(Delta(sample, text))
        return self._waiting.popleft()

    def _trimmed(self, sample: int, text: str) -> str:
        """Without the space that the prompt already ends in."""
        if text and self._trim[sample]:
            self._trim[sample] = False
            return text.removeprefix(" ")
        return text

    def close(self) -> None:
        """Stop here."""
        self._generation.close()
        self._waiting.clear()

    def run(self) -> list[Completion]:
        """Write to the end; the continuations in the order of their numbers."""
        for _ in self:
            pass
        return self.samples

    @property
    def samples(self) -> list[Completion]:
        """The continuations as far as they are written."""
        trim = self._trim_all
        return [_completion(sample, trim) for sample in self._generation.samples]

    @property
    def completions(self) -> list[Completion]:
        """`samples` without doubles, the most probable first; see `ranked`."""
        return ranked(self.samples)


class Completer:
    """Continues texts with a language model.

    Args:
        model: obeys `gatewise.generate.TokenModel`.
        tokenizer: the model's.
        control: acts on every request; times count from the beginning of the prefix.
        engine: engine of the recurrent layers.
    """

    def __init__(
        self,
        model: TokenModel,
        tokenizer: Tokenizer,
        *,
        control: Control | None = None,
        engine: str = "auto",
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._control, self._engine = control, engine
        self.step = Stepper(model, control=control, engine=engine)

    def context(self, prefix: str, options: SamplingOptions | None = None) -> Context:
        """The prefix, read; an empty one stands for the beginning of a line.

        Args:
            prefix: any text.
            options: seed and banned ids, which matter where an empty prefix needs a drawn token.
        """
        ids = np.asarray(self.tokenizer.encode(prefix), dtype=np.int64)
        if not len(ids):
            ids = first_input(self.model, self.tokenizer, options or SamplingOptions())
        return read(self.step, ids)

    def start(self, prefix: str, options: SamplingOptions | None = None) -> Continuation:
        """Begin to continue `prefix`; the unknown token is never drawn.

        Args:
            prefix: any text; what the vocabulary lacks is read as the unknown token, and noted.
            options: how to draw.
        """
        options = self._without_unknown(options or SamplingOptions())
        context = self.context(prefix, options)
        generation = Generation(self.step, context, options, self.tokenizer)
        return Continuation(generation, self.notes(prefix), self._trims(prefix))

    def search(
        self, prefix: str, n: int, width: int, options: SamplingOptions | None = None
    ) -> list[Completion]:
        """The n best continuations that a beam search of `width` finds, by probability.

        There may be fewer: beams of different tokens can have the same text. Arguments and errors
        are those of `beams`, which leaves the beams as they were found.
        """
        return ranked(self.beams(prefix, n, width, options))

    def beams(
        self,
        prefix: str,
        n: int,
        width: int,
        options: SamplingOptions | None = None,
        *,
        length_penalty: float = 0.6,
    ) -> list[Completion]:
        """The n best hypotheses of a beam search, best score first; the unknown token is in none.

        Args:
            prefix: any text.
            n: how many; `options.n` plays no part.
            width: live hypotheses, at least n.
            options: endings, bans, bias and penalties; see `gatewise.generate.beam_search`.
            length_penalty: alpha of the score; 0 compares plain log-probabilities.

        Raises:
            OptionError: if n is not within 1 to `width`, or an option is outside its range.
        """
        if not 1 <= n <= width:
            raise OptionError(
                f"expected at least as many beams as continuations, and at least one, "
                f"found {width} beams for {n}: ask for fewer, or search with more beams"
            )
        options = self._without_unknown(options or SamplingOptions())
        found: list[Hypothesis] = beam_search(
            self.model,
            self.context(prefix, options),
            options,
            width=width,
            n_best=n,
            length_penalty=length_penalty,
            tokenizer=self.tokenizer,
            control=self._control,
            engine=self._engine,
        )
        trim = self._trims(prefix)
        return [_completion(hypothesis, trim) for hypothesis in found]

    def notes(self, prefix: str) -> list[str]:
        """What to tell about a prefix: the characters or words that the model does not know."""
        return notes_of(self.tokenizer, prefix)

    def _without_unknown(self, options: SamplingOptions) -> SamplingOptions:
        unknown = self.tokenizer.unknown_id
        if unknown is None or unknown in options.banned:
            return options
        return replace(options, banned=(*options.banned, unknown))

    def _trims(self, prefix: str) -> bool:
        """Whether the prefix ends in the space that the first new word would bring."""
        return self.tokenizer.kind == "word" and prefix[-1:].isspace()


def notes_of(tokenizer: Tokenizer, text: str) -> list[str]:
    """What to tell about a text: the characters or words that a tokenizer does not know."""
    unknown = tokenizer.unknowns(text)
    if not unknown:
        return []
    shown = ", ".join(repr(display(unit)) for unit in unknown[:_LISTED])
    more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
    return [f"not in the model's vocabulary, read as unknown: {shown}{more}"]


def ranked(completions: Sequence[Completion]) -> list[Completion]:
    """Each text once, the most probable first.

    Empty texts are left out where there are others. Probabilities are those of the tokens, so a
    shorter text has a natural advantage where an ending was asked for.
    """
    best: dict[str, Completion] = {}
    for completion in sorted(completions, key=lambda each: -each.logprob):
        best.setdefault(completion.text, completion)
    if len(best) > 1:
        best.pop("", None)
    return list(best.values())


def _completion(sample: Sample, trim: bool) -> Completion:
    text = sample.text.removeprefix(" ") if trim else sample.text
    return Completion(text, sample.logprob, len(sample.ids), sample.finish_reason, sample.stop)
