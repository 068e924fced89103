"""A tagger and its sentences: what the training loop sees of them, and their figures."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.learner import Batch, Loss
from gatewise.mappings.learning import Array, ExampleLearner
from gatewise.mappings.tagger import IGNORED, Sentences, Tagger
from gatewise.metrics.tags import TagTally
from gatewise.text.ragged import Ragged, lengths_of
from gatewise.types import State


@dataclass(frozen=True, eq=False)
class Tagged:
    """Sentences as ids, with their tags: one part of a data set.

    Args:
        forms: which of the distinct words of the whole data set each is, n sentences.
        words: id of each form in the vocabulary, (F,); 0 where it is unknown.
        characters: of each form.
        tags: of n sentences; -1 where one is not known to the model.
    Raises:
        DataError: if there are not as many tags as words.
    """

    forms: Ragged
    words: Array
    characters: Ragged
    tags: Ragged

    def __post_init__(self) -> None:
        if not np.array_equal(self.forms.starts, self.tags.starts):
            raise DataError("expected a tag for each word, found other numbers of them")

    def __len__(self) -> int:
        return len(self.forms)

    @property
    def sizes(self) -> Array:
        """What batches are sorted by: words of a sentence."""
        return self.forms.lengths

    @property
    def checksum(self) -> int:
        """Of all words and tags: another text gives another number."""
        found = 0
        spelled = (self.characters.values, self.characters.starts, self.words)
        for array in (*spelled, self.forms.starts, self.forms.values, self.tags.values):
            found = zlib.crc32(np.ascontiguousarray(array, np.int64).tobytes(), found)
        return found

    def batch(self, rows: Array) -> Sentences:
        """Those sentences, padded, each distinct word of them once."""
        forms = self.forms.padded(rows).numpy()
        distinct, places = np.unique(forms, return_inverse=True)
        if not len(distinct):  # sentences without a word: some form, which none of them uses
            distinct = np.array([0])
        characters = self.characters.padded(distinct)
        lengths = lengths_of(self.forms, rows)
        inside = torch.arange(len(forms)).unsqueeze(1) < lengths
        words = torch.from_numpy(self.words[forms]) * inside
        return Sentences(
            words,
            torch.from_numpy(places.reshape(forms.shape)),
            characters,
            lengths_of(self.characters, distinct),
            lengths,
        )


class TagLearner(ExampleLearner[Tagged, TagTally]):
    """Trains a Tagger; implements `mappings.Learner`.

    Args:
        model, parts, options, seed, engine: as of `ExampleLearner`.
        tags: names of the tags, in the order of their ids.

    Attributes:
        tokenizer: what a checkpoint keeps as tokenizer.json.
    """

    noun = "sentences"
    unit = "words"

    def __init__(
        self,
        model: Tagger,
        parts: Mapping[str, Tagged],
        options: BatchOptions | None = None,
        *,
        tags: Sequence[str],
        seed: int = 1,
        engine: str = "auto",
    ) -> None:
        super().__init__(model, parts, options, kind="tag", seed=seed, engine=engine)
        self.model, self.tags = model, list(tags)
        self.tokenizer: str | None = None

    @property
    def uniform_nats(self) -> float | None:
        """ln K of K tags."""
        return math.log(self.model.config.tags)

    def collate(self, part: Tagged, rows: Array) -> tuple[Tensor, ...]:
        """Words, places, characters, their sizes, lengths and targets, where the model is."""
        of = part.batch(rows)
        targets = part.tags.padded(rows, fill=IGNORED)
        return tuple(one.to(self.model.device) for one in (*vars(of).values(), targets))

    def count(self, inputs: tuple[Tensor, ...]) -> int:
        """Words with a tag."""
        return int((inputs[-1] != IGNORED).sum())

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean nats of the batch's tags, smoothing added."""
        *parts, targets = batch.inputs
        loss, nats, out = self.model.loss(Sentences(*parts), targets, engine=self.engine)
        return Loss(loss, nats, None, out.engine)

    def tally(self) -> TagTally:
        """Accuracy, spans, confusion."""
        return TagTally(self.tags)

    def measure(self, tally: TagTally, part: Tagged, rows: Array) -> None:
        """What the model says of those sentences, beside their tags."""
        *parts, targets = self.collate(part, rows)
        of = Sentences(*parts)
        chances = self.model(of, engine=self.engine).scores.softmax(-1).cpu().numpy()
        words, own = of.words.cpu().numpy(), targets.cpu().numpy()
        for column, size in enumerate(part.forms.lengths[rows].tolist()):
            tally.add(chances[:size, column], own[:size, column], words[:size, column] > 0)

    def data(self) -> dict[str, Any]:
        """How many sentences and words, and a sum of what is trained on."""
        sizes = {name: int(part.forms.lengths.sum()) for name, part in self.parts.items()}
        return super().data() | {"words": sizes, "checksum": self.parts["train"].checksum}

    def model_config(self) -> dict[str, Any]:
        """The tagger's."""
        return self.model.config.to_dict()

    def tokenizer_json(self) -> str | None:
        """Words, characters and tags."""
        return self.tokenizer
