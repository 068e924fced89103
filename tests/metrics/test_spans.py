"""Spans as conlleval counts them: by hand, and beside seqeval where it is installed."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gatewise.metrics.spans import SpanTally, has_spans, spans
from gatewise.metrics.tags import TagTally

# what conlleval finds, worked out by hand from its rules of where a chunk begins and ends
BY_HAND = [
    ("O O", []),
    ("B-A I-A O", [("A", 0, 2)]),
    ("I-A I-A O", [("A", 0, 2)]),  # IOB1
    ("I-A B-A I-A", [("A", 0, 1), ("A", 1, 3)]),
    ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),  # another kind begins a chunk
    ("B-A B-A", [("A", 0, 1), ("A", 1, 2)]),
    ("B-A I-A E-A S-B", [("A", 0, 3), ("B", 3, 4)]),  # IOBES
    ("E-A I-A", [("A", 0, 1), ("A", 1, 2)]),  # behind an end a chunk begins
    ("S-A I-A O", [("A", 0, 1), ("A", 1, 2)]),
    ("B-A L-A U-A", [("A", 0, 2), ("A", 2, 3)]),  # BILOU
    ("B I O B", [("", 0, 2), ("", 3, 4)]),
    ("B-per-son I-per-son", [("per-son", 0, 2)]),
    ("NN VB", []),
]


@pytest.mark.parametrize(("tags", "expected"), BY_HAND)
def test_spans_by_hand(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert spans(tags.split()) == expected


def test_figures_by_hand() -> None:
    """The example of conlleval's own page: 3 true phrases, 2 found, 1 right."""
    tally = SpanTally()
    tally.add(["B-A", "I-A", "O", "B-B", "O", "B-A"], ["B-A", "I-A", "O", "B-A", "O", "O"])
    found = tally.summary()
    assert (found["precision"], found["recall"], found["f1"]) == (1 / 2, 1 / 3, 2 / 5)
    assert found["kinds"]["A"] == {
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "true": 2,
        "found": 2,
    }
    assert found["kinds"]["B"]["precision"] is None
    assert found["kinds"]["B"]["recall"] == 0
    assert SpanTally().summary()["f1"] is None


def test_which_sets_of_tags_mark_spans() -> None:
    assert has_spans(["O", "B-A", "I-A"])
    assert has_spans(["B", "I", "O"])
    assert not has_spans(["NN", "VB"])
    assert not has_spans(["O"])


@pytest.mark.parametrize("marks", ["BI", "BIES"])
def test_beside_seqeval(marks: str) -> None:
    seqeval = pytest.importorskip(
        "seqeval.metrics", reason="the extra gatewise[dev] is not installed"
    )
    draw = random.Random(0)
    tags = ["O"] + [f"{mark}-{kind}" for mark in marks for kind in "ABC"]
    true, found = (
        [[draw.choice(tags) for _ in range(length)] for length in range(1, 40)] for _ in range(2)
    )
    tally = SpanTally()
    for a, b in zip(true, found, strict=True):
        tally.add(a, b)
    assert tally.precision == pytest.approx(seqeval.precision_score(true, found))
    assert tally.recall == pytest.approx(seqeval.recall_score(true, found))
    assert tally.f1 == pytest.approx(seqeval.f1_score(true, found))
    report = seqeval.classification_report(true, found, output_dict=True)
    for kind in "ABC":
        assert tally.summary()["kinds"][kind]["f1"] == pytest.approx(report[kind]["f1-score"])


def test_known_and_unknown_words_are_counted_apart() -> None:
    tally = TagTally(["B-A", "O"])
    chances = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    tally.add(chances, np.array([0, 0, -1]), np.array([True, False, True]))
    found = tally.summary()
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert (found["known_accuracy"], found["unknown_accuracy"]) == (0.5, 0)
    assert (found["words"], found["unknown_words"], found["unknown_tags"]) == (3, 1, 1)
    assert found["sentence_accuracy"] == 0
    assert found["confusion"] == [[1, 1], [0, 0]]
    assert tally.cost == pytest.approx(-(np.log(0.9) + np.log(0.2)) / 2)
    assert TagTally(["NN", "VB"]).spans is None
