"""Sequence to sequence with a tag for each word: words and their characters in, scores of tags out.

    x[t] = [E[word[t]]; C(characters of word[t])],  h[t] = Pred(h[t-1], x[t]),  scores[t] = W h[t] + b

C is a second recurrent net, which reads a word from both ends (Lample et al. 2016, "Neural architectures for named
entity recognition", section 4.1): it tells what an unknown word looks like. Each distinct word of a batch is read
once. It knows ids; words and tags as texts a run knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatewise.errors import OptionError, ShapeError
from gatewise.mappings.config import check_rate, check_size, from_dict, to_dict
from gatewise.mappings.recurrent import RecurrentOptions, build_stack, dropped
from gatewise.mappings.tokens import check_tokens
from gatewise.probe import Control, Record, Records
from gatewise.probe.parts import control_of, joined, record_of
from gatewise.stack import Stack
from gatewise.types import State

IGNORED = -1
"""Target of a step that does not count."""


@dataclass(frozen=True, kw_only=True)
class TaggerOptions(RecurrentOptions):
    """Sizes and regularisation of a tagger."""

    embedding_size: int = 100
    """Width of the word embedding; 0: words are known by their characters alone."""

    character_size: int = 25
    """Width of the character embedding; 0: words are known as wholes alone."""

    character_hidden: int = 25
    """Units of each direction of the net that reads a word's characters."""

    bidirectional: bool = True
    """Read the sentence in both directions."""

    word_dropout: float = 0.0
    """Share of words that training sees as unknown, so that it learns to rely on their characters."""

    smoothing: float = 0.0
    """Label smoothing: share of the target spread over all tags."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        super().validate()
        check_size("embedding_size", self.embedding_size, least=0)
        check_size("character_size", self.character_size, least=0)
        check_size("character_hidden", self.character_hidden)
        check_rate("word_dropout", self.word_dropout)
        check_rate("smoothing", self.smoothing)
        if not self.embedding_size and not self.character_size:
            raise OptionError(
                "--embedding-size and --character-size: expected one above 0, found both 0"
            )


@dataclass(frozen=True, kw_only=True)
class TaggerConfig(TaggerOptions):
    """Everything that a tagger is built from; JSON-able by `to_dict`."""

    words: int
    """Ids of words; 0 is the unknown one."""

    characters: int
    """Ids of characters; 0 is the padding."""

    tags: int
    """Tags."""

    def validate(self) -> None:
        """Raise OptionError if anything is outside its range."""
        super().validate()
        for name in ("words", "characters", "tags"):
            check_size(name, getattr(self, name))

    @classmethod
    def from_options(
        cls, options: TaggerOptions, words: int, characters: int, tags: int
    ) -> TaggerConfig:
        """`options` with the sizes of the vocabularies."""
        config = cls(**vars(options), words=words, characters=characters, tags=tags)
        config.validate()
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaggerConfig:
        """The config that `to_dict` wrote; OptionError on what does not belong in it."""
        config = from_dict(cls, values, "tagger")
        config.validate()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return to_dict(self)


@dataclass(frozen=True, eq=False)
class Sentences:
    """Words of B sentences as ids, and the distinct words of all as characters.

    Args:
        words: (T, B); 0 where one is unknown, and behind the end.
        places: which of the distinct words stands at each place, (T, B).
        characters: of the W distinct words, (C, W).
        sizes: how many each of them has, (W,).
        lengths: words of each sentence, (B,); None: all T.
    """

    words: Tensor
    places: Tensor
    characters: Tensor
    sizes: Tensor
    lengths: Tensor | None = None


@dataclass(frozen=True)
class TagOutput:
    """What the model computes from sentences.

    Attributes:
        scores: (T, B, K) float32 of the tags.
        h: the last layer's outputs, (T, B, H).
        state: of the net over words; a net of one direction goes on from it.
        record: what was asked for, or None.
        engine: name of the engine that ran.
    """

    scores: Tensor
    h: Tensor
    state: State
    record: Records | None
    engine: str


class Tagger(nn.Module):
    """A recurrent tagger: embeddings, a net over characters, a net over words, a decoder.

    Names are ``words.layers.0.f`` and ``characters.layers.0.f``, or short: in both nets.

    Args:
        config: sizes and regularisation.
        device: of the weights; "meta" for their shapes alone.
    Raises:
        OptionError: if an option is outside its range.
    """

    def __init__(self, config: TaggerConfig, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        config.validate()
        self.config = config
        width = config.embedding_size
        self.embedding = nn.Embedding(config.words, width, device=device) if width else None
        self.character_embedding: nn.Embedding | None = None
        self.characters: Stack | None = None
        if size := config.character_size:
            self.character_embedding = nn.Embedding(config.characters, size, device=device)
            self.characters = Stack(
                config.cell, size, config.character_hidden, 1, bidirectional=True, device=device
            )
            width += 2 * config.character_hidden
        self.stack = build_stack(config, width, bidirectional=config.bidirectional, device=device)
        self.decoder = nn.Linear(self.stack.output_size, config.tags, device=device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.weight.device

    def names(self) -> dict[str, Sequence[str]]:
        """Part -> every path that can be recorded and controlled in it."""
        parts: dict[str, Sequence[str]] = {"words": self.stack.names()}
        if self.characters is not None:
            parts["characters"] = self.characters.names()
        return parts

    def forward(
        self,
        of: Sentences,
        state: State = None,
        *,
        start: int | Tensor = 0,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> TagOutput:
        """Scores of the tags of each word.

        Args:
            of: sentences.
            state: of an earlier call, of a net of one direction; None begins anew.
            start: time of the first word.
            engine: name of an engine, or "auto".
            record: what to read.
            control: what to set.
        Raises:
            ShapeError: if the parts of the sentences do not fit.
            DataError: if an id is not in its vocabulary.
        """
        names = self.names()
        inputs, spelled = self.inputs(of, engine=engine, record=record, control=control)
        out = self.stack(
            dropped(inputs, self.config.dropout, self.training),
            state,
            lengths=of.lengths,
            start=start,
            engine=engine,
            record=record_of(record, "words", names),
            control=control_of(control, "words", names),
        )
        both = joined({"words": out.record, "characters": spelled}, "words")
        return TagOutput(self.decode(out.h), out.h, out.state, both, out.engine)

    def inputs(
        self,
        of: Sentences,
        *,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> tuple[Tensor, Records | None]:
        """The vectors (T, B, I) of the words, and what was recorded of their characters."""
        check_tokens(of.words, self.config.words)
        if of.places.shape != of.words.shape:
            raise ShapeError(
                f"expected places of the words' shape {tuple(of.words.shape)}, found "
                f"{tuple(of.places.shape)}"
            )
        parts, records = [], None
        if self.embedding is not None:
            parts.append(F.embedding(self._hidden(of.words), self.embedding.weight))
        if self.characters is not None:
            vectors, records = self.spell(
                of.characters, of.sizes, engine=engine, record=record, control=control
            )
            parts.append(vectors[of.places])
        return torch.cat(parts, -1), records

    def spell(
        self,
        characters: Tensor,
        sizes: Tensor,
        *,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> tuple[Tensor, Records | None]:
        """What words look like, (W, 2 C): the last output of each direction."""
        assert self.characters is not None and self.character_embedding is not None
        check_tokens(characters, self.config.characters)
        names = self.names()
        out = self.characters(
            F.embedding(characters, self.character_embedding.weight),
            lengths=sizes,
            engine=engine,
            record=record_of(record, "characters", names),
            control=control_of(control, "characters", names),
        )
        half = self.config.character_hidden
        ends = (sizes - 1).view(1, -1, 1).expand(1, -1, half)
        forwards = out.h[..., :half].gather(0, ends)[0]
        return torch.cat((forwards, out.h[0, :, half:]), -1), out.record

    def decode(self, h: Tensor) -> Tensor:
        """Dec: the scores of h (..., H)."""
        scores: Tensor = self.decoder(dropped(h, self.config.dropout, self.training))
        return scores if scores.dtype == torch.float64 else scores.float()

    def loss(
        self, of: Sentences, targets: Tensor, *, engine: str = "auto"
    ) -> tuple[Tensor, Tensor, TagOutput]:
        """(cost with smoothing, mean nats without, the output) of targets (T, B), `IGNORED` where none is."""
        out = self(of, engine=engine)
        scores, flat = out.scores.flatten(0, 1), targets.flatten()
        nats = F.cross_entropy(scores.detach(), flat, ignore_index=IGNORED)
        smoothing = self.config.smoothing if self.training else 0.0
        loss = F.cross_entropy(scores, flat, ignore_index=IGNORED, label_smoothing=smoothing)
        return loss, nats, out

    def _hidden(self, words: Tensor) -> Tensor:
        """Words, some of them unknown in training."""
        rate = self.config.word_dropout
        if not self.training or not rate:
            return words
        kept = dropped(torch.ones(words.shape, device=words.device), rate, training=True)
        return torch.where(kept > 0, words, 0)
