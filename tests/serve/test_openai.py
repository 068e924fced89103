"""OpenAI's protocol, by its official client and by hand."""

from __future__ import annotations

import json

import openai
import pytest

PATH = "/v1/completions"


@pytest.fixture
def official(process) -> openai.OpenAI:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{process.port}/v1", api_key="none", max_retries=0
    ) as found:
        yield found


def test_the_official_client_completes_and_streams_the_same(official) -> None:
    asked = {"model": "mine", "prompt": "gate ", "n": 2, "seed": 5, "max_tokens": 12}
    whole = official.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.object == "text_completion"
    assert whole.usage.completion_tokens == 24
    assert whole.usage.total_tokens == 24 + whole.usage.prompt_tokens
    texts, reasons, usage = ["", ""], [None, None], None
    stream = official.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
        usage = chunk.usage
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == ["length", "length"]
    assert usage.completion_tokens == 24


def test_the_official_client_lists_models_and_knows_errors(official) -> None:
    assert [model.id for model in official.models.list()] == ["mine"]
    assert official.models.retrieve("mine").owned_by == "gatewise"
    with pytest.raises(openai.NotFoundError) as missing:
        official.completions.create(model="gpt", prompt="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as large:
        official.completions.create(model="mine", prompt="a", n=10**9)
    assert "n:" in str(large.value)


def test_prompts_of_every_kind(client) -> None:
    ids = client.post("/tokenize", {"content": "gate"})["tokens"]
    one = client.post(PATH, {"prompt": "gate", "seed": 1})["choices"][0]["text"]
    many = ids * 2000  # enough to be decoded aside
    assert client.post(PATH, {"prompt": many, "max_tokens": 0})["usage"]["prompt_tokens"] == 8000
    for prompt in (["gate"], ids, [ids], ["gate", "gate"], [ids, ids]):
        found = client.post(PATH, {"prompt": prompt, "seed": 1})["choices"]
        assert [choice["text"] for choice in found] == [one] * len(found)
    assert client.post(PATH, {})["choices"][0]["text"]
    assert client.post(PATH, {"prompt": None})["choices"][0]["text"]
    below = client.post(PATH, {"prompt": "gate", "seed": -7})["choices"]
    assert below == client.post(PATH, {"prompt": "gate", "seed": -7.0})["choices"]


def test_echo_stop_best_of_and_suffix(client) -> None:
    asked = {"prompt": "gate", "seed": 1, "max_tokens": 30}
    plain = client.post(PATH, asked)["choices"][0]["text"]
    echo = client.post(PATH, asked | {"echo": True})["choices"][0]["text"]
    assert echo == "gate" + plain
    stop = plain[6:9]
    cut = client.post(PATH, asked | {"stop": stop})["choices"][0]
    assert cut["text"] == plain[: plain.index(stop)]
    assert cut["finish_reason"] == "stop"
    best = client.post(PATH, asked | {"best_of": 8, "n": 2})
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert best["usage"]["completion_tokens"] == 8 * 30
    assert len(client.post(PATH, asked | {"suffix": " keep", "n": 4})["choices"]) == 4
    assert (
        client.post(PATH, asked | {"max_tokens": 0, "echo": True})["choices"][0]["text"] == "gate"
    )


def test_temperature_zero_is_the_same_each_time(client) -> None:
    asked = {"prompt": "gate", "temperature": 0}
    first = client.post(PATH, asked)["choices"][0]["text"]
    assert first == client.post(PATH, asked)["choices"][0]["text"]
    assert first == client.post(PATH, {"prompt": "gate", "top_p": 0})["choices"][0]["text"]


def test_a_bias_makes_a_token_certain(client) -> None:
    (token,) = client.post("/tokenize", {"content": "e"})["tokens"]
    found = client.post(PATH, {"logit_bias": {str(token): 100}, "max_tokens": 5})
    assert found["choices"][0]["text"] == "eeeee"


def test_a_stream_ends_as_the_protocol_says(client) -> None:
    found = client("POST", PATH, {"prompt": "gate", "stream": True, "echo": True})
    assert found.headers["content-type"].startswith("text/event-stream")
    *events, last, end = found.text.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert chunks[0]["choices"][0]["text"] == "gate"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert all("usage" not in chunk for chunk in chunks)


def test_log_probabilities_of_tokens(official) -> None:
    asked = {
        "model": "mine",
        "prompt": "gate ",
        "seed": 5,
        "max_tokens": 6,
        "n": 2,
        "logprobs": 3,
    }
    whole = official.completions.create(**asked, echo=True)
    for choice in whole.choices:
        found = choice.logprobs
        assert "".join(found.tokens) == choice.text
        assert found.text_offset == list(range(len(choice.text)))  # a token a character
        assert (found.token_logprobs[0], found.top_logprobs[0]) == (None, None)
        for token, own, top in zip(
            found.tokens[1:], found.token_logprobs[1:], found.top_logprobs[1:], strict=True
        ):
            assert top[token] == own
            assert len(top) in (3, 4)
            nats = list(top.values())
            assert nats == sorted(nats, reverse=True)
    alone = official.completions.create(**asked)
    assert alone.choices[0].logprobs.token_logprobs == pytest.approx(
        whole.choices[0].logprobs.token_logprobs[5:], abs=1e-5
    )
    tokens: list[list[str]] = [[], []]
    for chunk in official.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            tokens[choice.index] += [] if choice.logprobs is None else choice.logprobs.tokens
    assert tokens == [choice.logprobs.tokens for choice in alone.choices]
    scored = official.completions.create(
        model="mine", prompt="gate ", max_tokens=0, echo=True, logprobs=0
    ).choices[0]
    assert scored.text == "gate "
    assert scored.logprobs.token_logprobs[1:] == pytest.approx(
        whole.choices[0].logprobs.token_logprobs[1:5], abs=1e-5
    )


@pytest.mark.parametrize(
    "body",
    [
        {"n": 33},
        {"n": 0},
        {"best_of": 10**12},
        {"best_of": 1, "n": 2},
        {"best_of": 2, "stream": True},
        {"max_tokens": 10**9},
        {"max_tokens": -1},
        {"logprobs": 6},
        {"logprobs": 10**9},
        {"logprobs": 1, "n": 32, "max_tokens": 4096},
        {"logprobs": 1, "echo": True, "prompt": "a" * 20_000},
        {"stop": ["x"] * 17},
        {"stop": "x" * 10_000},
        {"stop": ""},
        {"logit_bias": {str(k): 1 for k in range(301)}},
        {"logit_bias": {"99999999": 1}},
        {"logit_bias": {"-1": 1}},
        {"logit_bias": {"1": 1e300}},
        {"frequency_penalty": 1},
        {"presence_penalty": -1},
        {"prompt": ["a"] * 17},
        {"prompt": ["a"] * 16, "n": 5},
        {"prompt": [10**9]},
        {"prompt": []},
        {"prompt": {"a": 1}},
        {"prompt": "a" * 500_001},
        {"temperature": -1},
        {"temperature": 2.5},
        {"top_p": 1.1},
        {"seed": 10**40},
        {"stream_options": {"include_usage": True}},
        {"user": "u" * 300},
        {"n": True},
        {"n": "2"},
        {"n": 1.5},
        {"stream": "yes"},
        {"stream": 1},
        {"temperature": "0.5"},
        {"temperature": False},
        {"prompt": [True]},
        {"prompt": [1.5]},
        {"prompt": [None]},
        {"prompt": 5},
        {"stop": [None]},
        {"logit_bias": {"1": True}},
        {"stream_options": {"include_usage": "no"}},
    ],
    ids=lambda body: "-".join(body),
)
def test_what_is_too_much_is_refused_before_anything_is_made(client, runs, body) -> None:
    before = runs.find("mine").counts()["requests"]
    error = client.refused(PATH, body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert "xxxx" not in error["message"]
    assert len(error["message"]) < 300
    assert runs.find("mine").counts()["requests"] == before
