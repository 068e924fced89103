"""Courses and the two learners of execution: fresh examples, windows of a stream, exact resume as it gets harder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gatewise.checkpoint import RunFolder, load_checkpoint
from gatewise.errors import DataError, OptionError
from gatewise.mappings.course import BEGIN, END, TOKENIZER, Course, CourseOptions
from gatewise.mappings.executing import ExecuteBatchOptions, answer_scores, standing_alone
from gatewise.mappings.learner import Adapting
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoderOptions
from gatewise.metrics.answers import AnswerTally
from gatewise.tasks.interpreter import run as interpret
from gatewise.tasks.programs import Hardness, part_of, runnable
from gatewise.text.batches import PADDING
from gatewise.train import TrainOptions, train
from gatewise.train.execute import ExecuteLearner, check_given, execute_learner

FORMS = ("pairs", "stream")


def make(training: TrainOptions, **course: Any) -> ExecuteLearner:
    options = {"task": "programs", "examples": 48, "valid_examples": 12, "curriculum": "naive"}
    return execute_learner(
        CourseOptions(**{**options, **course}),
        EncoderDecoderOptions(embedding_size=4, hidden_size=6, dropout=0.1),
        ExecuteBatchOptions(batch_size=8, bptt=20),
        training,
    )


# ---------------------------------------------------------------------------- the course


def test_epochs_are_fresh_and_can_be_asked_for_again() -> None:
    course = Course(CourseOptions(examples=30), seed=3)
    first, second = course.examples(0, 30), course.examples(30, 30)
    assert course.examples(0, 30) == first != second
    assert Course(CourseOptions(examples=30), seed=4).examples(0, 30) != first
    texts = {source for source, _ in first + second}
    assert {part_of(source) for source in texts} == {"train"}
    held = course.fixed("test")
    sources = {runnable(TOKENIZER.decode(one)) for one in held.source}
    assert {part_of(source) for source in sources} == {"test"}


def _after(course: Course, accuracy: float) -> str | None:
    return course.after(AnswerTally(stage={"stage_accuracy": accuracy}))


def test_it_gets_harder_from_the_next_epoch_on() -> None:
    course = Course(CourseOptions(curriculum="naive", length=2, nesting=1, settle=0.8), seed=1)
    easy = course.examples(0, 5)
    assert _after(course, 0.5) is None
    assert _after(course, 0.96) == "curriculum: length 1, nesting 1 -> length 2, nesting 1"
    assert course.examples(0, 5) == easy, "the epoch in hand stays as it is"
    stored = course.state()
    course.begin()
    assert course.examples(0, 5) != easy
    again = Course(course.options, seed=1)
    again.take_up(stored)
    assert again.examples(0, 5) == easy
    assert again.now == course.now
    assert "learning rate times 0.8" in str(_after(course, 0.96))
    assert course.rate == 0.8


def test_a_part_with_few_examples_gives_those_there_are() -> None:
    course = Course(CourseOptions(task="memorise", digits=1, valid_examples=50), seed=1)
    kept = [len(course.fixed(part)) for part in ("valid", "test")]
    assert kept == [1, 1]


# ---------------------------------------------------------------------------- the stream


def test_a_column_is_one_example_after_another_and_answers_alone_count() -> None:
    learner = make(TrainOptions(steps=1), form="stream", length=2, nesting=2, curriculum="mix")
    inputs, targets, position = [], [], 0
    while position < learner.positions:
        batch = learner.batch(0, position)
        inputs.append(batch.inputs[0])
        targets.append(batch.inputs[1])
        assert batch.start == position
        assert batch.tokens == int((batch.inputs[1] != PADDING).sum())
        position = batch.stop
    x, y = torch.cat(inputs), torch.cat(targets)
    assert (y[:-1] == x[1:])[y[:-1] != PADDING].all()
    for column in range(x.shape[1]):
        text = TOKENIZER.decode(x[:, column].numpy())
        assert text[0] == "."
        whole = text[1:].split(".")[:-1]  # the last one is cut
        assert len(whole) > 3
        for example in whole:
            source, _, target = example.partition("@")
            assert interpret(runnable(source)) == target
        asked = sum(len(one.partition("@")[2]) + 1 for one in whole)
        cut = text.rpartition(".")[2].partition("@")
        assert int((y[:, column] != PADDING).sum()) - asked <= len(cut[2]) + 1


def test_an_example_alone_is_as_in_the_stream() -> None:
    course = Course(CourseOptions(task="memorise", digits=3), seed=1)
    part = course.fixed("valid")
    tokens, targets, lengths = standing_alone(part, np.arange(2))
    for k in range(2):
        digits = TOKENIZER.decode(part.source[k])
        assert TOKENIZER.decode(tokens[:, k].numpy()) == f".{digits}@{digits}"
        kept = targets[:, k][targets[:, k] != PADDING]
        assert TOKENIZER.decode(kept.numpy()) == f"{digits}."
        assert int(lengths[k]) == 8
    assert (TOKENIZER.tokens[BEGIN], TOKENIZER.tokens[END]) == ("@", ".")


def test_a_window_without_an_answer_costs_nothing() -> None:
    learner = make(TrainOptions(steps=1), form="stream")
    batch = learner.batch(0, 0)
    empty = type(batch)((batch.inputs[0][:1], torch.full((1, 8), PADDING)), 1, 0, 0)
    loss = learner.loss(empty, None)
    loss.loss.backward()
    assert float(loss.nats) == 0.0
    assert loss.state is not None


# ---------------------------------------------------------------------------- learning


@pytest.mark.parametrize("form", FORMS)
def test_taken_up_in_the_middle_of_an_epoch_the_bits_are_the_same(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curriculum moves after every evaluation; one run is cut after a move, one never."""
    monkeypatch.setattr("gatewise.tasks.curricula.PASSED", -1.0)
    options = {"form": form, "length": 2, "nesting": 2, "settle": 0.5}

    def go(folder: str, steps: int, *, resume: bool = False) -> None:
        training = TrainOptions(steps=steps, lr=0.01, eval_every=4, checkpoint_seconds=None)
        learner = make(training, **options)
        assert isinstance(learner, Adapting)
        opened = RunFolder.resume if resume else RunFolder.create
        with opened(tmp_path / folder) as run:
            train(learner, run, training)

    go("whole", 21)
    go("parts", 9)
    go("parts", 21, resume=True)
    whole, parts = (load_checkpoint(tmp_path / name, "latest") for name in ("whole", "parts"))
    assert whole.training().meta["learner"] == parts.training().meta["learner"]
    assert whole.training().meta["learner"]["settled"] > 0
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name


def test_a_stream_is_learned(tmp_path: Path) -> None:
    """Two digits, said again: most of what was never seen is right after 250 windows."""
    training = TrainOptions(steps=250, lr=0.01, eval_every=250, checkpoint_seconds=None)
    learner = execute_learner(
        CourseOptions(
            task="memorise",
            form="stream",
            digits=2,
            curriculum="baseline",
            examples=1280,
            valid_examples=10,
        ),
        EncoderDecoderOptions(embedding_size=32, hidden_size=48),
        ExecuteBatchOptions(batch_size=32, bptt=20),
        training,
    )
    with RunFolder.create(tmp_path / "run") as run:
        found = train(learner, run, training)
    assert found.valid["character_accuracy"] > 0.7
    assert found.valid["nats_per_token"] < 0.8


@pytest.mark.parametrize("form", FORMS)
def test_figures_do_not_depend_on_the_batch_size(form: str) -> None:
    learner = make(TrainOptions(steps=1), form=form)
    part = learner.course.fixed("valid")
    whole, single = AnswerTally(), AnswerTally()
    with torch.no_grad():
        learner.model.eval()
        whole.add(*answer_scores(learner.model, part, np.arange(len(part))))
        for k in range(len(part)):
            single.add(*answer_scores(learner.model, part, np.array([k])))
    assert (whole.right, whole.exact, whole.answers) == (single.right, single.exact, single.answers)
    assert whole.cost == pytest.approx(single.cost, abs=1e-5)
    with pytest.raises(DataError, match="expected a part of valid, test"):
        learner.evaluate("train")


def test_refusals() -> None:
    pairs, stream = CourseOptions(), CourseOptions(form="stream")
    for course, name, said in (
        (stream, "attention", "--attention: for --form pairs"),
        (pairs, "bptt", "--bptt: for --form stream"),
        (pairs, "digits", "--digits: the task programs takes --length and --nesting"),
        (CourseOptions(task="addition"), "nesting", "--nesting: the task addition takes --digits"),
    ):
        with pytest.raises(OptionError, match=said):
            check_given(course, {name})
    for wrong, said in (
        ({"task": "sums"}, "--task: expected one of programs"),
        ({"form": "tree"}, "--form"),
        ({"curriculum": "steep"}, "--curriculum"),
        ({"settle": 0.0}, "--settle"),
        ({"length": 40}, "a length of 1 to 18"),
    ):
        with pytest.raises(OptionError, match=said):
            CourseOptions(**wrong).validate()
    with pytest.raises(OptionError, match="choose smaller sizes"):
        execute_learner(
            CourseOptions(valid_examples=5),
            EncoderDecoderOptions(hidden_size=1 << 17),
            ExecuteBatchOptions(),
            TrainOptions(steps=1),
        )
    assert Hardness(2, 2) == CourseOptions().target()


def test_mastery_does_not_wait_for_a_stage_that_cannot_be_judged() -> None:
    """Of the sums of one digit nine are held out; a net that knows the others may not know them."""
    options = CourseOptions(task="addition", digits=3, curriculum="mastery", valid_examples=200)
    course = Course(options, 1)
    nothing = AnswerTally(stage={"stage_accuracy": 0.0})
    assert course.after(nothing) == "curriculum: length 1, nesting 1 -> length 2, nesting 1"
    assert course.after(nothing) is None
