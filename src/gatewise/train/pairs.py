"""From pairs of texts to a learner: vocabularies of both sides, ids, an encoder-decoder from the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gatewise.engine import check_engine
from gatewise.errors import DataError, OptionError
from gatewise.mappings.config import check_choice, check_size
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.pairs import PairLearner, Pairs
from gatewise.mappings.seq_to_vec_to_seq import (
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderDecoderOptions,
)
from gatewise.optim import OPTIMIZERS
from gatewise.text.ragged import Ragged
from gatewise.text.sides import Side, Sides
from gatewise.text.tokenizers import KINDS
from gatewise.train.build import in_bytes, memory_size, open_device
from gatewise.train.options import TrainOptions

PIECES = 5000
"""Of a side's vocabulary with bpe: sentences are less text than the books that language models read."""

Texts = Mapping[str, Sequence[tuple[str, str]]]
"""Part -> its pairs (source, target)."""


@dataclass(frozen=True, kw_only=True)
class PairTextOptions:
    """How the texts of both sides become tokens."""

    tokenizer: str = "bpe"
    """word (words and marks), bpe, char or byte."""

    vocab_size: int | None = None
    """Largest vocabulary of a side; default: all words, 5,000 pieces for bpe."""

    min_count: int = 1
    """Leave out words that occur less often than this in the training part."""

    lowercase: bool = False
    """Drop case on both sides."""

    max_length: int = 200
    """Leave out pairs with more tokens than this on a side, in training and validation."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_choice("tokenizer", self.tokenizer, KINDS)
        check_size("min_count", self.min_count)
        check_size("max_length", self.max_length)
        if self.tokenizer in ("char", "byte") and (self.vocab_size or self.min_count != 1):
            raise OptionError(
                f"--vocab-size and --min-count: for word and bpe, found --tokenizer {self.tokenizer}"
            )


def build_sides(texts: Texts, options: PairTextOptions, *, shared: bool) -> Sides:
    """Vocabularies from the training part: one for each side, or one for both."""
    pairs = texts.get("train", ())
    if not pairs:
        raise DataError("expected at least one pair to train on, found none")

    size = options.vocab_size or (PIECES if options.tokenizer == "bpe" else None)

    def side(lines: Sequence[str]) -> Side:
        return Side.build(
            options.tokenizer,
            lines,
            lowercase=options.lowercase,
            vocab_size=size,
            min_count=options.min_count,
        )

    sources, targets = [one for one, _ in pairs], [one for _, one in pairs]
    if shared:
        both = side([*sources, *targets])
        return Sides(both, both)
    return Sides(side(sources), side(targets))


def encode_pairs(pairs: Sequence[tuple[str, str]], sides: Sides) -> Pairs:
    """Texts as ids."""
    return Pairs(
        Ragged.of([sides.source.source(one) for one, _ in pairs], np.int64),
        Ragged.of([sides.target.encode(one) for _, one in pairs], np.int64),
        np.array([len(one) for _, one in pairs], np.int64),
    )


def within(pairs: Pairs, most: int) -> tuple[Pairs, int]:
    """The pairs without those that are longer than `most` tokens on a side, and how many those are."""
    kept = np.flatnonzero((pairs.source.lengths <= most + 1) & (pairs.target.lengths <= most))
    dropped = len(pairs) - len(kept)
    if not dropped:
        return pairs, 0
    characters = None if pairs.characters is None else pairs.characters[kept]
    return Pairs(pairs.source.take(kept), pairs.target.take(kept), characters), dropped


def pair_learner(
    texts: Texts,
    text: PairTextOptions,
    model: EncoderDecoderOptions,
    batches: BatchOptions,
    training: TrainOptions,
    *,
    sides: Sides | None = None,
    engine: str = "auto",
) -> tuple[PairLearner, list[str]]:
    """A new encoder-decoder for `texts`, initialised from the seed, and what was left out.

    Args:
        texts: of each part.
        text, model, batches, training: options.
        sides: the vocabularies of a run that is taken up again; default: from the training part.
        engine: name of an engine, or "auto".
    Raises:
        OptionError: an option is outside its range, or the model does not fit into memory.
        DataError: there is nothing to train on.
    """
    for part in (text, model, batches, training):
        part.validate()
    check_engine(engine)
    device = open_device(training.device)
    sides = sides or build_sides(texts, text, shared=model.shared)
    notes, parts = [], {}
    for name, pairs in texts.items():
        parts[name], dropped = within(encode_pairs(pairs, sides), text.max_length)
        if dropped:
            notes.append(
                f"{name}: left out {dropped:,} of {len(pairs):,} pairs, longer than --max-length "
                f"{text.max_length}"
            )
    config = EncoderDecoderConfig.from_options(model, sides.source.size, sides.target.size)
    check_memory(config, parts, batches, training, device)
    torch.manual_seed(training.seed)
    network = EncoderDecoder(config).to(device)
    if training.dtype == "float64":
        network = network.double()
    mark = sides.target.mark
    learner = PairLearner(
        network, parts, batches, begin=mark, end=mark, seed=training.seed, engine=engine
    )
    learner.tokenizers = sides.content()
    return learner, notes


def check_memory(
    config: EncoderDecoderConfig,
    parts: Mapping[str, Pairs],
    batches: BatchOptions,
    training: TrainOptions,
    device: torch.device,
) -> None:
    """Raise OptionError, with the estimate, if training cannot fit into memory."""
    available = memory_size(device)
    parameters = sum(p.numel() for p in EncoderDecoder(config, device="meta").parameters())
    size = 8 if training.dtype == "float64" else 4
    weights = parameters * size * (2 + OPTIMIZERS[training.optimizer].slots)
    train = parts["train"]
    longest = int(train.source.lengths.max(initial=1)), int(train.target.lengths.max(initial=0)) + 1
    width = config.num_layers * config.hidden_size * 8 + 2 * config.embedding_size
    steps = sum(longest) * width + longest[0] * longest[1]
    if config.attention == "additive":
        steps += longest[0] * longest[1] * config.hidden_size
    activations = batches.batch_size * steps * size
    if available is not None and weights + activations > available:
        raise OptionError(
            f"the model would have {parameters:,} parameters and training it would take about "
            f"{in_bytes(weights + activations)} ({in_bytes(activations)} of it for "
            f"--batch-size {batches.batch_size} pairs of up to {longest[0]} and {longest[1]} tokens), "
            f"this machine has {in_bytes(available)}: choose smaller sizes or a smaller --max-length"
        )
