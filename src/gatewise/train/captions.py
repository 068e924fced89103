"""From images or vectors with texts to a learner: pixels or features, a vocabulary, a model from the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.engine import check_engine
from gatewise.errors import DataError, OptionError
from gatewise.mappings.config import check_choice, check_size
from gatewise.mappings.described import CaptionLearner, Described
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.image_encoder import ImageOptions
from gatewise.mappings.image_model import read_image_model
from gatewise.mappings.learning import Array
from gatewise.mappings.vec_to_seq import CaptionConfig, CaptionOptions, VectorToSequence
from gatewise.tasks.captions import Captions
from gatewise.tasks.pixels import cached
from gatewise.text.ragged import Ragged
from gatewise.text.sides import Side, Sides
from gatewise.text.tokenizers import KINDS
from gatewise.train.build import in_bytes, memory_size, open_device
from gatewise.train.options import TrainOptions

_AT_ONCE = 32
"""Images that a frozen model reads together."""


@dataclass(frozen=True, kw_only=True)
class CaptionTextOptions:
    """How texts become tokens, and what is done to images in training."""

    tokenizer: str = "word"
    """word (words and marks), bpe, char or byte."""

    vocab_size: int | None = None
    """Largest vocabulary; default: all words, 30,000 pieces for bpe."""

    min_count: int = 1
    """Leave out words that occur less often than this in the training part."""

    lowercase: bool = False
    """Drop case."""

    max_length: int = 100
    """Leave out texts with more tokens than this, in training and validation."""

    mirror: bool = False
    """Turn half of the images left to right in training; not where a text says left or right. Vectors stay."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_choice("tokenizer", self.tokenizer, KINDS)
        check_size("min_count", self.min_count)
        check_size("max_length", self.max_length)
        if self.tokenizer in ("char", "byte") and (self.vocab_size or self.min_count != 1):
            raise OptionError(
                f"--vocab-size and --min-count: for word and bpe, found --tokenizer {self.tokenizer}"
            )


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """What reads images, where it is not our own net."""

    image_model: str | None = None
    """A model of the transformers library: its folder or its name on the hub; default: our own net."""

    fine_tune: bool = False
    """Train that model too; without it its features are computed once, and kept."""


Things = Mapping[str, tuple[Any, Captions]]
"""Part -> images (n, H, W, 3) uint8, or vectors (n, D) float32, and what is said of each."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """An image model that was read.

    Args:
        described: what the config keeps of it.
        net: it.
        pixels: what it was made for.
        frozen: its weights are not trained.
    """

    described: str
    net: nn.Module
    pixels: int
    frozen: bool

    @classmethod
    def read(cls, options: EncoderOptions) -> Pretrained | None:
        """The one that is asked for, or None."""
        if options.image_model is None:
            if options.fine_tune:
                raise OptionError("--fine-tune: expected --image-model with it, found none")
            return None
        return cls(*read_image_model(options.image_model), not options.fine_tune)


def caption_learner(
    things: Things,
    text: CaptionTextOptions,
    model: CaptionOptions,
    images: ImageOptions,
    batches: BatchOptions,
    training: TrainOptions,
    *,
    pretrained: Pretrained | None = None,
    side: Side | None = None,
    cache: bool = True,
    engine: str = "auto",
) -> tuple[CaptionLearner, list[str]]:
    """A new captioner for `things`, initialised from the seed, and what was left out.

    Args:
        things: of each part.
        text, model, images, batches, training: options.
        pretrained: an image model instead of our own.
        side: the vocabulary of a run that is taken up again; default: from the training part.
        cache: keep the features of a frozen image model in the user's cache folder.
        engine: name of an engine, or "auto".
    Raises:
        OptionError: an option is outside its range, or the model does not fit into memory.
        DataError: there is nothing to train on.
    """
    for part in (text, model, images, batches, training):
        part.validate()
    check_engine(engine)
    device = open_device(training.device)
    if "train" not in things:
        raise DataError("expected at least one text to train on, found none")
    side = side or _vocabulary(things["train"][1], text)
    config = _config(things["train"][0], model, images, side, pretrained)
    check_memory(config, pretrained, batches, training, device)
    torch.manual_seed(training.seed)
    network = VectorToSequence(config, pretrained.net if pretrained else None).to(device)
    if training.dtype == "float64":
        network = network.double()
    if config.vector_size:
        network.standardise(torch.from_numpy(things["train"][0]))
    parts, notes = {}, []
    for name, (arrays, captions) in things.items():
        read = _read_by(network, arrays, cache=cache)
        parts[name], dropped = _described(read, captions, side, text.max_length)
        if dropped:
            notes.append(
                f"{name}: left out {dropped:,} texts, longer than --max-length {text.max_length}"
            )
    mirror = text.mirror and parts["train"].things.dtype == np.uint8
    mark = side.mark
    learner = CaptionLearner(
        network,
        parts,
        batches,
        begin=mark,
        end=mark,
        mirror=mirror,
        seed=training.seed,
        engine=engine,
    )
    learner.tokenizer = Sides(side, side).to_json()
    return learner, notes


def _vocabulary(captions: Captions, text: CaptionTextOptions) -> Side:
    texts = [one for item in captions.items for one in item.texts]
    return Side.build(
        text.tokenizer,
        texts,
        lowercase=text.lowercase,
        vocab_size=text.vocab_size,
        min_count=text.min_count,
    )


def _config(
    arrays: Array,
    model: CaptionOptions,
    images: ImageOptions,
    side: Side,
    pretrained: Pretrained | None,
) -> CaptionConfig:
    if arrays.ndim == 2:
        if pretrained is not None:
            raise OptionError("--image-model: reads images, found vectors: leave it out")
        return CaptionConfig.from_options(model, None, side.size, arrays.shape[1])
    if pretrained is None:
        return CaptionConfig.from_options(model, images, side.size)
    described, frozen = pretrained.described, pretrained.frozen
    return CaptionConfig.from_options(model, images, side.size, 0, described, frozen=frozen)


def _read_by(model: VectorToSequence, arrays: Array, *, cache: bool) -> Array:
    """Things as the learner takes them: planes of colours, vectors, or a frozen model's features."""
    if arrays.ndim == 2:
        return arrays
    planes = arrays.transpose(0, 3, 1, 2)  # a view: in memory the colours stay together
    if not model.config.image_frozen:
        return planes

    def make() -> dict[str, Array]:
        return {"features": _features(model, planes)}

    if not cache:
        return make()["features"]
    digest = hashlib.sha256(np.ascontiguousarray(arrays).data)
    assert model.images is not None
    for value in model.images.state_dict().values():
        digest.update(value.detach().cpu().contiguous().numpy().data)
    attended = model.decoder.attention is not None
    return cached(("features", digest.hexdigest(), attended), make)["features"]


def _features(model: VectorToSequence, planes: Array) -> Array:
    found: list[Tensor] = []
    for at in range(0, len(planes), _AT_ONCE):
        batch = torch.from_numpy(np.ascontiguousarray(planes[at : at + _AT_ONCE]))
        found.append(model.features(batch.to(model.device)).float().cpu())
    return torch.cat(found).numpy()


def _described(things: Array, captions: Captions, side: Side, most: int) -> tuple[Described, int]:
    """One part, and how many texts were left out as too long."""
    texts, owners, characters, dropped = [], [], [], 0
    for k, item in enumerate(captions.items):
        for text in item.texts:
            ids = side.encode(text)
            if len(ids) > most:
                dropped += 1
                continue
            texts.append(ids)
            owners.append(k)
            characters.append(len(text))
    counts = np.array(characters, np.int64)
    return Described(
        things, Ragged.of(texts, np.int64), np.array(owners, np.int64), counts
    ), dropped


def check_memory(
    config: CaptionConfig,
    pretrained: Pretrained | None,
    batches: BatchOptions,
    training: TrainOptions,
    device: torch.device,
) -> None:
    """Raise OptionError, with the estimate, if weights and the maps of a batch cannot fit into memory."""
    available = memory_size(device)
    with torch.device("meta"):
        own = VectorToSequence(config, pretrained.net if pretrained else None)
    parameters = sum(p.numel() for p in own.parameters())
    maps = 0
    if not config.vector_size and pretrained is None:
        side, channels = config.image_size // 2, config.image_channels
        maps = 8 * config.image_blocks * channels * side**2  # about: each block keeps four maps
    size = 8 if training.dtype == "float64" else 4
    needed = (4 * parameters + batches.batch_size * maps) * size
    if available is not None and needed > available:
        raise OptionError(
            f"the model would have {parameters:,} parameters and training it would take about "
            f"{in_bytes(needed)}, this machine has {in_bytes(available)}: choose smaller sizes, a "
            "smaller --image-size or --batch-size"
        )
