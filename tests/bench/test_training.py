"""Everybody who takes part in training computes the same thing; and tables say what was found."""

from __future__ import annotations

import pytest
import torch

from gatewise.bench import cells, language, parity, scans, training
from gatewise.bench.contestants import Contestant, Excluded, select
from gatewise.bench.sizes import Size
from gatewise.errors import UnknownNameError

SIZE = Size(4, 3, 6, 2)


@pytest.mark.parametrize("kind", training.KINDS)
@pytest.mark.parametrize("name", training.CONTESTANTS)
def test_everybody_agrees(kind: str, name: str) -> None:
    task = training.make_task(kind, SIZE)
    contestant = training.CONTESTANTS[name]
    if name == "torch-compile":
        with pytest.raises(Excluded, match="--compile"):
            contestant.enter(task)
        return
    entry = contestant.enter(task)
    found = training.step(entry, task.x, task.grad, contestant.dtype)
    expected = training.truth(task)
    assert [v.shape for v in found] == [v.shape for v in expected]
    error = parity.error(found, expected)
    assert parity.complaint(error, contestant.dtype) == "", error
    if contestant.ours:
        assert entry.ran == [entry.ran[0]] != [""]


def test_weights_are_everybodys_own() -> None:
    task = training.make_task("lstm", SIZE)
    entries = [c.enter(task) for n, c in training.CONTESTANTS.items() if n != "torch-compile"]
    pointers = [w.data_ptr() for e in entries for w in e.weights]
    assert len(set(pointers)) == len(pointers)


def test_a_touch_makes_packed_copies_stale_and_changes_nothing() -> None:
    task = training.make_task("gru", SIZE)
    entry = training.CONTESTANTS["gatewise"].enter(task)
    before = [(w._version, w.detach().clone()) for w in entry.weights]
    training.touch(entry)
    for weight, (version, value) in zip(entry.weights, before, strict=True):
        assert weight._version > version
        assert torch.equal(weight, value)


def test_tasks_are_the_same_from_the_same_seed() -> None:
    a, b = (training.make_task("lstm", SIZE, seed=s) for s in (1, 1))
    other = training.make_task("lstm", SIZE, seed=2)
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.theirs.weight_hh_l1, b.theirs.weight_hh_l1)
    assert not torch.equal(a.theirs.weight_hh_l1, other.theirs.weight_hh_l1)


def test_an_engine_that_is_not_there_is_left_out() -> None:
    task = training.make_task("lstm", SIZE)
    entry = training.ours(engine="abacus")(task)
    with pytest.raises(Excluded, match="abacus"):
        entry.forward(task.x)


def test_no_compiler_no_compiled_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.shutil, "which", lambda name: None)
    task = training.make_task("lstm", SIZE, compile=True)
    with pytest.raises(Excluded, match="C\\+\\+ compiler"):
        training.compiled_loop(task)


# ---------------------------------------------------------------------------- language models, cells, scans


@pytest.mark.parametrize("name", language.CONTESTANTS)
def test_everybody_has_the_same_loss(name: str) -> None:
    task = language.make_task(SIZE, 11)
    contestant = language.CONTESTANTS[name]
    entry = contestant.enter(task)
    error = parity.error(language.results(entry, task, contestant.dtype), language.truth(task))
    assert parity.complaint(error, contestant.dtype) == "", error
    before = [w.detach().clone() for w in entry.weights]
    language.step(entry, task, contestant.dtype)
    assert any(not torch.equal(w, b) for w, b in zip(entry.weights, before, strict=True))
    assert all(w.grad is None for w in entry.weights)


@pytest.mark.parametrize("name", cells.CONTESTANTS)
def test_a_users_cell_and_its_loop(name: str) -> None:
    task = cells.make_task(SIZE)
    contestant = cells.CONTESTANTS[name]
    error = cells.error(contestant.enter(task), task, contestant.dtype)
    assert parity.complaint(error, contestant.dtype) == "", error
    assert cells.blocks(name) == (3 if "coupled" in name else 4)


def test_the_first_result_of_a_cell() -> None:
    found = cells._first(1, loaded=False)
    assert 0 < found.output < found.gradients


@pytest.mark.slow  # three processes that import torch
def test_first_results_in_processes() -> None:
    found = cells.first_results(1)
    assert list(found) == ["cold", "warm", "loaded"]
    assert found["warm"].output < found["cold"].output


@pytest.mark.parametrize("name", scans.CONTESTANTS)
def test_min_gru_every_way(name: str) -> None:
    task = scans.make_task(Size(9, 2, 5, 1))
    contestant = scans.CONTESTANTS[name]
    entry = contestant.enter(task)
    try:
        found = training.step(entry, task.x, task.grad, contestant.dtype)
    except Excluded:  # this version has no scan
        assert name == "scan"
        return
    error = parity.error(found, scans.truth(task))
    assert parity.complaint(error, contestant.dtype) == "", error


# ---------------------------------------------------------------------------- parity, selection, operations


def test_an_error_is_the_worst_of_all_tensors() -> None:
    a, b = torch.ones(3), torch.tensor([3.0, 4.0])
    assert parity.error([a, b], [a, b]) == 0.0
    assert parity.error([a * 1.01, b], [a, b]) == pytest.approx(0.01, rel=1e-4)
    assert parity.error([a, b + torch.tensor([0.0, 0.5])], [a, b]) == pytest.approx(0.1)
    assert parity.error([a], [a, b]) == float("inf")
    assert parity.error([a[:2], b], [a, b]) == float("inf")
    nan = parity.error([a, torch.tensor([float("nan"), 4.0])], [a, b])
    assert nan != nan


@pytest.mark.parametrize("dtype", parity.TOLERANCE)
def test_what_is_wrong_is_said(dtype: str) -> None:
    limit = parity.TOLERANCE[dtype]
    assert parity.complaint(limit, dtype) == ""
    for wrong in (limit * 1.01, float("nan"), float("inf")):
        assert dtype in parity.complaint(wrong, dtype)


def test_contestants_by_name() -> None:
    known = {n: Contestant[None, None](n, "float32", lambda task: None) for n in "abc"}
    assert list(select(known, (), "a")) == ["a", "b", "c"]
    assert list(select(known, ("c",), "a")) == ["a", "c"]
    with pytest.raises(UnknownNameError, match="unknown contestant 'd'"):
        select(known, ("d",), "a")


def test_operations_of_a_layer() -> None:
    size = Size(2, 3, 5, 1)
    forward = (
        2 * 3 * 2 * (20 * 5 + 20 * 5)
    )  # T B tokens, W x and R h of 4 H rows, a product and a sum each
    assert size.operations(4) == 3 * forward
    task = language.make_task(size, 7)
    assert language.operations(task) == size.operations(4) + 3 * 2 * 6 * 5 * 7
