"""From texts or series with a class or a number to a learner: tokens, scales, classes, a model from the seed."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from gatewise.engine import check_engine
from gatewise.errors import DataError, OptionError
from gatewise.mappings.config import check_choice, check_rate, check_size
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.labelled import Labelled, VectorLearner, VectorTally, balanced, scales
from gatewise.mappings.seq_to_vec import SequenceToVector, VectorConfig, VectorOptions
from gatewise.metrics.classes import UNKNOWN, ClassTally
from gatewise.metrics.numbers import NumberTally
from gatewise.optim import OPTIMIZERS
from gatewise.tasks.labelled import Examples
from gatewise.tasks.names import Labelled as NamedTexts
from gatewise.tasks.names import rare
from gatewise.text.ragged import Ragged
from gatewise.text.tokenizers import KINDS, Tokenizer, build_tokenizer, from_json
from gatewise.train.build import in_bytes, memory_size, open_device
from gatewise.train.options import TrainOptions

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

WEIGHTS = {"none": 0.0, "root": 0.5, "balanced": 1.0}
"""Name of class weights -> the power of n / (K n_k) that they are."""


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How texts and series go into the model, and how classes count."""

    tokenizer: str = "char"
    """Of texts: char, byte, word or bpe."""

    vocab_size: int | None = None
    """Largest vocabulary; default: all words, 8,192 pieces for bpe."""

    min_count: int = 1
    """Leave out words that occur less often than this in the training part."""

    lowercase: bool = False
    """Drop case."""

    max_length: int = 2000
    """Read at most so many tokens or steps; what is longer is cut at its end, and counted."""

    class_weights: str = "none"
    """none, balanced (each class counts alike in the cost), or root (half-way, by the root)."""

    jitter: float = 0.0
    """In training, add noise of so many standard deviations to the numbers of series."""

    unknown_rate: float = 0.0
    """In training, make this share of the tokens of texts unknown, so that new ones can be met."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_choice("tokenizer", self.tokenizer, KINDS)
        check_size("min_count", self.min_count)
        check_size("max_length", self.max_length)
        check_choice("class_weights", self.class_weights, WEIGHTS)
        check_rate("unknown_rate", self.unknown_rate)
        if not 0 <= self.jitter < 100:
            raise OptionError(f"--jitter: expected 0 or a little more, found {self.jitter}")
        if self.tokenizer in ("char", "byte") and (self.vocab_size or self.min_count != 1):
            raise OptionError(
                f"--vocab-size and --min-count: for word and bpe, found --tokenizer {self.tokenizer}"
            )


@dataclass(frozen=True, eq=False)
class Reader:
    """How examples become inputs and targets, the same in training and in use.

    Args:
        tokenizer: of texts; None: series.
        lowercase: whether case is dropped.
        max_length: tokens or steps that are read.
        channels: of series, their names.
        classes: names; none where numbers are predicted.
    """

    tokenizer: Tokenizer | None = None
    lowercase: bool = False
    max_length: int = 2000
    channels: Sequence[str] = ()
    classes: Sequence[str] = ()

    @classmethod
    def build(cls, train: Examples, options: ReadingOptions) -> Reader:
        """Vocabulary, channels and classes of the training part."""
        classes = sorted(set(train.labels or ()))
        if train.labels is not None and len(classes) < 2:
            raise DataError(
                f"expected examples of two classes or more to train on, found {len(train):,} of "
                f"{len(classes)} class"
            )
        tokenizer = None
        if train.texts is not None:
            texts = (_cased(one, options.lowercase) + "\n" for one in train.texts)
            size, least = options.vocab_size, options.min_count
            tokenizer = build_tokenizer(options.tokenizer, texts, size, least)
        limits = (options.lowercase, options.max_length)
        return cls(tokenizer, *limits, train.channels, classes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], tokenizer_json: str | None) -> Reader:
        """The reader that `to_dict` and the tokenizer's JSON describe.

        Raises:
            DataError: if they do not.
        """
        channels, classes = values.get("channels"), values.get("classes")
        length, lowercase = values.get("max_length"), values.get("lowercase")
        for names in (channels, classes):
            if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
                raise DataError("expected names of channels and classes")
        if type(length) is not int or length < 1 or type(lowercase) is not bool:
            raise DataError("expected a max_length and whether to drop case")
        tokenizer = None if tokenizer_json is None else from_json(tokenizer_json)
        return cls(tokenizer, lowercase, length, channels or (), classes or ())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the tokenizer."""
        return {
            "lowercase": self.lowercase,
            "max_length": self.max_length,
            "channels": list(self.channels),
            "classes": list(self.classes),
        }

    def text(self, text: str) -> Array:
        """The ids of a text."""
        assert self.tokenizer is not None
        ids = self.tokenizer.encode(_cased(text, self.lowercase))
        return np.asarray(ids, np.int64)[: self.max_length]

    def inputs(self, examples: Examples) -> Ragged:
        """Ids of texts, or numbers of series.

        Raises:
            DataError: if they are not what the model reads.
        """
        if (examples.texts is None) != (self.tokenizer is None):
            expected = "series" if self.tokenizer is None else "texts"
            raise DataError(f"expected {expected}, as the model reads, found {examples.form}")
        if examples.texts is not None:
            return Ragged.of([self.text(one) for one in examples.texts], np.int64)
        series = examples.in_order(self.channels).series
        assert series is not None
        if len(examples.channels) != len(self.channels):
            raise DataError(
                f"expected series of {len(self.channels)} channels, as the model reads, found "
                f"{len(examples.channels)}"
            )
        if series.lengths.max(initial=0) <= self.max_length:
            return series
        return Ragged.of([one[: self.max_length] for one in series], np.float32)

    def targets(self, examples: Examples) -> Array:
        """Numbers of the classes, `UNKNOWN` for one that was not trained on; or numbers (n, 1)."""
        if self.classes:
            if examples.labels is None:
                raise DataError(f"expected a class of each example, found {examples.form}")
            place = {name: k for k, name in enumerate(self.classes)}
            return np.array([place.get(one, UNKNOWN) for one in examples.labels], np.int64)
        if examples.targets is None:
            raise DataError(f"expected a number of each example, found {examples.form}")
        return examples.targets.astype(np.float32)[:, None]

    def labelled(self, examples: Examples) -> Labelled:
        """What a learner takes."""
        return Labelled(self.inputs(examples), self.targets(examples))

    def longer(self, examples: Examples) -> int:
        """How many examples are cut at `max_length`."""
        if examples.series is not None:
            return int((examples.series.lengths > self.max_length).sum())
        long = [one for one in examples.texts or () if len(one) > self.max_length // 4]
        assert self.tokenizer is not None
        sizes = (len(self.tokenizer.encode(_cased(one, self.lowercase))) for one in long)
        return sum(size > self.max_length for size in sizes)

    def tally(self) -> VectorTally:
        """What an evaluation adds up in."""
        return ClassTally(self.classes) if self.classes else NumberTally()


class ExampleVectors(VectorLearner):
    """A learner that varies its examples in training, and knows the sum of what it is trained on.

    Args:
        model, parts, batches, seed, engine: as of `VectorLearner`.
        reader: of the examples.
        reading: how much they are varied, and how classes count.
        class_weights: factor of each class in the cost, instead of what `reading` says.
    """

    def __init__(
        self,
        model: SequenceToVector,
        parts: Mapping[str, Labelled],
        batches: BatchOptions,
        reader: Reader,
        reading: ReadingOptions,
        *,
        class_weights: Sequence[float] | None = None,
        seed: int,
        engine: str,
    ) -> None:
        power = WEIGHTS[reading.class_weights]
        if power and reader.classes and class_weights is None:
            plain = balanced(parts["train"].targets, len(reader.classes))
            class_weights = [one**power for one in plain]
        super().__init__(
            model,
            parts,
            batches,
            tally=reader.tally,
            class_weights=class_weights,
            seed=seed,
            engine=engine,
        )
        self.reader, self.reading, self.seed = reader, reading, seed
        self.tokenizer = None if reader.tokenizer is None else reader.tokenizer.to_json()
        self.extra = {"reading": dataclasses.asdict(reading), "reader": reader.to_dict()}

    def altered(
        self, inputs: tuple[torch.Tensor, ...], epoch: int, position: int
    ) -> tuple[torch.Tensor, ...]:
        """Noise on numbers, unknown tokens: of the seed, the epoch and the position alone."""
        x, *rest = inputs
        noise, rate = self.reading.jitter, self.reading.unknown_rate
        if x.is_floating_point() and noise:
            draw = self._draw(epoch, position)
            scale = self.model.scale.cpu().to(x.dtype)
            drawn = torch.randn(x.shape, generator=draw, dtype=x.dtype) * (noise * scale)
            return (x + drawn.to(x.device), *rest)
        unknown = None if self.reader.tokenizer is None else self.reader.tokenizer.unknown_id
        if unknown is not None and rate:
            hidden = torch.rand(x.shape, generator=self._draw(epoch, position)) < rate
            return (x.masked_fill(hidden.to(x.device), unknown), *rest)
        return inputs

    def _draw(self, epoch: int, position: int) -> torch.Generator:
        seed = np.random.SeedSequence((self.seed, epoch, position)).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(seed[0] >> np.uint64(1)))

    def data(self) -> dict[str, Any]:
        """How many examples, and a sum of what is trained on."""
        train = self.parts["train"]
        sums = zlib.crc32(np.ascontiguousarray(train.inputs.values).tobytes())
        for more in (train.inputs.starts, train.targets):
            sums = zlib.crc32(np.ascontiguousarray(more).tobytes(), sums)
        return super().data() | {"checksum": sums}


def vector_learner(
    examples: Mapping[str, Examples],
    reading: ReadingOptions,
    model: VectorOptions,
    batches: BatchOptions,
    training: TrainOptions,
    *,
    reader: Reader | None = None,
    class_weights: Sequence[float] | None = None,
    engine: str = "auto",
) -> tuple[ExampleVectors, list[str]]:
    """A new classifier or regressor for the examples, initialised from the seed, and what to tell.

    Args:
        examples: of each part.
        reading, model, batches, training: options.
        reader: of a run that is taken up again; default: from the training part.
        class_weights: factor of each class in the cost, in the order of the reader's classes; default: as
            `reading` says.
        engine: name of an engine, or "auto".
    Raises:
        OptionError: an option is outside its range, or the model does not fit into memory.
        DataError: there is nothing to train on.
    """
    for part in (reading, model, batches, training):
        part.validate()
    check_engine(engine)
    device = open_device(training.device)
    if "train" not in examples or not len(examples["train"]):
        raise DataError("expected at least one example to train on, found none")
    reader = reader or Reader.build(examples["train"], reading)
    parts = {name: reader.labelled(part) for name, part in examples.items()}
    if not parts["train"].inputs.lengths.any():
        raise DataError("expected a token or a value in the examples to train on, found none")
    config = _config(model, reader, parts["train"])
    check_memory(config, parts, batches, training, device)
    torch.manual_seed(training.seed)
    network = SequenceToVector(config)
    _set_scales(network, parts["train"])
    network = network.to(device)
    if training.dtype == "float64":
        network = network.double()
    learner = ExampleVectors(
        network,
        parts,
        batches,
        reader,
        reading,
        class_weights=class_weights,
        seed=training.seed,
        engine=engine,
    )
    return learner, notes_of(examples, reader)


def notes_of(examples: Mapping[str, Examples], reader: Reader) -> list[str]:
    """What is cut, which classes have one example, which labels nothing is learnt of."""
    notes = []
    for name, part in examples.items():
        if count := reader.longer(part):
            notes.append(
                f"{name}: cut {count:,} of {len(part):,} examples at --max-length {reader.max_length:,}"
            )
        if not reader.classes or part.labels is None:
            continue
        if name == "train" and (alone := rare(NamedTexts([""] * len(part), part.labels))):
            notes.append(f"classes with one example in the training part: {', '.join(alone)}")
        if strange := sorted(set(part.labels) - set(reader.classes)):
            count = sum(label in strange for label in part.labels)
            notes.append(
                f"{name}: {count:,} examples of classes that the training part does not have, counted "
                f"as errors: {', '.join(strange[:8])}"
            )
    return notes


def _config(model: VectorOptions, reader: Reader, train: Labelled) -> VectorConfig:
    sizes: dict[str, Any] = {"outputs": len(reader.classes)}
    if not reader.classes:
        sizes = {"outputs": train.targets.shape[1], "target": "number"}
    if reader.tokenizer is not None:
        return VectorConfig.from_options(model, vocab_size=reader.tokenizer.vocab_size, **sizes)
    marks = int(not np.isfinite(train.inputs.values).all())
    return VectorConfig.from_options(
        model, channels=len(reader.channels), marks=marks, embedding_size=1, **sizes
    )


def _set_scales(network: SequenceToVector, train: Labelled) -> None:
    """Mean and deviation of the training part's numbers, kept with the weights."""
    if network.config.channels:
        network.shift[:], network.scale[:], _ = scales(train.inputs)
    if network.config.target == "number":
        targets = Ragged.of([row[None] for row in train.targets], np.float32)
        network.target_shift[:], network.target_scale[:], _ = scales(targets)


def check_memory(
    config: VectorConfig,
    parts: Mapping[str, Labelled],
    batches: BatchOptions,
    training: TrainOptions,
    device: torch.device,
) -> None:
    """Raise OptionError, with the estimate, if training cannot fit into memory."""
    available = memory_size(device)
    parameters = sum(p.numel() for p in SequenceToVector(config, device="meta").parameters())
    size = 8 if training.dtype == "float64" else 4
    weights = parameters * size * (2 + OPTIMIZERS[training.optimizer].slots)
    longest = int(parts["train"].inputs.lengths.max(initial=1))
    both = 2 if config.bidirectional else 1
    width = both * config.num_layers * config.hidden_size * 8 + 2 * config.embedding_size
    activations = batches.batch_size * longest * width * size
    if available is not None and weights + activations > available:
        raise OptionError(
            f"the model would have {parameters:,} parameters and training it would take about "
            f"{in_bytes(weights + activations)} ({in_bytes(activations)} of it for --batch-size "
            f"{batches.batch_size} sequences of up to {longest:,} steps), this machine has "
            f"{in_bytes(available)}: choose smaller sizes or a smaller --max-length"
        )


def _cased(text: str, lowercase: bool) -> str:
    return text.lower() if lowercase else text
