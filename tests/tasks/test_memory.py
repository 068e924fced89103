"""The memory suite: every target by a rule of its own, the published lengths, parts that share nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError, UnknownNameError
from gatewise.tasks.memory import TASKS, MemoryBatch, MemoryTask, open_task
from gatewise.tasks.memory.base import tenths
from gatewise.tasks.programs import PARTS

Words = list[str]


def _only_last(answer: str, read: Words) -> Words:
    return ["."] * (len(read) - 1) + [answer]


def _order(read: Words) -> Words:
    marks = "".join(word for word in read if word in "XY")
    return _only_last({"XX": "Q", "XY": "R", "YX": "S", "YY": "U"}.get(marks, marks), read)


def _copied(read: Words) -> Words:
    return ["-"] * (len(read) - 10) + read[:10]


def _depths(read: Words) -> Words:
    return [str(read[: t + 1].count("(") - read[: t + 1].count(")")) for t in range(len(read))]


def _walked(read: Words) -> Words:
    place = 0
    for word in read:
        place = {"=": place, ">": place + 1, "<": place + 4}[word] % 5
    return _only_last(str(place), read)


RULES: dict[str, Callable[[Words], Words]] = {
    "temporal-order": _order,
    "temporal-order-3": _order,
    "copy": _copied,
    "parity": lambda read: _only_last(["even", "odd"][read.count("1") % 2], read),
    "cycle": _walked,
    "parentheses": _depths,
    "echo": lambda read: [".", ".", ".", *read[:-3]],
}

EVERY = [(name, length) for name, task in TASKS.items() for length in task.lengths]


def _columns(task: MemoryTask, batch: MemoryBatch) -> list[tuple[Words, Words]]:
    return [task.shown(batch, k) for k in range(len(batch.lengths))]


@pytest.mark.parametrize(("name", "length"), [e for e in EVERY if e[0] in RULES])
@pytest.mark.parametrize("part", ["train", "test"])
def test_targets_follow_their_rule(name: str, length: str, part: str) -> None:
    task = open_task(name, length)
    for read, said in _columns(task, task.batch(part, 0, 40)):
        assert said == RULES[name](read)


@pytest.mark.parametrize("length", ["100", "24"])
@pytest.mark.parametrize("name", ["adding", "adding-1997"])
def test_marked_numbers_are_added(name: str, length: str) -> None:
    task, old = open_task(name, length), name == "adding-1997"
    batch = task.batch("train", 2, 300)
    assert batch.mask.sum(0).eq(1).all()
    for k, steps in enumerate(batch.lengths.tolist()):
        values, marks = batch.x[:steps, k].double().T.tolist()
        marked = [t for t, mark in enumerate(marks) if mark == 1]
        total = sum(values[t] for t in marked)
        assert len(marked) == 2
        assert bool(batch.mask[steps - 1, k])
        wanted = 0.5 + total / 4 if old else total
        assert float(batch.targets[steps - 1, k, 0]) == pytest.approx(wanted, abs=1e-6)
        if old:
            # at least one among the first ten, both among the places that ten and T/2 - 1 more leave
            assert marked[0] < 10
            assert marked[1] < int(length) // 2
            assert marks[-1] == -1
            assert marks[0] == -1 or values[0] == 0
            assert set(marks[1:-1]) <= {0, 1}
        else:
            assert marked[0] < int(length) // 2 <= marked[1]
    assert float(batch.x[..., 0].min()) < (-0.9 if old else 0.1)
    assert float(batch.x[..., 0].max()) > 0.9


LENGTHS = {
    ("temporal-order", "easy"): {7, 8},
    ("temporal-order", "normal"): set(range(30, 41)),
    ("temporal-order", "moderate"): set(range(60, 81)),
    ("temporal-order", "hard"): set(range(100, 111)),
    ("temporal-order", "nightmare"): set(range(300, 501)),
    ("temporal-order-3", "hard"): set(range(100, 111)),
    ("adding", "400"): {400},
    ("adding-1997", "100"): set(range(100, 111)),
    ("copy", "200"): {220},
    ("parity", "40"): set(range(1, 41)),
    ("cycle", "40"): set(range(1, 41)),
    ("parentheses", "50"): set(range(2, 51, 2)),
    ("echo", "20"): {20},
}


@pytest.mark.parametrize(("name", "length"), LENGTHS)
def test_lengths_are_the_published_ones(name: str, length: str) -> None:
    task = open_task(name, length)
    found = {n for k in range(2) for n in task.batch("train", k, 1500).lengths.tolist()}
    assert found == LENGTHS[name, length]


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("parity", set(range(41, 501))),
        ("cycle", set(range(41, 501))),
        ("parentheses", set(range(52, 101, 2))),
    ],
)
def test_states_are_tested_on_longer_sequences(name: str, lengths: set[int]) -> None:
    task = open_task(name)
    found = {n for k in range(4) for n in task.batch("test", k, 1500).lengths.tolist()}
    assert found == lengths
    assert set(task.batch("valid", 0, 500).lengths.tolist()) <= set(range(1, 51))


PLACES = {
    "easy": [{1, 2}, {4, 5}],
    "normal": [set(range(2, 6)), set(range(20, 28))],
    "moderate": [set(range(10, 21)), set(range(45, 55))],
    "hard": [set(range(10, 21)), set(range(50, 61))],
    "nightmare": [set(range(10, 81)), set(range(250, 291))],
}


@pytest.mark.parametrize("level", PLACES)
def test_marks_stand_where_the_paper_puts_them(level: str) -> None:
    batch = open_task("temporal-order", level).batch("train", 0, 3000)
    marks = batch.x[..., 4:6].sum(-1).T.nonzero()[:, 1].view(-1, 2)
    assert [set(places) for places in marks.T.tolist()] == PLACES[level]
    answers = batch.targets[batch.lengths - 1, torch.arange(3000)].bincount()
    assert answers.tolist() == pytest.approx([750] * 4, abs=100)


def test_marks_of_the_three_symbol_form() -> None:
    batch = open_task("temporal-order-3").batch("test", 0, 3000)
    marks = batch.x[..., 4:6].sum(-1).T.nonzero()[:, 1].view(-1, 3)
    assert [(min(places), max(places)) for places in marks.T.tolist()] == [
        (10, 20),
        (33, 43),
        (66, 76),
    ]


def _sequences(batch: MemoryBatch) -> set[bytes]:
    return {
        batch.x[:steps, k].contiguous().numpy().tobytes()
        for k, steps in enumerate(batch.lengths.tolist())
    }


SMALLEST = [
    ("temporal-order", "easy"),
    ("temporal-order-3", "hard"),
    ("adding", "2"),
    ("adding-1997", "24"),
    ("copy", "1"),
    ("parity", "8"),
    ("cycle", "6"),
    ("parentheses", "16"),
]


@pytest.mark.parametrize(("name", "length"), SMALLEST)
def test_parts_share_no_sequence(name: str, length: str) -> None:
    task = open_task(name, length)
    found = {
        part: set.union(*(_sequences(task.batch(part, k, 400)) for k in range(5))) for part in PARTS
    }
    for one, other in itertools.combinations(PARTS, 2):
        assert not found[one] & found[other]
    assert len(found["train"]) > 50


def test_every_sequence_of_a_small_space_has_one_part() -> None:
    rows = torch.cartesian_prod(*[torch.arange(2)] * 12).numpy()
    shares = torch.from_numpy(tenths(rows)).bincount(minlength=10) / len(rows)
    assert float(shares.min()) > 0.08
    assert float(shares.max()) < 0.12
    assert (tenths(rows[:, :5]) == tenths(_wider(rows[:, :5]))).all()


def _wider(rows: object) -> object:
    padded = torch.full((len(rows), 3), -1)  # type: ignore[arg-type]
    return torch.cat((torch.as_tensor(rows), padded), 1).numpy()


def test_rows_of_the_echo_go_on_and_differ_between_parts() -> None:
    task = open_task("echo", "20")
    bits = {
        part: torch.cat([task.batch(part, k, 8).x.argmax(-1) for k in range(100)]) for part in PARTS
    }
    said = torch.cat([task.batch("train", k, 8).targets for k in range(100)])
    asked = torch.cat([task.batch("train", k, 8).mask for k in range(100)])
    assert torch.equal(said[3:], bits["train"][:-3])
    assert asked.sum(1).tolist() == [0] * 3 + [8] * 1997
    windows = {
        part: {tuple(w) for w in rows.T.unfold(1, 64, 1).reshape(-1, 64).tolist()}
        for part, rows in bits.items()
    }
    for one, other in itertools.combinations(PARTS, 2):
        assert not windows[one] & windows[other]


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_a_function_of_seed_part_and_number(name: str) -> None:
    task = open_task(name)
    first = task.batch("train", 5, 16, seed=3)
    task.batch("test", 1, 7)
    again = open_task(name).batch("train", 5, 16, seed=3)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    for other in (
        task.batch("train", 6, 16, seed=3),
        task.batch("train", 5, 16, seed=4),
        task.batch("valid", 5, 16, seed=3),
    ):
        assert first.x.shape != other.x.shape or not torch.equal(first.x, other.x)


@pytest.mark.parametrize("name", TASKS)
def test_shapes_and_padding(name: str) -> None:
    task = open_task(name)
    x, targets, mask, lengths = batch = task.batch("train", 0, 9)
    steps = int(lengths.max())
    assert x.shape == (steps, 9, len(task.symbols))
    assert mask.shape == targets.shape[:2] == (steps, 9)
    assert (x.dtype, mask.dtype, lengths.dtype) == (torch.float32, torch.bool, torch.int64)
    assert targets.dtype == (torch.int64 if task.classes else torch.float32)
    outside = torch.arange(steps).unsqueeze(1) >= lengths
    assert not x[outside].any()
    assert not mask[outside].any()
    assert not targets[~mask].any()
    if not task.numeric:
        assert torch.equal(x.sum(-1), (~outside).float())
    assert task.right(_perfect(task, batch), batch).all()


def _perfect(task: MemoryTask, batch: MemoryBatch) -> Tensor:
    if not task.classes:
        return batch.targets.clone()
    return 20 * torch.nn.functional.one_hot(batch.targets, task.outputs).float()


def test_what_is_right() -> None:
    adding = open_task("adding")
    batch = adding.batch("test", 0, 3)
    outputs = batch.targets + torch.tensor([0.039, -0.041, 0.0]).view(3, 1)
    assert adding.right(outputs, batch).tolist() == [True, False, True]
    order = open_task("temporal-order", "easy")
    batch = order.batch("test", 0, 2)
    shares = torch.tensor([0.72, 0.68])  # the error of the right class is 0.28, 0.32
    sure = (shares * 3 / (1 - shares)).log()
    outputs = torch.nn.functional.one_hot(batch.targets, 4) * sure.view(1, 2, 1)
    assert order.right(outputs, batch).tolist() == [True, False]
    copy = open_task("copy", "5")
    batch = copy.batch("test", 0, 2)
    outputs = _perfect(copy, batch)
    outputs[-1, 1] = outputs[-1, 1].roll(1)
    assert copy.right(outputs, batch).tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "length", "says"),
    [
        ("temporal-order", "100", "expected one of easy, normal"),
        ("temporal-order-3", "easy", "expected one of hard"),
        ("copy", "0", "whole number from 1"),
        ("copy", "ten", "whole number from 1 to 100,000, found 'ten'"),
        ("adding", "1", "whole number from 2"),
        ("adding-1997", "20", "whole number from 24"),
        ("parentheses", "51", "an even number"),
        ("echo", "2", "whole number from 3"),
        ("parity", "²", "whole number from 4"),
    ],
)
def test_lengths_that_a_task_has_not(name: str, length: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        open_task(name, length)


def test_refusals() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'adding'"):
        open_task("ading")
    task = open_task("copy")
    with pytest.raises(UnknownNameError, match="unknown part"):
        task.batch("dev", 0, 1)
    for arguments, word in (((-1, 1), "index"), ((0, 0), "size")):
        with pytest.raises(OptionError, match=f"{word}: expected"):
            task.batch("train", *arguments)
    with pytest.raises(OptionError, match="seed: expected"):
        task.batch("train", 0, 1, seed=-1)


def test_a_part_without_sequences_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewise.tasks.memory.base._ROUNDS", 0)
    with pytest.raises(DataError, match="take a greater length"):
        open_task("copy").batch("train", 0, 1)


def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    known = datasets.load_digits()
    answers = {image.tobytes(): int(k) for image, k in zip(known.data, known.target, strict=True)}
    task, seen = open_task("digits"), {}
    for part in PARTS:
        size = 1437 if part == "train" else 180
        batch = task.batch(part, 0, size)
        images = (16 * batch.x[..., 0].T.double()).numpy()
        seen[part] = {image.tobytes() for image in images}
        assert len(seen[part]) == size  # each once
        assert [answers[image.tobytes()] for image in images] == batch.targets[-1].tolist()
    assert len(set.union(*seen.values())) == 1797
    several = [task.batch("test", k, 50).x[..., 0].T for k in range(4)]  # 20 of the last begin anew
    assert len(torch.cat(several)[:180].unique(dim=0)) == 180
    permuted = open_task("digits", "permuted").batch("test", 0, 180)
    plain = task.batch("test", 0, 180)
    assert not torch.equal(permuted.x, plain.x)
    assert torch.equal(permuted.x.sort(0).values, plain.x.sort(0).values)
    with pytest.raises(OptionError, match="--length: expected one of pixels, permuted"):
        open_task("digits", "28")
