from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import OptionError
from gatewise.generate import SamplingOptions, draw, filtered
from gatewise.generate.choose import Ngrams, RepetitionPenalty, Uniforms, offsets

P = [0.4, 0.05, 0.3, 0.05, 0.2]
LOGITS = torch.tensor([P], dtype=torch.float64).log()


def kept(**options: float) -> dict[int, float]:
    """Probabilities of the tokens that the filters leave."""
    weights, ids = filtered(LOGITS, SamplingOptions(**options))  # type: ignore[arg-type]
    chances = (weights / weights.sum())[0].tolist()
    names = range(len(chances)) if ids is None else ids[0].tolist()
    return {i: pytest.approx(p) for i, p in zip(names, chances, strict=True) if p}


def scaled(*tokens: int, power: float = 1.0) -> dict[int, float]:
    total = sum(P[i] ** power for i in tokens)
    return {i: P[i] ** power / total for i in tokens}


def test_filters_leave_exactly_the_tokens_they_promise() -> None:
    assert kept() == scaled(0, 1, 2, 3, 4)
    assert kept(temperature=0.5) == scaled(0, 1, 2, 3, 4, power=2)
    assert kept(top_k=2) == scaled(0, 2)
    assert kept(top_k=99) == scaled(0, 1, 2, 3, 4)
    assert kept(top_p=0.69) == scaled(0, 2)
    assert kept(top_p=0.71) == scaled(0, 2, 4)
    assert kept(top_p=1e-9) == scaled(0)
    assert kept(min_p=0.4) == scaled(0, 2, 4)
    assert kept(min_p=1.0) == scaled(0)
    # each filter sees what the one before it left: 0.3 of 0.4 + 0.3 is more than 0.4
    assert kept(top_k=2, top_p=0.5) == scaled(0)
    assert kept(top_k=3, top_p=0.8, min_p=0.7) == scaled(0, 2)
    # temperature comes first: at 0.5 token 2 has 0.5625 of token 0
    assert kept(temperature=0.5, min_p=0.6) == scaled(0, power=2)


@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 3}, {"top_p": 0.85}, {"min_p": 0.15}, {"temperature": 0.7, "top_k": 4}],
)
def test_draws_follow_the_filtered_distribution(options: dict[str, float]) -> None:
    n = 4096
    wanted = kept(**options)
    # evenly spaced numbers must give each token its share to within two steps
    uniforms = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    scores = LOGITS.float().expand(n, -1)
    tokens = draw(scores, uniforms, SamplingOptions(**options))  # type: ignore[arg-type]
    counts = tokens.bincount(minlength=5).tolist()
    for token in range(5):
        share = counts[token] / n
        assert share == pytest.approx(wanted.get(token, pytest.approx(0)).expected, abs=2 / n)


@given(
    st.lists(st.sampled_from([-3.0, 0.0, 1.5, -torch.inf]), min_size=2, max_size=6),
    st.sampled_from([0.0, 0.5, 1 - 2.0**-53]),
    st.integers(0, 3),
    st.sampled_from([0.2, 0.9, 1.0]),
)
def test_a_token_without_probability_is_never_drawn(
    scores: list[float], uniform: float, top_k: int, top_p: float
) -> None:
    scores.append(0.25)
    options = SamplingOptions(top_k=top_k, top_p=top_p)
    row = torch.tensor([scores])
    token = int(draw(row, torch.tensor([uniform], dtype=torch.float64), options))
    assert scores[token] > -torch.inf


def test_greedy_takes_the_first_of_equals() -> None:
    scores = torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    assert draw(scores, torch.zeros(0), SamplingOptions(temperature=0)).tolist() == [1, 0]


def test_the_smallest_temperature_is_greedy() -> None:
    scores = torch.tensor([[0.0, 3.0, 2.0]])
    options = SamplingOptions(temperature=1e-300)
    assert draw(scores, torch.full((1,), 0.5, dtype=torch.float64), options).tolist() == [1]


def test_uniforms_of_a_sample_depend_on_seed_and_number_alone() -> None:
    def rows(seed: int, first: int, count: int) -> torch.Tensor:
        numbers = Uniforms(seed, first, count)
        return torch.stack([numbers.next() for _ in range(130)])

    three = rows(5, 0, 3)
    assert torch.equal(rows(5, 1, 1)[:, 0], three[:, 1])
    assert torch.equal(rows(5, 0, 2), three[:, :2])
    everything = torch.cat([three, rows(6, 0, 3), rows(-5, 0, 3)], dim=1)
    assert len(everything.flatten().unique()) == everything.numel()
    assert 0.45 < everything.mean() < 0.55


def test_repetition_penalty_makes_seen_tokens_less_probable_whatever_their_sign() -> None:
    penalty = RepetitionPenalty(2.0, 2, 4, [0, 1], torch.device("cpu"))
    scores = torch.tensor([[2.0, -2.0, 2.0, -2.0]] * 2)
    penalty.add(torch.tensor([2, 3]), None)
    assert penalty(scores, None).tolist() == [[1, -4, 1, -2], [1, -4, 2, -4]]
    penalty.add(torch.tensor([2]), torch.tensor([1]))
    assert penalty(scores[1:], torch.tensor([1])).tolist() == [[1, -4, 1, -4]]
    penalty.reorder(torch.tensor([1, 1, 0]))
    assert penalty(torch.ones(3, 4), None)[:, 3].tolist() == [0.5, 0.5, 1]


@given(st.lists(st.integers(0, 2), max_size=20), st.integers(0, 20), st.integers(1, 4))
def test_ngrams_ban_exactly_what_would_repeat(history: list[int], cut: int, size: int) -> None:
    prompt = Ngrams(size, history[:cut])
    ngrams = Ngrams(size, history[cut:], prompt)
    seen = {tuple(history[i : i + size]) for i in range(len(history) - size + 1)}
    tail = history[len(history) - size + 1 :] if size > 1 else []
    expected = {t for t in range(3) if (*tail, t) in seen}
    assert ngrams.banned() == expected


def test_offsets() -> None:
    cpu = torch.device("cpu")
    assert offsets(SamplingOptions(), 3, cpu) is None
    added = offsets(SamplingOptions(banned=[1], bias={0: 2.5, 1: 3.0}), 3, cpu)
    assert added is not None
    assert added.tolist() == [2.5, -torch.inf, 0]
    for options in (
        {"banned": [3]},
        {"bias": {7: 1.0}},
        {"stop_ids": [3]},
        {"banned": [0, 1, 2]},
    ):
        with pytest.raises(OptionError):
            offsets(SamplingOptions(**options), 3, cpu)  # type: ignore[arg-type]
