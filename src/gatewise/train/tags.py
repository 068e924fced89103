"""From tagged sentences to a learner: vocabularies, ids, a tagger from the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gatewise.engine import check_engine
from gatewise.errors import DataError, OptionError
from gatewise.mappings.config import check_size
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.tagged import Tagged, TagLearner
from gatewise.mappings.tagger import Tagger, TaggerConfig, TaggerOptions
from gatewise.optim import OPTIMIZERS
from gatewise.text.ragged import Ragged
from gatewise.text.tagging import TagTokens
from gatewise.train.build import in_bytes, memory_size, open_device
from gatewise.train.options import TrainOptions

Texts = Mapping[str, Sequence[tuple[Sequence[str], Sequence[str]]]]
"""Part -> its sentences (words, tags)."""


@dataclass(frozen=True, kw_only=True)
class TagTextOptions:
    """How words become ids."""

    min_count: int = 1
    """Words that occur less often in the training part are unknown."""

    vocab_size: int | None = None
    """At most so many words, the most frequent; default: all."""

    lowercase: bool = False
    """Look words up in lower case; their characters keep it."""

    max_length: int = 500
    """Leave out sentences of more words in training and validation."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_size("min_count", self.min_count)
        check_size("max_length", self.max_length)
        if self.vocab_size is not None:
            check_size("vocab_size", self.vocab_size)


def encode_sentences(
    sentences: Sequence[tuple[Sequence[str], Sequence[str]]],
    tokens: TagTokens,
    *,
    tagged: bool = True,
) -> Tagged:
    """Words and tags as ids; without tags -1 stands for each."""
    forms: dict[str, int] = {}
    rows = [
        np.array([forms.setdefault(w, len(forms)) for w in ws], np.int64) for ws, _ in sentences
    ]
    own = [tokens.tag_ids(ts) if tagged else np.full(len(ws), -1) for ws, ts in sentences]
    return Tagged(
        Ragged.of(rows, np.int64),
        tokens.word_ids(list(forms)),
        Ragged.of([tokens.character_ids(word) for word in forms], np.int64),
        Ragged.of(own, np.int64),
    )


def tag_learner(
    texts: Texts,
    text: TagTextOptions,
    model: TaggerOptions,
    batches: BatchOptions,
    training: TrainOptions,
    *,
    tokens: TagTokens | None = None,
    engine: str = "auto",
) -> tuple[TagLearner, list[str]]:
    """A new tagger for `texts`, initialised from the seed, and what was left out.

    Args:
        texts: of each part.
        text, model, batches, training: options.
        tokens: the vocabularies of a run that is taken up again; default: from the training part.
        engine: name of an engine, or "auto".
    Raises:
        OptionError: an option is outside its range, or the model does not fit into memory.
        DataError: there is nothing to train on.
    """
    for part in (text, model, batches, training):
        part.validate()
    check_engine(engine)
    device = open_device(training.device)
    notes: list[str] = []
    short = {name: _within(name, found, text.max_length, notes) for name, found in texts.items()}
    if not short.get("train"):
        raise DataError("expected at least one sentence to train on, found none")
    tokens = tokens or TagTokens.build(
        short["train"],
        min_count=text.min_count,
        vocab_size=text.vocab_size,
        lowercase=text.lowercase,
    )
    parts = {name: encode_sentences(found, tokens) for name, found in short.items()}
    notes += _new_tags(parts)
    config = TaggerConfig.from_options(model, *tokens.sizes)
    _check_memory(config, parts["train"], batches, training, device)
    torch.manual_seed(training.seed)
    network = Tagger(config).to(device)
    if training.dtype == "float64":
        network = network.double()
    learner = TagLearner(
        network, parts, batches, tags=tokens.tags, seed=training.seed, engine=engine
    )
    learner.tokenizer = tokens.to_json()
    return learner, notes


def _new_tags(parts: Mapping[str, Tagged]) -> list[str]:
    counts = {name: int((part.tags.values < 0).sum()) for name, part in parts.items()}
    return [
        f"{name}: {new:,} words have a tag that the training part does not have; they count as errors"
        for name, new in counts.items()
        if new
    ]


def _within(
    name: str, sentences: Sequence[tuple[Sequence[str], Sequence[str]]], most: int, notes: list[str]
) -> list[tuple[Sequence[str], Sequence[str]]]:
    kept = [one for one in sentences if 0 < len(one[0]) <= most]
    if dropped := len(sentences) - len(kept):
        notes.append(
            f"{name}: left out {dropped:,} of {len(sentences):,} sentences, longer than --max-length {most}"
        )
    return kept


def _check_memory(
    config: TaggerConfig,
    train: Tagged,
    batches: BatchOptions,
    training: TrainOptions,
    device: torch.device,
) -> None:
    """Raise OptionError, with the estimate, if training cannot fit into memory."""
    available = memory_size(device)
    parameters = sum(p.numel() for p in Tagger(config, device="meta").parameters())
    size = 8 if training.dtype == "float64" else 4
    weights = parameters * size * (2 + OPTIMIZERS[training.optimizer].slots)
    longest = int(train.forms.lengths.max(initial=1))
    letters = int(train.characters.lengths.max(initial=1))
    directions = 2 if config.bidirectional else 1
    width = config.num_layers * config.hidden_size * 8 * directions + 2 * config.embedding_size
    width += letters * (config.character_hidden * 16 + config.character_size)
    activations = batches.batch_size * longest * width * size
    if available is not None and weights + activations > available:
        raise OptionError(
            f"the model would have {parameters:,} parameters and training it would take about "
            f"{in_bytes(weights + activations)} ({in_bytes(activations)} of it for --batch-size "
            f"{batches.batch_size} sentences of up to {longest} words), this machine has "
            f"{in_bytes(available)}: choose smaller sizes or a smaller --max-length"
        )
