"""Tokens drawn inside the kernel, beside `gatewise.generate.choose` with the same uniform numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gatewise.errors import OptionError, ShapeError
from gatewise.generate.choose import filtered, uniform
from gatewise.generate.options import SamplingOptions
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.step.drawing import Drawing
from gatewise.step.model import StepModel

STEPS, BATCH, VOCAB = 40, 6, 333


def _packed() -> StepModel:
    config = LanguageModelConfig(vocab_size=VOCAB, embedding_size=16, hidden_size=16)
    model = LanguageModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8)
    return StepModel(model)


PACKED = _packed()

OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"temperature": 1e-3},
    {"top_k": 5},
    {"top_k": 1},
    {"top_k": VOCAB + 5},
    {"top_p": 0.9},
    {"top_p": 0.5, "temperature": 1.3},
    {"min_p": 0.05},
    {"top_k": 40, "top_p": 0.8, "min_p": 0.02},
]


def _scores(first: Tensor, tokens: Tensor) -> Tensor:
    """The scores from which each of the tokens was drawn."""
    return PACKED.start(tokens.shape[1]).push(torch.cat([first[None], tokens[:-1]]))


def _weights(scores: Tensor, options: dict[str, Any]) -> Tensor:
    """Probabilities in the order of the tokens, (B, V) float64."""
    weights, ids = filtered(scores, SamplingOptions(**options))
    if ids is None:
        return weights
    return torch.zeros(weights.shape[0], scores.shape[1], dtype=torch.float64).scatter_(
        1, ids, weights
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tokens_are_those_of_the_same_uniform_numbers(options: dict[str, Any]) -> None:
    first = torch.randint(VOCAB, (BATCH,))
    seeds = torch.arange(BATCH) * 7 - 3
    tokens, logprobs = PACKED.start(BATCH).run(first, STEPS, Drawing(**options), seeds)
    scores = _scores(first, tokens)
    for t in range(STEPS):
        reached = _weights(scores[t], options).cumsum(-1)
        aim = torch.tensor([uniform(int(s), t) for s in seeds]).double() * reached[:, -1]
        for row, token in enumerate(tokens[t].tolist()):
            before = 0.0 if token == 0 else float(reached[row, token - 1])
            assert before - 1e-6 <= float(aim[row]) <= float(reached[row, token]) + 1e-6
            assert float(reached[row, token]) > before
    expected = scores.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)


def test_greedy_takes_the_first_of_the_most_probable() -> None:
    first = torch.randint(VOCAB, (BATCH,))
    tokens, _ = PACKED.start(BATCH).run(first, STEPS, Drawing(0.0))
    assert torch.equal(tokens, _scores(first, tokens).argmax(-1))


@pytest.mark.parametrize("options", [{}, {"top_k": 9, "top_p": 0.7}, {"temperature": 0.0}], ids=str)
def test_a_sample_depends_on_its_seed_and_position_alone(options: dict[str, Any]) -> None:
    first, seeds = torch.randint(VOCAB, (BATCH,)), torch.randint(1 << 40, (BATCH,))
    drawing = Drawing(**options)
    whole, _ = PACKED.start(BATCH).run(first, STEPS, drawing, seeds)
    for row in range(BATCH):
        alone, _ = PACKED.start(1).run(first[row : row + 1], STEPS, drawing, seeds[row : row + 1])
        assert torch.equal(alone[:, 0], whole[:, row])
    session = PACKED.start(BATCH)
    start, _ = session.run(first, 13, drawing, seeds)
    rest, _ = session.run(start[-1], STEPS - 13, drawing, seeds)
    assert torch.equal(torch.cat([start, rest]), whole)


def test_a_prompt_is_read_before_the_draw() -> None:
    prompt, seeds = torch.randint(VOCAB, (9, 2)), torch.tensor([4, 5])
    together, _ = PACKED.start(2).run(prompt, 10, seeds=seeds)
    session = PACKED.start(2)
    session.feed(prompt[:-1])
    assert torch.equal(session.run(prompt[-1], 10, seeds=seeds)[0], together)


def test_banned_tokens_are_never_drawn() -> None:
    offsets = torch.full((VOCAB,), -torch.inf)
    offsets[[7, 300]] = 0
    for temperature in (0.0, 1.0):
        drawing = Drawing(temperature, offsets=offsets)
        tokens, logprobs = PACKED.start(3).run(torch.zeros(3, dtype=torch.int64), 50, drawing)
        assert set(tokens.unique().tolist()) <= {7, 300}
        assert bool((logprobs < 0).all())


def test_equally_probable_tokens_are_kept_in_their_order() -> None:
    config = LanguageModelConfig(vocab_size=50, embedding_size=4, hidden_size=4)
    model = LanguageModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    packed, first = StepModel(model), torch.zeros(64, dtype=torch.int64)
    for drawing in (Drawing(top_k=5), Drawing(top_p=0.1)):
        tokens, _ = packed.start(64).run(first, 20, drawing)
        assert tokens.unique().tolist() == [0, 1, 2, 3, 4]


def test_draws_have_the_probabilities_of_the_scores() -> None:
    seeds = torch.arange(4000)
    first = torch.full((4000,), 17)
    tokens, _ = PACKED.start(4000).run(first, 1, Drawing(0.8), seeds)
    weights = _weights(PACKED.start(1).push(torch.tensor([[17]]))[0], {"temperature": 0.8})[0]
    counts = tokens[0].bincount(minlength=VOCAB).double() / 4000
    spread = (weights * (1 - weights) / 4000).sqrt()
    assert float(((counts - weights).abs() / (spread + 1e-3)).max()) < 5


def test_broken_scores_are_reported_as_such() -> None:
    config = LanguageModelConfig(vocab_size=50, embedding_size=4, hidden_size=4)
    model = LanguageModel(config)
    with torch.no_grad():
        model.embedding.weight.fill_(float("nan"))
    tokens, logprobs = StepModel(model).start(2).run(torch.zeros(2, dtype=torch.int64), 3)
    assert bool(logprobs.isnan().all())
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < 50


@pytest.mark.parametrize(
    "options", [{"temperature": -1}, {"top_p": 0}, {"min_p": 2}, {"top_k": -1}]
)
def test_options_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        Drawing(**options)


@pytest.mark.parametrize(
    "extreme", [{"temperature": 1e-39}, {"temperature": 1e-30}, {"top_p": 1e-46}, {"top_p": 1e-31}]
)
def test_numbers_that_vanish_in_float32_take_the_most_probable(extreme: dict[str, float]) -> None:
    tokens = torch.arange(BATCH)
    drawn, _ = PACKED.start(BATCH).run(tokens, 5, Drawing(**extreme))
    expected, _ = PACKED.start(BATCH).run(tokens, 5, Drawing(temperature=0.0))
    assert torch.equal(drawn, expected)


def test_a_temperature_beyond_float32_draws_evenly() -> None:
    drawn, _ = PACKED.start(BATCH).run(torch.arange(BATCH), 50, Drawing(temperature=1e39))
    assert len(drawn.unique()) > 100


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"positions": torch.tensor([1])}, "positions"),
        ({"seeds": torch.tensor([1])}, "seeds"),
        ({"seeds": torch.rand(BATCH)}, "seeds"),
        ({"drawing": Drawing(offsets=torch.zeros(3))}, "offsets"),
    ],
)
def test_what_does_not_fit_the_columns_is_refused(call: dict[str, Any], said: str) -> None:
    with pytest.raises(ShapeError, match=f"expected {said}"):
        PACKED.start(BATCH).run(torch.arange(BATCH), 2, **call)


@pytest.mark.parametrize("steps", [0, 2.5, True])
def test_a_number_of_steps_that_is_none(steps: Any) -> None:
    with pytest.raises(OptionError, match="steps: expected a whole number"):
        PACKED.start(BATCH).run(torch.arange(BATCH), steps)


def test_tokens_of_another_shape() -> None:
    session = PACKED.start(BATCH)
    for call in (session.push, session.feed, session.step):
        with pytest.raises(ShapeError, match="expected tokens"):
            call(torch.tensor(3))
