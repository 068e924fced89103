"""Sessions of typing: many writers interleaved, edits of any kind; what is answered is what a fresh batcher answers."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from gatewise.complete import Batcher, Request
from gatewise.generate import SamplingOptions
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.step.generation import StepLanguageModel
from gatewise.text.tokenizers import build_tokenizer

TEXT = "def read_all(self, names):\n    return [open(name) for name in names]\n\nthe cat sat. " * 40
SOON = 60.0


def made(kind: str) -> Batcher:
    tokenizer = build_tokenizer(kind, [TEXT], vocab_size=300 if kind == "bpe" else None)
    torch.manual_seed(2)
    config = LanguageModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, embedding_size=8, num_layers=2
    )
    return Batcher(StepLanguageModel(LanguageModel(config).eval(), "int8"), tokenizer)


def session(seed: int, keys: int) -> list[Request]:
    """What one writer's editor asks: a document that is typed, corrected and jumped about in."""
    draw = random.Random(seed)
    text = TEXT[: draw.randrange(300)]
    found = []
    for key in range(keys):
        move = draw.random()
        if move < 0.7:
            text += (
                draw.choice("abcdefgh ()\n.")
                if draw.random() < 0.5
                else draw.choice(["the ", "é", "\U0001f600"])
            )
        elif move < 0.85:
            text = text[: -draw.randrange(1, 6)]
        elif move < 0.95 and text:
            place = draw.randrange(len(text))
            text = text[:place] + draw.choice(["x", "", "\r\n"]) + text[place + draw.randrange(3) :]
        else:
            text = TEXT[: draw.randrange(len(TEXT) // 2)]
        options = SamplingOptions(
            n=draw.choice([1, 3]), max_tokens=draw.choice([1, 4, 8]), seed=seed * 1000 + key
        )
        found.append(Request(text, options))
    return found


def played(kind: str, writers: int, keys: int) -> None:
    """All sessions at once, key by key, beside each request asked of a batcher that knows nothing."""
    sessions = [session(seed, keys) for seed in range(writers)]
    batcher = made(kind)
    answers: list[list[Any]] = [[] for _ in sessions]
    for key in range(keys):
        for begin in range(0, writers, 200):  # as many as may wait at once
            part = range(begin, min(begin + 200, writers))
            tickets = [batcher.submit(sessions[k][key]) for k in part]
            for k, ticket in zip(part, tickets, strict=True):
                answers[k].append(ticket.result(SOON))
    assert batcher.counts.known > 0
    alone = made(kind)
    for requests, found in zip(sessions, answers, strict=True):
        for request, answer in zip(requests, found, strict=True):
            alone.cache.clear()
            expected = alone.submit(request).result(SOON)
            assert answer.samples == expected.samples
    for each in (batcher, alone):
        assert each.load == 0
        each.close()


@pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])
def test_interleaved_writers_get_what_each_would_get_alone(kind: str) -> None:
    played(kind, 12, 8)


@pytest.mark.slow
def test_a_thousand_writers() -> None:
    played("char", 1000, 6)
