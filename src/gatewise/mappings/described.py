"""A vector -> sequence model, its vectors or images, and their texts: what the training loop sees of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError
from gatewise.mappings.examples import BatchOptions, Order, in_order
from gatewise.mappings.learner import Batch, Loss
from gatewise.mappings.vec_to_seq import VectorToSequence
from gatewise.metrics import Tally
from gatewise.modes import evaluating
from gatewise.text.batches import PADDING, shifted
from gatewise.text.ragged import Ragged
from gatewise.types import State

Array = np.ndarray[Any, np.dtype[Any]]


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


class CaptionLearner:
    """Trains a VectorToSequence; implements `mappings.Learner`.

    Args:
        model: on the device where it is to be trained.
        parts: "train", and perhaps "valid" and "test".
        options: batches; an example is a thing with one of its texts.
        begin, end: ids that stand before and after each text.
        mirror: images are turned left to right half of the time; only where no text says a side.
        seed: of the order of the examples, and of the mirroring.
        engine: name of an engine, or "auto".

    Attributes:
        extra: what else a checkpoint should say of the run, by name; JSON-able.
        tokenizer: its JSON.

    Raises:
        OptionError: if an option is outside its range.
        DataError: if there is nothing to train on.
    """

    kind = "caption"
    unit = "tokens"

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
        self.model, self.parts, self.engine = model, parts, engine
        self.options = options or BatchOptions()
        self.options.validate()
        self.begin, self.end = begin, end
        self.extra: dict[str, Any] = {}
        self.tokenizer: str | None = None
        self._mirror, self._seed = mirror, seed
        if "train" not in parts or not len(parts["train"]):
            raise DataError("expected at least one text to train on, found none")
        lengths = parts["train"].texts.lengths
        self._order = Order(lengths, self.options.batch_size, self.options.bucket, seed)

    @property
    def positions(self) -> int:
        """Texts of an epoch."""
        return len(self._order)

    @property
    def uniform_nats(self) -> float | None:
        """ln V."""
        return math.log(self.model.config.vocab_size)

    def batch(self, epoch: int, position: int) -> Batch:
        """The texts of the batch that begins at `position`, each with its thing."""
        rows = self._order.rows(epoch, position)
        things, *rest = self.collate(self.parts["train"], rows)
        if self._mirror:
            turned = np.random.default_rng((self._seed, epoch, position)).random(len(rows)) < 0.5
            things = _turned(things, torch.from_numpy(turned).to(things.device))
        stop = position + len(rows)
        count = int((rest[1] != PADDING).sum())
        name = f"texts {position} to {stop} of epoch {epoch + 1}"
        return Batch((things, *rest), stop, 0, count, name=name)

    def collate(self, part: Described, rows: Array) -> tuple[Tensor, ...]:
        """Things (B, ...), tokens and targets (T, B), lengths (B,): where the model is."""
        things = torch.from_numpy(np.ascontiguousarray(part.things[part.owners[rows]]))
        batch = (things, *shifted(part.texts, rows, self.begin, self.end))
        return tuple(one.to(self.model.device) for one in batch)

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean nats of the batch's tokens, smoothing added; no state is carried."""
        loss, nats, engine = self.model.loss(*batch.inputs, engine=self.engine)
        return Loss(loss, nats, None, engine)

    def has_part(self, part: str) -> bool:
        """Whether there is a text in `part`."""
        return part in self.parts and len(self.parts[part]) > 0

    @torch.no_grad()
    def evaluate(self, part: str, stopped: Callable[[], bool] = lambda: False) -> Tally | None:
        """The cost of the texts of `part`, each given its thing and the tokens before."""
        if not self.has_part(part):
            raise DataError(f"expected texts in the {part!r} part, found none")
        found, tally = self.parts[part], Tally()
        with evaluating(self.model):
            for rows in in_order(found.texts.lengths, self.options.eval_batch_size):
                if stopped():
                    return None
                inputs = self.collate(found, rows)
                _, nats, _ = self.model.loss(*inputs, engine=self.engine)
                written = 0 if found.characters is None else int(found.characters[rows].sum())
                tally.add(nats, int((inputs[2] != PADDING).sum()), written)
        return tally

    def config(self) -> dict[str, Any]:
        """Model and data, as a checkpoint keeps them."""
        return self.extra | {
            "mapping": self.kind,
            "model": self.model.config.to_dict(),
            "batches": dataclasses.asdict(self.options),
            "data": {
                "texts": {name: len(part) for name, part in self.parts.items()},
                "things": {name: len(part.things) for name, part in self.parts.items()},
            },
        }

    def tokenizer_json(self) -> str | None:
        """The tokenizer of the texts."""
        return self.tokenizer


def _turned(images: Tensor, which: Tensor) -> Tensor:
    """Images (B, 3, H, W), those of `which` left to right."""
    return torch.where(which.view(-1, 1, 1, 1), images.flip(-1), images)
