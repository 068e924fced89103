"""Characters and whole answers, counted by hand."""

from __future__ import annotations

import math

import torch

from gatewise.metrics.answers import AnswerTally
from gatewise.text.batches import PADDING


def test_characters_and_answers_are_counted() -> None:
    targets = torch.tensor([[PADDING, 1], [2, 0], [0, PADDING]])  # two answers: (2, 0) and (1, 0)
    said = torch.tensor([[1, 1], [2, 2], [0, 1]])
    logits = torch.full((3, 2, 3), 0.0).scatter(-1, said.unsqueeze(-1), 1.0)
    tally = AnswerTally()
    tally.add(logits, targets)
    found = tally.summary()
    assert (found["answers"], found["tokens"]) == (2, 4)
    assert found["character_accuracy"] == 0.75
    assert found["exact"] == 0.5
    total = math.log(math.e + 2)
    assert abs(tally.cost - (4 * total - 3) / 4) < 1e-6


def test_nothing_asked_is_no_answer() -> None:
    tally = AnswerTally(stage={"length": 3})
    tally.add(torch.zeros(2, 1, 3), torch.full((2, 1), PADDING))
    assert tally.summary() == {
        "answers": 0,
        "tokens": 0,
        "nats_per_token": None,
        "character_accuracy": None,
        "exact": None,
        "length": 3,
    }
