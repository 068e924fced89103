from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeModel, FakeTokenizer
from gatewise.errors import DivergedError, OptionError
from gatewise.generate import SamplingOptions, beam_search, generate

PROMPT = [1, 0]
LETTERS = FakeTokenizer(["a", "b", "c", "\n"])


def enumerate_all(
    model: FakeModel, length: int, stop_ids: tuple[int, ...], alpha: float
) -> list[tuple[float, tuple[int, ...]]]:
    """Every sequence that ends in a stop id, or has `length` tokens and none, best first."""
    found = []
    for size in range(1, length + 1):
        for ids in itertools.product(range(model.vocab_size), repeat=size):
            ends = ids[-1] in stop_ids
            if set(ids[:-1]) & set(stop_ids) or not (ends or size == length):
                continue
            tokens = torch.tensor([*PROMPT, *ids])
            scores = model(tokens[:-1].unsqueeze(1)).logits[len(PROMPT) - 1 :, 0].double()
            logprob = scores.log_softmax(-1).gather(1, tokens[len(PROMPT) :, None]).sum()
            found.append((float(logprob) / ((5 + size) / 6) ** alpha, ids))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("stop_ids", [(), (2,), (0, 1)])
def test_a_wide_beam_finds_what_enumeration_finds(alpha: float, stop_ids: tuple[int, ...]) -> None:
    for seed in range(2):
        model = FakeModel(vocab_size=3, seed=seed).eval()
        found = beam_search(
            model,
            PROMPT,
            SamplingOptions(max_tokens=4, stop_ids=stop_ids),
            width=200,
            n_best=5,
            length_penalty=alpha,
        )
        expected = enumerate_all(model, 4, stop_ids, alpha)
        assert [h.ids for h in found] == [ids for _, ids in expected[:5]]
        assert [h.score for h in found] == pytest.approx([score for score, _ in expected[:5]])
        for hypothesis in found:
            ended = hypothesis.ids[-1] in stop_ids
            assert hypothesis.finish_reason == ("stop" if ended else "length")
            lp = ((5 + len(hypothesis.ids)) / 6) ** alpha
            assert hypothesis.score == pytest.approx(hypothesis.logprob / lp)


@given(
    st.integers(0, 1000),
    st.integers(0, 15),
    st.sampled_from(
        [
            {},
            {"stop_ids": [1]},
            {"stop": "ba"},
            {"lines": 2},
            {"no_repeat_ngram": 2},
            {"repetition_penalty": 1.7, "bias": {0: 0.5}, "banned": [2]},
        ]
    ),
    st.booleans(),
)
def test_width_one_is_greedy_exactly(
    seed: int, max_tokens: int, options: dict[str, Any], rounded: bool
) -> None:
    model = FakeModel(vocab_size=4, seed=seed).eval()
    if rounded:  # many equal scores
        with torch.no_grad():
            model.table.copy_(model.table.round())
    settings = SamplingOptions(temperature=0, max_tokens=max_tokens, **options)
    (greedy,) = generate(model, PROMPT, settings, tokenizer=LETTERS).run()
    (beam,) = beam_search(model, PROMPT, settings, width=1, tokenizer=LETTERS)
    assert (beam.ids, beam.text, beam.finish_reason) == (
        greedy.ids,
        greedy.text,
        greedy.finish_reason,
    )
    assert beam.logprob == pytest.approx(greedy.logprob, abs=1e-4)


@given(st.integers(0, 200), st.integers(1, 6), st.integers(0, 8))
def test_it_always_returns_something(seed: int, width: int, max_tokens: int) -> None:
    model = FakeModel(vocab_size=4, seed=seed).eval()
    options = SamplingOptions(max_tokens=max_tokens, stop=["zzz"], no_repeat_ngram=1)
    found = beam_search(model, PROMPT, options, width=width, n_best=width, tokenizer=LETTERS)
    assert 1 <= len(found) <= width
    assert len({h.ids for h in found}) == len(found)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_a_wider_beam_finds_more_probable_text() -> None:
    better = 0
    for seed in range(12):
        model = FakeModel(vocab_size=6, seed=seed).eval()
        options = SamplingOptions(max_tokens=8)
        narrow, wide = (
            beam_search(model, PROMPT, options, width=w, length_penalty=0)[0].logprob
            for w in (1, 16)
        )
        assert wide >= narrow - 1e-6
        better += wide > narrow + 1e-6
    assert better >= 3


def test_texts_end_where_the_options_say() -> None:
    model = FakeModel(vocab_size=4, seed=3, scale=0.5).eval()
    for options in ({"lines": 1}, {"stop": ["ab"]}, {"max_characters": 3}):
        found = beam_search(
            model,
            PROMPT,
            SamplingOptions(max_tokens=6, **options),  # type: ignore[arg-type]
            width=6,
            n_best=6,
            tokenizer=LETTERS,
        )
        for hypothesis in found:
            whole = LETTERS.decode(hypothesis.ids)
            assert whole.startswith(hypothesis.text)
            assert "ab" not in hypothesis.text or "stop" not in options
            assert "\n" not in hypothesis.text or "lines" not in options
            assert len(hypothesis.text) <= 3 or "max_characters" not in options


def test_wrong_options() -> None:
    model = FakeModel(vocab_size=4)
    for wrong in ({"width": 0}, {"n_best": 6}, {"n_best": 0}, {"length_penalty": -1}):
        with pytest.raises(OptionError, match="expected"):
            beam_search(model, PROMPT, **wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="length_penalty"):
        beam_search(model, PROMPT, length_penalty=math.nan)
    with pytest.raises(OptionError, match="tokenizer"):
        beam_search(model, PROMPT, SamplingOptions(lines=1))


def test_broken_weights_are_an_error() -> None:
    model = FakeModel()
    with torch.no_grad():
        model.table.fill_(torch.nan)
    with pytest.raises(DivergedError):
        beam_search(model, PROMPT)
