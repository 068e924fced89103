"""A vector -> sequence model, its vectors or images, and their texts: what the training loop sees of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.learning import Array, WritingLearner
from gatewise.mappings.vec_to_seq import VectorToSequence
from gatewise.text.batches import shifted
from gatewise.text.ragged import Ragged


@dataclass(frozen=True, eq=False)
class Described:
    """Things and what was written of them: one part of a data set.

    Args:
        things: vectors (n, F) float32, or images (n, 3, H, W) uint8.
        texts: ids of m texts, without what stands before and after them.
        owners: the thing that each text is of, (m,).
        characters: of each text, (m,); None: not counted.
    Raises:
        DataError: if texts and owners are not as many, or an owner is not there.
    """

    things: Array
    texts: Ragged
    owners: Array
    characters: Array | None = None

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.owners):
            raise DataError(
                f"expected an owner for each text, found {len(self.texts)} texts and "
                f"{len(self.owners)} owners"
            )
        if len(self.owners) and not 0 <= self.owners.min() <= self.owners.max() < len(self.things):
            raise DataError(
                f"expected owners among {len(self.things)} things, found "
                f"{self.owners.min()} to {self.owners.max()}"
            )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def sizes(self) -> Array:
        """What batches are sorted by: the text's length."""
        return self.texts.lengths

    def checksum(self, *, things: bool) -> int:
        """CRC-32 of texts and owners, and of the things if they are asked for."""
        found = 0
        for array in (self.texts.starts, self.texts.values, self.owners):
            found = zlib.crc32(np.ascontiguousarray(array, np.int64).data, found)
        return zlib.crc32(np.ascontiguousarray(self.things).data, found) if things else found


class CaptionLearner(WritingLearner[Described]):
    """Trains a VectorToSequence; implements `mappings.Learner`.

    Args:
        model, parts, options, seed, engine: as of `ExampleLearner`; an example is a thing with one of
            its texts.
        begin, end: ids that stand before and after each text.
        mirror: images are turned left to right half of the time; only where no text says a side.

    Attributes:
        tokenizer: its JSON.
    """

    noun = "texts"

    def __init__(
        self,
        model: VectorToSequence,
        parts: Mapping[str, Described],
        options: BatchOptions | None = None,
        *,
        begin: int,
        end: int,
        mirror: bool = False,
        seed: int = 1,
        engine: str = "auto",
    ) -> None:
        super().__init__(model, parts, options, kind="caption", seed=seed, engine=engine)
        self.model, self.begin, self.end = model, begin, end
        self.tokenizer: str | None = None
        self._mirror, self._seed = mirror, seed

    def cost(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, str]:
        """The model's."""
        return self.model.loss(*inputs, engine=self.engine)

    @property
    def uniform_nats(self) -> float | None:
        """ln V."""
        return math.log(self.model.config.vocab_size)

    def collate(self, part: Described, rows: Array) -> tuple[Tensor, ...]:
        """Things (B, ...), tokens and targets (T, B), lengths (B,): where the model is."""
        things = torch.from_numpy(part.things[part.owners[rows]])
        batch = (things, *shifted(part.texts, rows, self.begin, self.end))
        return tuple(one.to(self.model.device) for one in batch)

    def altered(self, inputs: tuple[Tensor, ...], epoch: int, position: int) -> tuple[Tensor, ...]:
        """Some images turned, the same ones whenever this batch is asked for."""
        if not self._mirror:
            return inputs
        things, *rest = inputs
        turned = np.random.default_rng((self._seed, epoch, position)).random(len(things)) < 0.5
        return _turned(things, torch.from_numpy(turned).to(things.device)), *rest

    def data(self) -> dict[str, Any]:
        """How many texts and things, and a sum of what is trained on."""
        counts = {n: len(part.things) for n, part in self.parts.items()}
        given = (
            not self.model.config.image_frozen
        )  # features may differ in their last bits elsewhere
        found = self.parts["train"].checksum(things=given)
        return super().data() | {"things": counts, "checksum": found}

    def model_config(self) -> dict[str, Any]:
        """The captioner's."""
        return self.model.config.to_dict()

    def tokenizer_json(self) -> str | None:
        """The tokenizer of the texts."""
        return self.tokenizer


def _turned(images: Tensor, which: Tensor) -> Tensor:
    """Images (B, 3, H, W), those of `which` left to right."""
    return torch.where(which.view(-1, 1, 1, 1), images.flip(-1), images)
