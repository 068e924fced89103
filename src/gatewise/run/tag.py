"""A trained tagger, ready to tag sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.checkpoint import Checkpoint
from gatewise.errors import CheckpointError, DataError, GatewiseError, OptionError
from gatewise.mappings.examples import in_order
from gatewise.mappings.tagged import TagLearner
from gatewise.mappings.tagger import Sentences, Tagger, TaggerConfig
from gatewise.metrics.spans import Span, spans
from gatewise.metrics.tags import TagTally
from gatewise.modes import evaluating
from gatewise.probe import Control, Record, Records
from gatewise.run.base import Run, fill
from gatewise.stream import Stream
from gatewise.text.tagging import TagTokens
from gatewise.train.tags import encode_sentences

_AT_ONCE = 128
_NAMED = 8
_CLITIC = re.compile(r"(?<=\w)['\u2019]\w+\Z")


@dataclass(frozen=True)
class Tagging:
    """A sentence with its tags.

    Args:
        words: of the sentence.
        tags: of each.
        probabilities: of each tag.
        notes: what to tell about the words, a line each.
    """

    words: list[str]
    tags: list[str]
    probabilities: tuple[float, ...]
    notes: list[str]

    @property
    def spans(self) -> list[Span]:
        """(kind, first word, the word behind the last) of each, where the tags mark spans."""
        return spans(self.tags)


@dataclass(frozen=True, eq=False)
class TagReading:
    """A sentence as the model reads it.

    Args:
        tagging: what it says.
        chances: probabilities of all tags, (T, K) float32, in the order of `TagRun.tags`.
        record: what was recorded, under ``words.`` (batch 1) and ``characters.`` (a column for each distinct
            word, in the order of `distinct`), or None.
        distinct: the distinct words.
    """

    tagging: Tagging
    chances: Tensor
    record: Records | None
    distinct: list[str]


class TagRun(Run):
    """A run of `gatewise train tag`.

    Attributes:
        model: a `Tagger`.
        tokens: its words, characters and tags.
    """

    mapping = "tag"
    verbs = ("tag", "read", "stream", "evaluate")
    model: Tagger

    def __init__(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        super().__init__(checkpoint, model)
        try:
            self.tokens = TagTokens.from_json(checkpoint.tokenizer_json)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        config = self.model.config
        if self.tokens.sizes != (config.words, config.characters, config.tags):
            raise CheckpointError(
                f"{self.path}: expected {config.words} words, {config.characters} characters and "
                f"{config.tags} tags, found {self.tokens.sizes}: model and tokenizer do not belong together"
            )

    @property
    def tags(self) -> list[str]:
        """The tags that the model knows."""
        return self.tokens.tags

    def tag(
        self,
        text: str | Sequence[str | Sequence[str]],
        *,
        control: Control | None = None,
        engine: str = "auto",
    ) -> Any:
        """The tags of a sentence (`Tagging`); of several sentences, a list of each.

        A sentence's tags do not depend on the other sentences.

        Args:
            text: a sentence as text, or several sentences, each a text or a list of its words. Of a text the
                marks are split off where training had them apart.
            control: what to set in the gates.
            engine: of the recurrent layers.
        Raises:
            DataError: if a word is not a text.
        """
        several = [text] if isinstance(text, str) else list(text)
        sentences = [self.words_of(one) for one in several]
        found: list[Tagging] = [Tagging([], [], (), ["there is no word in it"])] * len(sentences)
        filled = [k for k, words in enumerate(sentences) if words]
        part = encode_sentences([(sentences[k], []) for k in filled], self.tokens, tagged=False)
        with evaluating(self.model), torch.inference_mode():
            for rows in in_order(part.sizes, _AT_ONCE) if filled else ():
                of = part.batch(rows)
                scores = self.model(_on(of, self.model), control=control, engine=engine).scores
                chances = scores.softmax(-1).cpu()
                for column, row in enumerate(rows.tolist()):
                    words = sentences[filled[row]]
                    found[filled[row]] = self._tagging(words, chances[: len(words), column])
        return found[0] if isinstance(text, str) else found

    def read(
        self,
        text: str | Sequence[str],
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> TagReading:
        """A sentence through the model, gates out.

        Args:
            text: a sentence as text, or its words.
            record: names such as ``words.layers.0.f``, or short ones, which mean both nets.
            control: what to set, by the same names.
            engine: of the recurrent layers.
        Raises:
            DataError: if there is no word.
        """
        words = self.words_of(text)
        if not words:
            raise DataError("expected a sentence of at least one word, found none")
        of = encode_sentences([(words, [])], self.tokens, tagged=False).batch(np.array([0]))
        with evaluating(self.model), torch.inference_mode():
            out = self.model(_on(of, self.model), record=record, control=control, engine=engine)
        chances = out.scores[:, 0].softmax(-1).cpu()
        distinct = list(dict.fromkeys(words))
        return TagReading(self._tagging(words, chances), chances, out.record, distinct)

    def stream(
        self,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> TagStream:
        """The tagger one word at a time, in constant memory; of a net of one direction.

        Args:
            record, control, engine: of the net over words, as of `gatewise.stream.Stream`.
        Raises:
            OptionError: if the net reads in both directions.
        """
        return TagStream(self, record=record, control=control, engine=engine)

    def evaluate(
        self, sentences: Sequence[tuple[Sequence[str], Sequence[str]]], *, engine: str = "auto"
    ) -> TagTally:
        """The figures of sentences (words, tags).

        Raises:
            DataError: if there is no sentence.
        """
        kept = [one for one in sentences if one[0]]
        if not kept:
            raise DataError("expected at least one sentence, found none")
        parts = {"train": encode_sentences(kept, self.tokens)}
        found = TagLearner(self.model, parts, tags=self.tags, engine=engine).evaluate("train")
        assert found is not None  # only a stop makes it None
        return found

    def words_of(self, text: str | Sequence[str]) -> list[str]:
        """The words of a sentence: those given, or of a text what stands between white space, marks split off.

        A mark stays where the vocabulary has the word with it ("Ltd."), and is split off where it has the
        mark alone.
        """
        if not isinstance(text, str):
            words = list(text)
            if not all(isinstance(word, str) and word.strip() for word in words):
                raise DataError(f"expected words as texts, found {words[:8]!r}")
            return words
        return [word for chunk in text.split() for word in self._apart(chunk)]

    def _apart(self, chunk: str) -> Iterator[str]:
        behind: list[str] = []
        while len(chunk) > 1 and not self._knows(chunk):
            if not chunk[0].isalnum() and self._knows(chunk[0]):
                yield chunk[0]
                chunk = chunk[1:]
            elif not chunk[-1].isalnum() and self._knows(chunk[-1]):
                behind.append(chunk[-1])
                chunk = chunk[:-1]
            elif (found := _CLITIC.search(chunk)) and self._knows(found[0]):
                behind.append(found[0])
                chunk = chunk[: found.start()]
            else:
                break
        yield chunk
        yield from reversed(behind)

    def _knows(self, word: str) -> bool:
        return bool(self.tokens.word_ids([word])[0])

    def _tagging(self, words: list[str], chances: Tensor) -> Tagging:
        best = chances.max(-1)
        tags = [self.tags[k] for k in best.indices.tolist()]
        return Tagging(words, tags, tuple(best.values.tolist()), self.notes_of(words))

    def notes_of(self, words: Sequence[str]) -> list[str]:
        """What to tell about words: which the vocabulary does not hold."""
        unknown = self.tokens.unknowns(words)
        if not unknown:
            return []
        more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
        return [f"not in the vocabulary: {', '.join(unknown[:_NAMED])}{more}"]


class TagStream:
    """Words as they come, each tagged at once; equal to the whole sentence, to rounding.

    Args:
        run: of a tagger of one direction.
        record, control, engine: as of `gatewise.stream.Stream`.
    """

    def __init__(
        self,
        run: TagRun,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> None:
        if run.model.config.bidirectional:
            raise OptionError(
                f"{run.path}: expected a tagger of one direction, found one of two: it needs the end of the "
                "sentence; train with --no-bidirectional"
            )
        self.run = run
        self._stream = Stream(run.model.stack, record=record, control=control, engine=engine)

    @property
    def record(self) -> Records | None:
        """What was read during the last push, or None."""
        return self._stream.record

    @property
    def time(self) -> int:
        """Words since the beginning."""
        return self._stream.time

    def push(self, words: str | Sequence[str]) -> Tagging:
        """The tags of the next word, or words; a sentence's end is said by `reset`."""
        given = [words] if isinstance(words, str) else list(words)
        if not given:
            return Tagging([], [], (), [])
        part = encode_sentences([(given, [])], self.run.tokens, tagged=False)
        of = _on(part.batch(np.array([0])), self.run.model)
        with evaluating(self.run.model), torch.no_grad():
            h = self._stream.push(self.run.model.inputs(of)[0])
            chances = self.run.model.decode(h)[:, 0].softmax(-1).cpu()
        return self.run._tagging(given, chances)

    def reset(self) -> None:
        """Begin the next sentence."""
        self._stream.reset()

    def fork(self) -> TagStream:
        """A second stream that goes on from here by itself."""
        twin = TagStream.__new__(TagStream)
        twin.run, twin._stream = self.run, self._stream.fork()
        return twin

    @property
    def state(self) -> dict[str, Tensor]:
        """All that the stream will need to go on; see `Stream.state`."""
        return self._stream.state

    @state.setter
    def state(self, parts: Mapping[str, Tensor]) -> None:
        self._stream.state = parts


def _on(of: Sentences, model: Tagger) -> Sentences:
    """The sentences where the model is."""
    moved = (of.words, of.places, of.characters, of.sizes)
    lengths = None if of.lengths is None else of.lengths.to(model.device)
    words, places, characters, sizes = (one.to(model.device) for one in moved)
    return Sentences(words, places, characters, sizes, lengths)


def build(checkpoint: Checkpoint) -> tuple[type[TagRun], nn.Module]:
    """The model of a checkpoint of mapping "tag", with its weights."""
    try:
        config = TaggerConfig.from_dict(checkpoint.config.get("model") or {})
        with torch.device("meta"):
            model = Tagger(config)
    except GatewiseError as error:
        raise CheckpointError(f"{checkpoint.path}: not a tagger: {error}") from None
    fill(model, checkpoint)
    return TagRun, model
