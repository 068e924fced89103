"""Sums of costs: averaged as the reference program does, mergeable, storable."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import DataError, OptionError
from gatewise.metrics import Tally, perplexity

chunks = st.lists(
    st.tuples(st.floats(0, 20), st.integers(0, 1000), st.integers(0, 5000)), max_size=20
)


def filled(parts: list[tuple[float, int, int]]) -> Tally:
    tally = Tally()
    for nats, tokens, characters in parts:
        tally.add(nats, tokens, characters)
    return tally


def test_average_of_the_reference_program() -> None:
    """word_language_model's evaluate: each chunk's mean times its length, over len(data) - 1."""
    rows, columns, bptt = 108, 10, 35
    total, tally = 0.0, Tally()
    for start in range(0, rows - 1, bptt):
        length = min(bptt, rows - 1 - start)
        loss = torch.rand(()) * 5
        total += length * loss.item()
        tally.add(loss, tokens=length * columns)
    assert tally.nats_per_token == pytest.approx(total / (rows - 1), rel=1e-14)
    assert tally.perplexity == pytest.approx(math.exp(total / (rows - 1)), rel=1e-13)


def test_units() -> None:
    tally = Tally()
    tally.add(math.log(8), tokens=2, characters=6)
    assert tally.bits_per_token == pytest.approx(3)
    assert tally.bits_per_character == pytest.approx(1)
    assert tally.nats_per_character == pytest.approx(math.log(2))
    assert tally.perplexity == pytest.approx(8)


@given(chunks, chunks)
def test_merging_is_adding(left: list[tuple[float, int, int]], right: list) -> None:
    merged, whole = filled(left).merge(filled(right)), filled(left + right)
    assert (merged.tokens, merged.characters) == (whole.tokens, whole.characters)
    assert merged.nats == pytest.approx(whole.nats, rel=1e-12)


@given(chunks)
def test_json_gives_the_same_sums(parts: list[tuple[float, int, int]]) -> None:
    tally = filled(parts)
    assert Tally.from_json(tally.to_json()) == tally


@pytest.mark.parametrize("nats", [math.inf, math.nan])
def test_what_is_no_number_stays_valid_json(nats: float) -> None:
    tally = Tally()
    tally.add(nats, 3)
    json.loads(tally.to_json(), parse_constant=pytest.fail)
    assert repr(Tally.from_json(tally.to_json()).nats) == repr(nats)
    assert tally.summary()["perplexity"] is None
    json.dumps(tally.summary(), allow_nan=False)


def test_overflow_is_infinite_and_nothing_is_nan() -> None:
    assert perplexity(1e4) == math.inf
    assert math.isnan(Tally().perplexity)
    assert math.isnan(Tally(1.0, 2).nats_per_character)
    tally = Tally()
    tally.add(math.nan, tokens=0)  # the mean over no targets
    assert tally.nats == 0


def test_wrong_use() -> None:
    with pytest.raises(OptionError, match="counts of 0 or more"):
        Tally().add(1.0, -1)
    with pytest.raises(DataError, match="expected its JSON"):
        Tally.from_json("[]")
