"""A loaded run of execute: answers with certainty, records and controls, tables, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import RunFolder, export_checkpoint, load_checkpoint
from gatewise.errors import CheckpointError, DataError, OptionError
from gatewise.mappings.course import CourseOptions, fixed_examples
from gatewise.mappings.executing import ExecuteBatchOptions
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoderOptions
from gatewise.run import ExecuteRun
from gatewise.tasks.programs import Hardness
from gatewise.train import TrainOptions, train
from gatewise.train.execute import execute_learner

FORMS = ("pairs", "stream")


def make(folder: Path, steps: int = 3, **course: Any) -> ExecuteRun:
    training = TrainOptions(steps=steps, lr=0.02, eval_every=1000, checkpoint_seconds=None)
    pairs = course.get("form", "pairs") == "pairs"
    model = {"attention": "dot", "bidirectional": True} if pairs else {}
    learner = execute_learner(
        CourseOptions(**{"examples": 512, "valid_examples": 20, "curriculum": "mix", **course}),
        EncoderDecoderOptions(embedding_size=16, hidden_size=32, **model),
        ExecuteBatchOptions(batch_size=32),
        training,
    )
    with RunFolder.create(folder) as run:
        train(learner, run, training)
    found = gw.load(folder)
    assert isinstance(found, ExecuteRun)
    return found


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> ExecuteRun:
    """It says two digits backwards."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "reverse"
    return make(folder, 250, task="reverse", digits=2, curriculum="baseline")


@pytest.fixture(scope="module", params=FORMS)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """It has hardly learned to execute."""
    torch.manual_seed(0)
    return make(tmp_path_factory.mktemp("runs") / request.param, form=request.param)


def test_it_has_learned(learned: ExecuteRun) -> None:
    for source in ("12", "70", "58"):
        found = learned.execute(source)
        assert (found.answer, found.truth, found.right) == (source[::-1], source[::-1], True)
        assert len(found.certainty) == 3
        assert 0 < found.probability <= min(found.certainty) <= 1
    (cell,) = learned.table(lengths=[2])
    assert cell.exact > 0.9
    assert cell.character_accuracy > 0.9


def test_the_lectures_programs_are_read_and_run(programs: ExecuteRun) -> None:
    first = "j=8584\nfor x in range(8): j+=920\nb=(1500+j)\nprint((b+7567))"
    second = "i=8827\nc=(i-5347)\nprint((c+8704) if 2641<8500 else 5308)"
    for program, truth in ((first, "25011"), (second, "12184")):
        found = programs.execute(program)
        assert found.truth == truth
        assert "range(8):j+=920" in found.program or "if 2641<8500 else" in found.program
        assert found.notes == ["it was trained on numbers of up to 3 digits, here is one of 4"]
    assert programs.execute("print((1+2))").notes == []


def test_whole_answers_by_both_ways_of_counting_agree(programs: ExecuteRun) -> None:
    """Right at every character given the right ones before, or written so: the same answers."""
    drawn = fixed_examples(programs.course, "test", Hardness(1, 1), 100, programs.seed)
    tally, exact = programs.evaluate(drawn)
    assert exact == tally.exact_accuracy
    alone = [programs.evaluate([one])[1] for one in drawn[:20]]
    assert sum(alone) == 20 * programs.evaluate(drawn[:20])[1]


def test_records_and_controls(programs: ExecuteRun) -> None:
    pairs = programs.course.form == "pairs"
    name = "encoder.layers.0.f" if pairs else "layers.0.f"
    plain = programs.execute("print((1+2))", record=gw.Record(name))
    assert plain.record is not None
    steps = len("print((1+2))") if pairs else len(f".print((1+2))@{plain.answer}")
    assert len(plain.record[name]) == steps
    control = gw.Control.off(name.replace(".f", ".o"))
    held = programs.execute("print((1+2))", control=control, record=gw.Record(name))
    assert held.record is not None
    assert held.certainty != plain.certainty


def test_what_is_outside_the_language(programs: ExecuteRun, learned: ExecuteRun) -> None:
    for program, said in (
        ("print((1+2)", r"line 1, column 12: expected an operator or '\)'"),
        ("import os", "line 1, column 1: expected"),
        ("k=1\nprint(k)", "42 symbols"),
        ("print(a)", "a value of 'a'"),
    ):
        with pytest.raises(DataError, match=said):
            programs.execute(program)
    with pytest.raises(DataError, match="column 2: expected a digit, found 'x'"):
        learned.execute("1x")


def test_tables_say_what_they_cannot_do(programs: ExecuteRun, learned: ExecuteRun) -> None:
    cells = programs.table(examples=5)
    assert [(c.length, c.nesting) for c in cells] == [(1, 1), (2, 1), (1, 2), (2, 2)]
    for wrong in ({"part": "train"}, {"examples": 0}, {"lengths": [40]}):
        with pytest.raises(OptionError):
            programs.table(**wrong)
    with pytest.raises(OptionError, match="the task reverse has none"):
        learned.table(nestings=[2])
    with pytest.raises(OptionError, match="at least one example"):
        programs.evaluate([])


def test_a_foreign_checkpoint_is_refused(learned: ExecuteRun, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(learned.path)
    for name, change in (
        ("tokenizer", {"tokenizer_json": None}),
        ("data", {"config": checkpoint.config | {"data": {"task": "sums"}}}),
        ("model", {"config": checkpoint.config | {"model": {"cell": "lstm"}}}),
    ):
        export_checkpoint(type(checkpoint)(**{**vars(checkpoint), **change}), tmp_path / name)
        with pytest.raises(CheckpointError):
            gw.load(tmp_path / name)
