"""Generation on the step engine: the same texts as through the model, whatever is drawn ahead."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.errors import DivergedError, OptionError
from gatewise.generate import SamplingOptions, beam_search, generate
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.step.generation import StepLanguageModel

PROMPT = [3, 1, 4, 1, 5]


def _model(**options: Any) -> LanguageModel:
    config = LanguageModelConfig(
        **{"vocab_size": 37, "embedding_size": 12, "hidden_size": 20, "num_layers": 2, **options}
    )
    model = LanguageModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6)
    return model


MODEL = _model()
STEP = StepLanguageModel(MODEL)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.6, "top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.1, "bias": {2: 1.0}, "banned": (4, 5)},
        {"stop_ids": tuple(range(0, 37, 5))},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram": 2},
    ],
    ids=str,
)
def test_texts_are_those_of_the_model(options: dict[str, Any]) -> None:
    chosen = SamplingOptions(max_tokens=40, n=5, seed=9, **options)
    plain = generate(MODEL, PROMPT, chosen, engine="reference").run()
    stepped = generate(STEP, PROMPT, chosen).run()
    assert [s.ids for s in stepped] == [s.ids for s in plain]
    assert [s.finish_reason for s in stepped] == [s.finish_reason for s in plain]
    for a, b in zip(stepped, plain, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-3)


def test_beams_are_those_of_the_model() -> None:
    options = SamplingOptions(max_tokens=12)
    found = beam_search(STEP, PROMPT, options, width=4, n_best=3)
    expected = beam_search(MODEL, PROMPT, options, width=4, n_best=3, engine="reference")
    assert [h.ids for h in found] == [h.ids for h in expected]


def test_controls_act_in_drawn_tokens_at_their_times() -> None:
    control = gw.Control.off("o", layer=1, time=slice(8, 20))
    options = SamplingOptions(max_tokens=30, seed=1, n=2)
    free = generate(STEP, PROMPT, options).run()
    found = generate(STEP, PROMPT, options, control=control).run()
    plain = generate(MODEL, PROMPT, options, control=control, engine="reference").run()
    assert [s.ids for s in found] == [s.ids for s in plain]
    assert [s.ids for s in found] != [s.ids for s in free]
    with MODEL.stack.controlled(control):
        assert [s.ids for s in generate(STEP, PROMPT, options).run()] == [s.ids for s in plain]


def test_changed_weights_are_packed_again() -> None:
    model = _model()
    step = StepLanguageModel(model)
    options = SamplingOptions(max_tokens=20, seed=1)
    before = generate(step, PROMPT, options).run()
    with torch.no_grad():
        model.stack.weight_hh_l0.neg_()
    after = generate(step, PROMPT, options).run()
    plain = generate(model, PROMPT, options, engine="reference").run()
    assert [s.ids for s in after] == [s.ids for s in plain] != [s.ids for s in before]


def test_broken_weights_are_reported() -> None:
    model = _model()
    with torch.no_grad():
        model.stack.weight_hh_l1.fill_(float("nan"))
    with pytest.raises(DivergedError, match="NaN"):
        generate(StepLanguageModel(model), PROMPT, SamplingOptions(max_tokens=5)).run()


def test_another_engine_is_refused() -> None:
    with pytest.raises(OptionError, match="packed"):
        generate(STEP, PROMPT, SamplingOptions(max_tokens=3), engine="closed").run()


def test_the_cost_is_that_of_the_model() -> None:
    x, y = torch.randint(37, (11, 3)), torch.randint(37, (11, 3))
    first = STEP.loss(x[:6], y[:6])
    then = STEP.loss(x[6:], y[6:], first.state, start=6)
    with torch.no_grad():
        expected = MODEL.loss(x, y, engine="reference").nats
    found = (6 * first.nats + 5 * then.nats) / 11
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
