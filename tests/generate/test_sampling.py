from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeModel, FakeTokenizer
from gatewise.errors import DivergedError, OptionError, ShapeError
from gatewise.generate import SamplingOptions, Stepper, generate, read

MODEL = FakeModel().eval()
LETTERS = FakeTokenizer(["a", "b", "c", "\n", "ab", "ba", "?"])


def run(prompt: list[int] | None = None, model: Any = MODEL, **options: Any) -> list[Any]:
    options = {"max_tokens": 20, "seed": 1} | options
    prompt = [1, 2, 3] if prompt is None else prompt
    return generate(model, prompt, SamplingOptions(**options), tokenizer=LETTERS).run()


def slowly(model: FakeModel, prompt: list[int], length: int) -> tuple[list[int], float]:
    """Greedy, the whole sequence anew for each token."""
    ids, total = list(prompt), 0.0
    for _ in range(length):
        scores = model(torch.tensor(ids).unsqueeze(1)).logits[-1, 0].double()
        token = int(scores.argmax())
        total += float(scores.log_softmax(-1)[token])
        ids.append(token)
    return ids[len(prompt) :], total


def test_greedy_equals_the_whole_sequence_read_again_for_each_token() -> None:
    (sample,) = run(temperature=0)
    ids, logprob = slowly(MODEL, [1, 2, 3], 20)
    assert list(sample.ids) == ids
    assert sample.logprob == pytest.approx(logprob, abs=1e-4)
    assert sample.finish_reason == "length"
    assert sample.text == "".join(LETTERS.tokens[i] for i in ids)


def test_equal_seeds_give_equal_samples_and_others_do_not() -> None:
    assert run(n=3) == run(n=3)
    assert run(seed=1) != run(seed=2)
    assert len({sample.ids for sample in run(n=8)}) == 8


def test_a_fresh_seed_is_told() -> None:
    options = SamplingOptions(max_tokens=20)
    first = generate(MODEL, [1], options)
    samples = first.run()
    again = SamplingOptions(max_tokens=20, seed=first.seed)
    assert generate(MODEL, [1], again).run() == samples


@pytest.mark.parametrize("n", [2, 5])
def test_sample_k_does_not_depend_on_n(n: int) -> None:
    everything = run(n=7, stop_ids=[6], top_p=0.95)
    assert run(n=n, stop_ids=[6], top_p=0.95) == everything[:n]
    assert len({len(sample.ids) for sample in everything}) > 2  # they end at different steps


def test_global_random_state_and_modes_are_left_alone() -> None:
    model = FakeModel().train()
    model.inner = torch.nn.Dropout().eval()
    before = torch.get_rng_state()
    steps = generate(model, [1], SamplingOptions(max_tokens=5))
    next(steps)
    assert model.training
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    steps.run()
    assert model.modes == [False] * 5
    assert model.training
    assert not model.inner.training
    assert torch.equal(torch.get_rng_state(), before)


def test_the_prompt_is_read_once_and_time_goes_on() -> None:
    model = FakeModel().eval()
    generate(model, [1, 2, 3], SamplingOptions(max_tokens=3, n=4), start=10).run()
    assert model.calls == [(3, 1, 10), (1, 4, 13), (1, 4, 14)]


def test_a_long_prompt_is_read_in_chunks() -> None:
    model = FakeModel().eval()
    ids = [i % 7 for i in range(1300)]
    context = read(Stepper(model), ids, start=5)
    assert model.calls == [(512, 1, 5), (512, 1, 517), (276, 1, 1029)]
    assert context.time == 1305
    assert context.ids.tolist() == ids
    whole = model(torch.tensor(ids).unsqueeze(1), logits="last").logits[0]
    assert torch.equal(context.logits, whole)


def test_a_context_can_be_read_on_and_used_twice() -> None:
    step = Stepper(MODEL)
    whole = read(step, [1, 2, 3, 4])
    parts = read(step, [3, 4], after=read(step, [1, 2]))
    assert torch.equal(whole.logits, parts.logits)
    assert (parts.time, parts.ids.tolist()) == (4, [1, 2, 3, 4])
    assert read(step, [], after=whole) is whole
    options = SamplingOptions(seed=3, n=2, max_tokens=9)
    assert generate(MODEL, whole, options).run() == generate(MODEL, [1, 2, 3, 4], options).run()
    assert generate(MODEL, whole, options).run() == generate(MODEL, parts, options).run()
    with pytest.raises(OptionError, match="leave out"):
        generate(MODEL, whole, options, start=3)
    with pytest.raises(OptionError, match="at least one token"):
        read(step, [])
    with pytest.raises(ShapeError):
        read(step, [[1, 2]])  # type: ignore[list-item]


def test_steps_tell_tokens_logprobs_texts_and_ends() -> None:
    options = SamplingOptions(n=4, seed=2, stop_ids=[6], max_tokens=12)
    generation = generate(MODEL, [1, 2, 3], options, tokenizer=LETTERS)
    steps = list(generation)
    ends = [False] * 4
    for step in steps:
        assert torch.equal(step.tokens == -1, torch.tensor(ends))
        assert bool((step.logprobs[step.tokens >= 0] < 0).all())
        ends = step.finished.tolist()
    assert all(ends)
    for k, sample in enumerate(generation.samples):
        tokens = [int(step.tokens[k]) for step in steps if step.tokens[k] >= 0]
        assert list(sample.ids) == tokens
        assert sample.text == "".join(step.texts[k] for step in steps)
        assert sample.logprob == pytest.approx(sum(float(s.logprobs[k]) for s in steps), abs=1e-4)
        assert (sample.finish_reason == "stop") == (sample.ids[-1] == 6)


def test_log_probabilities_are_the_models_own() -> None:
    sample = run(temperature=0.3, top_k=3, repetition_penalty=1.5, bias={2: 1.0}, banned=[0])[0]
    ids = [1, 2, 3, *sample.ids]
    scores = MODEL(torch.tensor(ids[:-1]).unsqueeze(1)).logits[2:, 0].double().log_softmax(-1)
    expected = scores.gather(1, torch.tensor(sample.ids).unsqueeze(1)).sum()
    assert sample.logprob == pytest.approx(float(expected), abs=1e-4)
    assert 0 not in sample.ids


def test_first_tokens_follow_the_models_distribution() -> None:
    n = 4000
    samples = generate(MODEL, [1, 2], SamplingOptions(n=n, max_tokens=1, seed=7)).run()
    chances = MODEL(torch.tensor([[1], [2]]), logits="last").logits[0, 0].softmax(-1).tolist()
    counts = Counter(sample.ids[0] for sample in samples)
    statistic = sum((counts[i] - n * p) ** 2 / (n * p) for i, p in enumerate(chances))
    assert statistic < 22.46  # chi-square, 6 degrees of freedom, 0.1 %


@given(
    st.text("abc\n?", max_size=6),
    st.lists(st.text("ab\n?", min_size=1, max_size=3), max_size=3),
    st.integers(0, 12),
    st.integers(0, 4),
)
def test_deltas_add_up_to_the_text_and_no_stop_string_is_in_it(
    prompt: str, stops: list[str], max_tokens: int, seed: int
) -> None:
    options = SamplingOptions(stop=stops, n=3, seed=seed, max_tokens=max_tokens)
    generation = generate(MODEL, LETTERS.encode(prompt), options, tokenizer=LETTERS)
    texts = [""] * 3
    for step in generation:
        texts = [text + more for text, more in zip(texts, step.texts, strict=True)]
        assert not any(stop in text for text in texts for stop in stops)
    for text, sample in zip(texts, generation.samples, strict=True):
        whole = LETTERS.decode(sample.ids)
        assert text == sample.text
        assert whole.startswith(text)
        assert (sample.finish_reason == "stop") == any(stop in whole for stop in stops)
        if sample.finish_reason == "length":
            assert (text, len(sample.ids)) == (whole, max_tokens)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_occurs_twice(size: int) -> None:
    prompt = [1, 2, 3, 1]
    for temperature in (0.0, 1.0):
        for sample in run(
            prompt, n=3, no_repeat_ngram=size, temperature=temperature, max_tokens=60
        ):
            ids = [*prompt, *sample.ids]
            new = [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]
            # the prompt itself may repeat; what is generated may not
            assert len(set(new)) == len(new) - (1 if size == 1 else 0)
            if size == 1:  # four tokens are left, then nothing
                assert (len(sample.ids), sample.finish_reason) == (4, "stop")


def test_repetition_penalty_of_a_huge_theta_repeats_nothing_positive() -> None:
    model = FakeModel(vocab_size=12, scale=0.0)
    with torch.no_grad():
        model.table.fill_(1.0)
    (sample,) = generate(
        model, [0], SamplingOptions(temperature=0, repetition_penalty=5.0, max_tokens=11)
    ).run()
    assert sorted(sample.ids) == list(range(1, 12))


def test_an_empty_prompt_begins_a_line() -> None:
    model = FakeModel().eval()
    options = SamplingOptions(seed=1, max_tokens=4)
    with_newline = generate(model, [], options, tokenizer=LETTERS).run()
    assert with_newline == generate(model, [3], options, tokenizer=LETTERS).run()
    words = FakeTokenizer(["a", "b", "<eos>", "<unk>"], unknown_id=3, eos_id=2)
    small = FakeModel(vocab_size=4).eval()
    assert (
        generate(small, [], options, tokenizer=words).run()
        == generate(small, [2], options, tokenizer=words).run()
    )
    neither = FakeTokenizer(["a", "b", "c", "d"])
    drawn = [
        generate(small, [], SamplingOptions(seed=s, banned=[1]), tokenizer=neither)._context.ids[0]
        for s in range(40)
    ]
    assert set(drawn) == {0, 2, 3}
    with pytest.raises(OptionError, match="empty prompt"):
        generate(torch.nn.Identity(), [], options)


def test_no_tokens_at_all() -> None:
    (sample,) = run(max_tokens=0)
    assert (sample.ids, sample.text, sample.logprob, sample.finish_reason) == ((), "", 0, "length")


def test_it_ends_before_a_token_of_which_the_model_is_not_sure() -> None:
    plain = SamplingOptions(max_tokens=30, seed=4, n=5)
    free = generate(MODEL, [1], plain, tokenizer=LETTERS)
    nats: list[list[float]] = [[] for _ in range(5)]
    for step in free:
        for k, (token, logprob) in enumerate(
            zip(step.tokens.tolist(), step.logprobs.tolist(), strict=True)
        ):
            nats[k] += [logprob] if token >= 0 else []
    sure = math.exp(sorted(one for each in nats for one in each)[len(nats[0]) // 2])
    options = dataclasses.replace(plain, confidence=sure)
    generation = generate(MODEL, [1], options, tokenizer=LETTERS)
    steps = [step.tokens.tolist() for step in generation]
    samples = generation.samples
    for k, sample in enumerate(samples):  # a step tells what was written
        assert sample.ids == tuple(step[k] for step in steps if step[k] >= 0)
    for sample, whole, each in zip(samples, free.samples, nats, strict=True):
        unsure = [k for k, one in enumerate(each) if k and one < math.log(sure)]
        size = min(unsure, default=len(each))
        assert sample.ids == whole.ids[:size]
        assert sample.finish_reason == ("stop" if unsure else whole.finish_reason)


def test_leaving_early() -> None:
    generation = generate(MODEL, [1], SamplingOptions(seed=1, n=2), tokenizer=LETTERS)
    for _ in range(3):
        next(generation)
    generation.close()
    assert list(generation) == []
    assert [len(sample.ids) for sample in generation.samples] == [3, 3]


def test_text_rules_need_a_tokenizer() -> None:
    for rule in ({"stop": "x"}, {"lines": 1}, {"words": 1}, {"closing": True}):
        with pytest.raises(OptionError, match="tokenizer"):
            generate(MODEL, [1], SamplingOptions(**rule))  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0, 1])
def test_broken_weights_are_an_error(temperature: float) -> None:
    model = FakeModel()
    with torch.no_grad():
        model.table.fill_(torch.nan)
    with pytest.raises(DivergedError, match="NaN"):
        generate(model, [1], SamplingOptions(temperature=temperature, top_k=3)).run()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_sample_ends_where_bias_and_bans_leave_no_token(temperature: float) -> None:
    """Token 4 alone can be drawn, and not twice: nothing arbitrary follows it."""
    options = SamplingOptions(
        max_tokens=5,
        temperature=temperature,
        n=2,
        seed=1,
        bias=dict.fromkeys((0, 1, 2), -torch.inf),
        banned=(3, 5, 6),
        no_repeat_ngram=1,
    )
    for sample in generate(FakeModel(), [0], options).run():
        assert sample.ids == (4,)
        assert sample.finish_reason == "stop"
