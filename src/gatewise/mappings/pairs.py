"""An encoder-decoder and its pairs of sequences: what the training loop sees of them, and evaluation."""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError
from gatewise.mappings.examples import BatchOptions, Order, in_order
from gatewise.mappings.learner import Batch, Loss
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoder
from gatewise.metrics import Tally
from gatewise.modes import evaluating
from gatewise.text.batches import PADDING, shifted
from gatewise.text.ragged import Ragged, lengths_of
from gatewise.types import State


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
    characters: np.ndarray[Any, np.dtype[np.int64]] | None = None

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target):
            raise DataError(
                f"expected as many targets as sources, found {len(self.source)} sources and "
                f"{len(self.target)} targets"
            )

    def __len__(self) -> int:
        return len(self.source)

    @property
    def sizes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
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


class PairLearner:
    """Trains an EncoderDecoder on pairs; implements `mappings.Learner`.

    Args:
        model: on the device where it is to be trained.
        parts: "train", and perhaps "valid" and "test".
        options: batches.
        begin, end: ids of the target that stand before and after each.
        kind: the mapping's name on the command line.
        seed: of the order of the examples.
        engine: name of an engine, or "auto".

    Attributes:
        extra: what else a checkpoint should say of the run, by name; JSON-able.
        tokenizers: what a checkpoint keeps as tokenizer.json; JSON-able.

    Raises:
        OptionError: if an option is outside its range.
        DataError: if there is nothing to train on.
    """

    unit = "tokens"

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
        self.model, self.parts, self.kind = model, parts, kind
        self.options = options or BatchOptions()
        self.options.validate()
        self.begin, self.end, self.engine = begin, end, engine
        self.extra: dict[str, Any] = {}
        self.tokenizers: dict[str, Any] | None = None
        if "train" not in parts or not len(parts["train"]):
            raise DataError("expected at least one pair to train on, found none")
        self._order = Order(
            parts["train"].sizes, self.options.batch_size, self.options.bucket, seed
        )

    @property
    def positions(self) -> int:
        """Pairs of an epoch."""
        return len(self._order)

    @property
    def uniform_nats(self) -> float | None:
        """ln V."""
        return math.log(self.model.config.target_size)

    def batch(self, epoch: int, position: int) -> Batch:
        """The pairs of the batch that begins at `position`."""
        rows = self._order.rows(epoch, position)
        inputs = self.collate(self.parts["train"], rows)
        count = int((inputs[3] != PADDING).sum())
        stop = position + len(rows)
        name = f"pairs {position} to {stop} of epoch {epoch + 1}"
        return Batch(inputs, stop, 0, count, name=name)

    def collate(
        self, pairs: Pairs, rows: np.ndarray[Any, np.dtype[np.int64]]
    ) -> tuple[Tensor, ...]:
        """Source (S, B), its lengths, tokens and targets (T, B), their lengths: where the model is."""
        source = pairs.source.padded(rows).long()
        tokens, targets, lengths = shifted(pairs.target, rows, self.begin, self.end)
        batch = (source, lengths_of(pairs.source, rows), tokens, targets, lengths)
        return tuple(part.to(self.model.device) for part in batch)

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean nats of the batch's targets, smoothing added; no state is carried."""
        loss, nats, engine = self.model.loss(*batch.inputs, engine=self.engine)
        return Loss(loss, nats, None, engine)

    def has_part(self, part: str) -> bool:
        """Whether there is a pair in `part`."""
        return part in self.parts and len(self.parts[part]) > 0

    @torch.no_grad()
    def evaluate(self, part: str, stopped: Callable[[], bool] = lambda: False) -> Tally | None:
        """The cost of the targets of `part`, each given its source and the tokens before."""
        if not self.has_part(part):
            raise DataError(f"expected pairs in the {part!r} part, found none")
        pairs, tally = self.parts[part], Tally()
        with evaluating(self.model):
            for rows in in_order(pairs.sizes, self.options.eval_batch_size):
                if stopped():
                    return None
                inputs = self.collate(pairs, rows)
                _, nats, _ = self.model.loss(*inputs, engine=self.engine)
                written = 0 if pairs.characters is None else int(pairs.characters[rows].sum())
                tally.add(nats, int((inputs[3] != PADDING).sum()), written)
        return tally

    def config(self) -> dict[str, Any]:
        """Model and data, as a checkpoint keeps them."""
        return self.extra | {
            "mapping": self.kind,
            "model": self.model.config.to_dict(),
            "batches": dataclasses.asdict(self.options),
            "data": {
                "pairs": {name: len(part) for name, part in self.parts.items()},
                "checksum": self.parts["train"].checksum,
            },
        }

    def tokenizer_json(self) -> str | None:
        """The tokenizers of both sides."""
        return None if self.tokenizers is None else json.dumps(self.tokenizers)
