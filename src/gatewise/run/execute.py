"""A trained model that executes: answers with their certainty, beside the true ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise.checkpoint import Checkpoint
from gatewise.errors import CheckpointError, DataError, GatewiseError, OptionError
from gatewise.generate.conditional import Answer, Conditioned, write_greedily
from gatewise.mappings.config import from_dict
from gatewise.mappings.course import (
    BEGIN,
    END,
    TOKENIZER,
    CourseOptions,
    encoded,
    fixed_examples,
)
from gatewise.mappings.examples import in_order
from gatewise.mappings.executing import answer_scores, standing_alone
from gatewise.mappings.options import LanguageModelConfig
from gatewise.mappings.pairs import Pairs
from gatewise.mappings.seq_to_seq import LanguageModel
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoder, EncoderDecoderConfig
from gatewise.metrics.answers import AnswerTally
from gatewise.modes import evaluating
from gatewise.probe import Control, Record, Records
from gatewise.run.base import Run, fill
from gatewise.tasks.execute import TASKS
from gatewise.tasks.programs import END_OF_TARGET, PARTS, Example, Hardness, normal
from gatewise.text.batches import shifted
from gatewise.text.ragged import lengths_of
from gatewise.types import State, select

LONGEST = 100
"""Characters of an answer at most."""
_AT_ONCE = 256


@dataclass(frozen=True)
class Execution:
    """What a model makes of a program, beside what it prints.

    Args:
        program: as it was read: with the generator's spaces, without comments.
        answer: the model's, each character the most probable after those before.
        certainty: the model's probability of each character, and of the end where it was written.
        ended: whether the model ended its answer, or it was cut.
        truth: what the program prints.
        record: what was recorded while it was read and answered (batch 1), or None.
        notes: what to tell about the program, a line each.
    """

    program: str
    answer: str
    certainty: tuple[float, ...]
    ended: bool
    truth: str
    record: Records | None
    notes: list[str]

    @property
    def right(self) -> bool:
        """Whether the whole answer is right."""
        return self.ended and self.answer == self.truth

    @property
    def probability(self) -> float:
        """Of the whole answer."""
        return math.prod(self.certainty)


@dataclass(frozen=True)
class Cell:
    """How right a model is on examples of one hardness.

    Args:
        length, nesting: of the examples.
        answers: how many there were.
        nats_per_token: mean cost of a character.
        character_accuracy: share of characters right, given the right ones before (teacher forcing).
        exact: share of whole answers right, the model reading its own characters (free running).
    """

    length: int
    nesting: int
    answers: int
    nats_per_token: float
    character_accuracy: float
    exact: float


class ExecuteRun(Run):
    """A run of `gatewise train execute`.

    Attributes:
        model: an `EncoderDecoder`, or of the stream form a `LanguageModel`.
        course: what was learned.
    """

    mapping = "execute"
    verbs = ("execute", "evaluate", "table")
    model: EncoderDecoder | LanguageModel

    def __init__(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        super().__init__(checkpoint, model)
        data = dict(checkpoint.config.get("data") or {})
        try:
            self.seed = int(data.pop("seed", 0))
            self.course: CourseOptions = from_dict(CourseOptions, data, "course")
            self.course.validate()
        except (GatewiseError, ValueError) as error:
            raise CheckpointError(f"{self.path}: not a run of execute: {error}") from None
        if checkpoint.tokenizer_json != TOKENIZER.to_json():
            raise CheckpointError(f"{self.path}: expected the 42 symbols as its tokenizer.json")

    def execute(
        self,
        program: str,
        *,
        record: Record | None = None,
        control: Control | None = None,
        engine: str = "auto",
    ) -> Execution:
        """The model's answer to a program (or to digits, as the task has it), and the true one.

        Args:
            program: as Python's text or serialised ('#' for newlines, '@' at the end).
            record: what to read, by names such as ``encoder.layers.0.f`` (of the stream form:
                ``layers.0.f``), over the program and the answer.
            control: what to set, by the same names.
            engine: of the recurrent layers.
        Raises:
            DataError: if it is outside the language: where, and what was expected.
        """
        task = TASKS[self.course.task]
        truth = task.answer(program)
        if not truth:
            raise DataError("expected a program that prints something, found none: add print(...)")
        source = normal(program) if task.runs else program.strip()
        shown = self.course.examples_of("test", self.seed).shown(source)
        part = encoded([Example(shown, truth + END_OF_TARGET)])
        (found,) = self._answers(part, [LONGEST], control=control, engine=engine)
        answer = TOKENIZER.decode(found.ids)
        records = None
        if record is not None:
            own = encoded([Example(shown, answer + END_OF_TARGET)])
            records = self._record(own, record, control, engine)
        certainty = tuple(math.exp(one) for one in found.token_logprobs)
        notes = self._notes(source)
        return Execution(source, answer, certainty, found.ended, truth, records, notes)

    def evaluate(
        self, examples: Sequence[tuple[str, str]], *, engine: str = "auto"
    ) -> tuple[AnswerTally, float]:
        """(figures given the right characters, share of whole answers right when it reads its own).

        Args:
            examples: sources as the model is to read them, and targets with the '.'.
            engine: of the recurrent layers.
        """
        if not examples:
            raise OptionError("expected at least one example, found none")
        part = encoded([Example(*one) for one in examples])
        tally, right = AnswerTally(), 0
        with evaluating(self.model), torch.inference_mode():
            for rows in in_order(part.sizes, _AT_ONCE):
                tally.add(*answer_scores(self.model, part, rows, engine=engine))
                right += self._right(part, rows, engine)
        return tally, right / len(part)

    def table(
        self,
        lengths: Sequence[int] = (),
        nestings: Sequence[int] = (),
        *,
        examples: int = 1000,
        part: str = "test",
        engine: str = "auto",
    ) -> list[Cell]:
        """Figures for each length and nesting, on examples that training never saw.

        Args:
            lengths, nestings: default: all up to those of the training.
            examples: of each; fewer where a part has fewer.
            part: "test" or "valid".
            engine: of the recurrent layers.
        Raises:
            OptionError: if an argument is out of its range.
        """
        target = self.course.target()
        if part not in PARTS[1:]:
            raise OptionError(f"part: expected one of {', '.join(PARTS[1:])}, found {part!r}")
        if examples < 1:
            raise OptionError(f"examples: expected a whole number from 1, found {examples}")
        if not TASKS[self.course.task].nests and any(n != 1 for n in nestings):
            raise OptionError(f"nestings: the task {self.course.task} has none, leave it out")
        cells = []
        for nesting in nestings or range(1, target.nesting + 1):
            for length in lengths or range(1, target.length + 1):
                hardness = Hardness(length, nesting).checked()
                drawn = fixed_examples(self.course, part, hardness, examples, self.seed)
                tally, exact = self.evaluate(drawn, engine=engine)
                figures = (tally.cost, tally.character_accuracy, exact)
                cells.append(Cell(length, nesting, len(drawn), *figures))
        return cells

    def _right(self, part: Pairs, rows: np.ndarray[Any, Any], engine: str) -> int:
        """Whole answers that the model writes just so."""
        taken = Pairs(part.source.take(rows), part.target.take(rows))
        limits = [int(n) + 1 for n in taken.target.lengths]
        found = self._answers(taken, limits, engine=engine)
        return sum(
            one.ended and one.ids == tuple(target.tolist())
            for one, target in zip(found, taken.target, strict=True)
        )

    def _answers(
        self,
        part: Pairs,
        limits: Sequence[int],
        *,
        control: Control | None = None,
        engine: str = "auto",
    ) -> list[Answer]:
        with evaluating(self.model), torch.inference_mode():
            rows = np.arange(len(part))
            source, lengths = part.source.padded(rows).long(), lengths_of(part.source, rows)
            source, lengths = source.to(self.device), lengths.to(self.device)
            writing: Conditioned
            if isinstance(self.model, EncoderDecoder):
                read = self.model.encode(source, lengths, engine=engine, control=control)
                writing = self.model.writing(read, engine=engine, control=control)
            else:
                writing = StreamWriting(self.model, source, lengths, engine=engine, control=control)
            begin = torch.full((len(part),), BEGIN, device=self.device)
            return write_greedily(writing, begin, END, limits)

    def _record(
        self, part: Pairs, record: Record, control: Control | None, engine: str
    ) -> Records | None:
        with evaluating(self.model), torch.inference_mode():
            if isinstance(self.model, LanguageModel):
                tokens, _, _ = standing_alone(part, np.arange(1))
                found: Records | None = self.model(
                    tokens.to(self.device), engine=engine, record=record, control=control
                ).record
                return found
            tokens, _, _ = shifted(part.target, [0], BEGIN, END)
            read = self.model(
                part.source.padded([0]).long().to(self.device),
                tokens.to(self.device),
                engine=engine,
                record=record,
                control=control,
            )
            records: Records | None = read.record
            return records

    def _notes(self, source: str) -> list[str]:
        """What is beyond what was learned."""
        longest = max((len(run) for run in _digits(source)), default=0)
        most = self.course.target().length + (self.course.task == "programs")
        if longest <= most:
            return []
        return [f"it was trained on numbers of up to {most} digits, here is one of {longest}"]


def _digits(text: str) -> list[str]:
    return "".join(c if c.isdigit() else " " for c in text).split()


class StreamWriting:
    """A language model that has read sources and is about to answer (`generate.Conditioned`).

    Args:
        model: puts itself into evaluation mode for nobody.
        source: ids (S, B); a '.' is read before them, as in the stream.
        lengths: of the sources, (B,).
        engine, control: as in `gatewise.unroll`.
    """

    def __init__(
        self,
        model: LanguageModel,
        source: Tensor,
        lengths: Tensor,
        *,
        engine: str = "auto",
        control: Control | None = None,
    ) -> None:
        self._model, self._engine, self._control = model, engine, control
        tokens = nn.functional.pad(source, (0, 0, 1, 0), value=END)
        self._time = lengths + 1
        out = model(tokens, logits="none", lengths=self._time, engine=engine, control=control)
        self._state: State = out.state

    def step(self, tokens: Tensor) -> Tensor:
        """Scores (B, V) of what follows when `tokens` (B,) were written."""
        out = self._model(
            tokens.unsqueeze(0),
            self._state,
            start=self._time,
            engine=self._engine,
            control=self._control,
        )
        self._state, self._time = out.state, self._time + 1
        scores: Tensor = out.logits[0]
        return scores

    def select(self, columns: Tensor) -> None:
        """Go on with these of the columns (B',)."""
        self._state, self._time = select(self._state, columns), self._time[columns]


def build(checkpoint: Checkpoint) -> tuple[type[ExecuteRun], nn.Module]:
    """The model of a checkpoint of mapping "execute", with its weights."""
    values = checkpoint.config.get("model") or {}
    form = (checkpoint.config.get("data") or {}).get("form")
    try:
        with torch.device("meta"):
            model: nn.Module
            if form == "stream":
                model = LanguageModel(LanguageModelConfig.from_dict(values))
            else:
                model = EncoderDecoder(EncoderDecoderConfig.from_dict(values))
    except GatewiseError as error:
        raise CheckpointError(f"{checkpoint.path}: not a run of execute: {error}") from None
    fill(model, checkpoint)
    return ExecuteRun, model


__all__ = ["Cell", "ExecuteRun", "Execution", "StreamWriting", "build"]
