"""The two learners of learning to execute: pairs for an encoder-decoder, a stream for a language model.

Both take fresh examples from a course for every epoch and let it move after every evaluation
(`mappings.learner.Adapting`).
"""

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
from gatewise.mappings.config import check_size
from gatewise.mappings.course import BEGIN, END, TOKENIZER, Course, stage_of
from gatewise.mappings.examples import BatchOptions, Order, in_order
from gatewise.mappings.learner import Batch, Loss
from gatewise.mappings.learning import Array, ExampleLearner
from gatewise.mappings.pairs import Pairs
from gatewise.mappings.seq_to_seq import LanguageModel
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoder
from gatewise.metrics.answers import AnswerTally
from gatewise.modes import evaluating
from gatewise.tasks.programs import PARTS, serialise
from gatewise.text.batches import PADDING, shifted
from gatewise.text.ragged import Ragged, lengths_of
from gatewise.types import State


@dataclass(frozen=True, kw_only=True)
class ExecuteBatchOptions(BatchOptions):
    """How examples are put into batches."""

    bptt: int = 50
    """Of the stream form: steps that gradients flow back; the state is carried further."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        super().validate()
        check_size("bptt", self.bptt)


def standing_alone(part: Pairs, rows: Array) -> tuple[Tensor, Tensor, Tensor]:
    """Examples for a model that reads and answers in one go, each as it stands in the stream: after a '.'.

    Returns:
        tokens: '.', source, '@', target: (T, B).
        targets: what follows each, PADDING but for the answer.
        lengths: of the columns, (B,).
    """
    whole = [
        np.concatenate([part.source[k], [BEGIN], part.target[k]]) for k in np.asarray(rows).tolist()
    ]
    ragged = Ragged.of(whole, np.int64)
    tokens, targets, lengths = shifted(ragged, range(len(whole)), END, END)
    asked = torch.from_numpy(part.source.lengths[np.asarray(rows)] + 1)
    steps = torch.arange(len(tokens)).unsqueeze(1)
    return tokens, targets.masked_fill(steps < asked, PADDING), lengths


def answer_scores(
    model: EncoderDecoder | LanguageModel,
    part: Pairs,
    rows: Array,
    *,
    engine: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Logits (T, B, V) of the answers' characters given those before, and the targets (T, B)."""
    device = model.device
    if isinstance(model, LanguageModel):
        tokens, targets, lengths = (one.to(device) for one in standing_alone(part, rows))
        return model(tokens, lengths=lengths, engine=engine).logits, targets
    source, lengths = part.source.padded(rows).long(), lengths_of(part.source, rows)
    tokens, targets, _ = (one.to(device) for one in shifted(part.target, rows, BEGIN, END))
    return model(source.to(device), tokens, lengths.to(device), engine=engine).logits, targets


def examined(
    model: EncoderDecoder | LanguageModel,
    part: Pairs,
    batch_size: int,
    stopped: Callable[[], bool],
    *,
    engine: str,
) -> AnswerTally | None:
    """How right a model is on examples; None if `stopped()` became true on the way."""
    tally = AnswerTally()
    with evaluating(model), torch.no_grad():
        for rows in in_order(part.sizes, batch_size):
            if stopped():
                return None
            tally.add(*answer_scores(model, part, rows, engine=engine))
    return tally


class _OnCourse:
    """What both learners do with their course."""

    course: Course
    _epoch: int

    def has_part(self, part: str) -> bool:
        """All are made."""
        return part in PARTS[1:]

    def judged(
        self, part: str, examine: Callable[[Pairs], AnswerTally | None]
    ) -> AnswerTally | None:
        """What `examine` says of a part at the target, and how right it is at the stage of now."""
        if not self.has_part(part):
            raise DataError(f"expected a part of {', '.join(PARTS[1:])}, found {part!r}")
        found = examine(self.course.fixed(part))
        stage = self.course.now.current
        now = found if stage == self.course.target else examine(self.course.fixed(part, stage))
        if found is None or now is None:
            return None
        found.stage = stage_of(self.course.now) | {"stage_accuracy": now.character_accuracy}
        return found

    def adapt(self, figures: Any) -> str | None:
        """Let the curriculum move; a line if it did."""
        return self.course.after(figures)

    def adapted(self) -> dict[str, Any]:
        """The course's state, JSON-able."""
        return self.course.state()

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from what `adapted` gave: the epoch in hand is drawn anew when it is asked for."""
        self.course.take_up(state)
        self._epoch = -1


class PairExecuteLearner(_OnCourse, ExampleLearner[Pairs, AnswerTally]):
    """Trains an EncoderDecoder to answer; implements `mappings.Learner` and `Adapting`.

    Args:
        model: on the device where it is to be trained.
        course: the examples.
        options: batches.
        seed: of their order.
        engine: name of an engine, or "auto".
    """

    noun = "examples"
    unit = "tokens"

    def __init__(
        self,
        model: EncoderDecoder,
        course: Course,
        options: BatchOptions,
        *,
        seed: int = 1,
        engine: str = "auto",
    ) -> None:
        parts = {"train": course.epoch(0)}
        super().__init__(model, parts, options, kind="execute", seed=seed, engine=engine)
        self.model, self.course, self._seed, self._epoch = model, course, seed, 0

    @property
    def uniform_nats(self) -> float | None:
        """ln V."""
        return math.log(self.model.config.target_size)

    def batch(self, epoch: int, position: int) -> Batch:
        """The examples of the batch that begins at `position`."""
        if epoch != self._epoch:
            self._turn(epoch, position)
        return dataclasses.replace(super().batch(epoch, position), lr_scale=self.course.rate)

    def _turn(self, epoch: int, position: int) -> None:
        """Draw another epoch's examples."""
        if position == 0:
            self.course.begin()
        train, options = self.course.epoch(epoch), self.options
        self.parts = {"train": train}
        self._order = Order(train.sizes, options.batch_size, options.bucket, self._seed)
        self._epoch = epoch

    def collate(self, part: Pairs, rows: Array) -> tuple[Tensor, ...]:
        """Source (S, B), its lengths, tokens and targets (T, B), their lengths: where the model is."""
        source, lengths = part.source.padded(rows).long(), lengths_of(part.source, rows)
        batch = (source, lengths, *shifted(part.target, rows, BEGIN, END))
        return tuple(one.to(self.model.device) for one in batch)

    def count(self, inputs: tuple[Tensor, ...]) -> int:
        """Characters that are predicted."""
        return int((inputs[-2] != PADDING).sum())

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean nats of the answers' characters, smoothing added."""
        loss, nats, engine = self.model.loss(*batch.inputs, engine=self.engine)
        return Loss(loss, nats, None, engine)

    def tally(self) -> AnswerTally:
        """Of characters and answers."""
        return AnswerTally()

    def measure(self, tally: AnswerTally, part: Pairs, rows: Array) -> None:
        """Each answer given its source, and each character those before."""
        tally.add(*answer_scores(self.model, part, rows, engine=self.engine))

    def evaluate(
        self, part: str, stopped: Callable[[], bool] = lambda: False
    ) -> AnswerTally | None:
        """What the model makes of `part`, at the target and at the stage of now."""
        size = self.options.eval_batch_size
        return self.judged(
            part, lambda each: examined(self.model, each, size, stopped, engine=self.engine)
        )

    def data(self) -> dict[str, Any]:
        """What is learned."""
        return self.course.described()

    def model_config(self) -> dict[str, Any]:
        """The encoder-decoder's."""
        return self.model.config.to_dict()

    def tokenizer_json(self) -> str | None:
        """The 42 symbols."""
        return TOKENIZER.to_json()


class StreamExecuteLearner(_OnCourse):
    """Trains a LanguageModel to answer in a stream; implements `mappings.Learner` and `Adapting`.

    A column is one example after another, ".input@target.input@target."; the cost is counted on targets
    alone, and the state is carried from window to window of an epoch.

    Args:
        model, course, options, engine: as of `PairExecuteLearner`.
    """

    kind = "execute"
    unit = "tokens"

    def __init__(
        self,
        model: LanguageModel,
        course: Course,
        options: ExecuteBatchOptions,
        *,
        engine: str = "auto",
    ) -> None:
        options.validate()
        self.model, self.course, self.options, self.engine = model, course, options, engine
        self.extra: dict[str, Any] = {}
        self._epoch = -1
        self._tokens = self._targets = torch.empty(0, 0)
        usual = course.fixed("valid")
        mean = (usual.source.lengths + usual.target.lengths).mean() + 2
        rows = math.ceil(course.options.examples * mean / options.batch_size)
        self._rows: int = max(options.bptt, rows)

    @property
    def positions(self) -> int:
        """Rows of an epoch."""
        return self._rows

    @property
    def uniform_nats(self) -> float | None:
        """ln V."""
        return math.log(self.model.vocab_size)

    def batch(self, epoch: int, position: int) -> Batch:
        """Rows from `position` on: tokens and targets (T, B), PADDING where nothing is asked."""
        if epoch != self._epoch:
            self._turn(epoch, position)
        stop = min(position + self.options.bptt, self._rows)
        device = self.model.device
        x, y = (each[position:stop].to(device) for each in (self._tokens, self._targets))
        name = f"rows {position} to {stop} of epoch {epoch + 1}"
        return Batch((x, y), stop, position, int((y != PADDING).sum()), self.course.rate, name)

    def _turn(self, epoch: int, position: int) -> None:
        if position == 0:
            self.course.begin()
        columns = [self._column(epoch, k) for k in range(self.options.batch_size)]
        both = torch.from_numpy(np.stack(columns, 1))  # (rows + 1, B, 2)
        self._tokens = both[:-1, :, 0].contiguous()
        self._targets = torch.where(both[1:, :, 1] > 0, both[1:, :, 0], PADDING)
        self._epoch = epoch

    def _column(self, epoch: int, column: int) -> Array:
        """Ids, and whether each is of a target: (rows + 1, 2)."""
        first = (epoch * self.options.batch_size + column) << 24
        parts: list[Array] = [np.array([[END, 0]])]
        length, k = 1, 0
        while length <= self._rows:
            ((source, target),) = self.course.examples(first + k, 1)
            read = TOKENIZER.encode(serialise(source))
            answer = TOKENIZER.encode(target)
            both = np.zeros((len(read) + len(answer), 2), np.int64)
            both[:, 0] = np.concatenate([read, answer])
            both[len(read) :, 1] = 1
            parts.append(both)
            length, k = length + len(both), k + 1
        return np.concatenate(parts)[: self._rows + 1]

    def loss(self, batch: Batch, state: State) -> Loss:
        """Mean nats of the targets in a window; 0 where none stands in it."""
        x, y = batch.inputs
        if batch.tokens == 0:
            out = self.model(x, state, logits="none", start=batch.start, engine=self.engine)
            nothing = out.h.sum() * 0
            return Loss(nothing, nothing.detach(), out.state, out.engine)
        found = self.model.loss(x, y, state, start=batch.start, engine=self.engine)
        return Loss(found.loss, found.nats, found.state, found.engine)

    def evaluate(
        self, part: str, stopped: Callable[[], bool] = lambda: False
    ) -> AnswerTally | None:
        """What the model makes of `part`, at the target and at the stage of now."""
        size = self.options.eval_batch_size
        return self.judged(
            part, lambda each: examined(self.model, each, size, stopped, engine=self.engine)
        )

    def config(self) -> dict[str, Any]:
        """Model and data, as a checkpoint keeps them."""
        return self.extra | {
            "mapping": self.kind,
            "model": self.model.config.to_dict(),
            "batches": dataclasses.asdict(self.options),
            "data": self.course.described(),
        }

    def tokenizer_json(self) -> str | None:
        """The 42 symbols."""
        return TOKENIZER.to_json()


__all__ = [
    "ExecuteBatchOptions",
    "PairExecuteLearner",
    "StreamExecuteLearner",
    "answer_scores",
    "examined",
    "standing_alone",
]
