"""An encoder-decoder and its pairs of sequences: what the training loop sees of them."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from gatewise.errors import DataError
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.learning import Array, WritingLearner
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoder
from gatewise.text.batches import shifted
from gatewise.text.ragged import Ragged, lengths_of


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sources and their targets as ids: one part of a data set.

    Args:
        source: of n sequences.
        target: of as many, without what stands before and after them.
        characters: of each target's text, (n,); None: not counted.
    Raises:
        DataError: if there are not as many of one as of the other.
    """

    source: Ragged
    target: Ragged
    characters: Array | None = None

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target):
            raise DataError(
                f"expected as many targets as sources, found {len(self.source)} sources and "
                f"{len(self.target)} targets"
            )

    def __len__(self) -> int:
        return len(self.source)

    @property
    def sizes(self) -> Array:
        """What batches are sorted by: the target's length, then the source's."""
        return (self.target.lengths << 20) + self.source.lengths

    @property
    def checksum(self) -> int:
        """Of all ids and where sequences begin: another text gives another number."""
        found = 0
        for ragged in (self.source, self.target):
            for array in (ragged.starts, ragged.values):
                found = zlib.crc32(np.ascontiguousarray(array, np.int64).tobytes(), found)
        return found


class PairLearner(WritingLearner[Pairs]):
    """Trains an EncoderDecoder on pairs; implements `mappings.Learner`.

    Args:
        model, parts, options, kind, seed, engine: as of `ExampleLearner`.
        begin, end: ids of the target that stand before and after each.

    Attributes:
        tokenizers: what a checkpoint keeps as tokenizer.json; JSON-able.
    """

    noun = "pairs"

    def __init__(
        self,
        model: EncoderDecoder,
        parts: Mapping[str, Pairs],
        options: BatchOptions | None = None,
        *,
        begin: int,
        end: int,
        kind: str = "translate",
        seed: int = 1,
        engine: str = "auto",
    ) -> None:
        super().__init__(model, parts, options, kind=kind, seed=seed, engine=engine)
        self.model, self.begin, self.end = model, begin, end
        self.tokenizers: dict[str, Any] | None = None

    def cost(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, str]:
        """The model's."""
        return self.model.loss(*inputs, engine=self.engine)

    @property
    def uniform_nats(self) -> float | None:
        """ln V."""
        return math.log(self.model.config.target_size)

    def collate(self, part: Pairs, rows: Array) -> tuple[Tensor, ...]:
        """Source (S, B), its lengths, tokens and targets (T, B), their lengths: where the model is."""
        source = part.source.padded(rows).long()
        written = shifted(part.target, rows, self.begin, self.end)
        batch = (source, lengths_of(part.source, rows), *written)
        return tuple(one.to(self.model.device) for one in batch)

    def data(self) -> dict[str, Any]:
        """How many pairs, and a sum of what is trained on."""
        return super().data() | {"checksum": self.parts["train"].checksum}

    def model_config(self) -> dict[str, Any]:
        """The encoder-decoder's."""
        return self.model.config.to_dict()

    def tokenizer_json(self) -> str | None:
        """The tokenizers of both sides."""
        return None if self.tokenizers is None else json.dumps(self.tokenizers)
