"""llama.cpp's protocol, by the rules of llama.vim's parser."""

from __future__ import annotations

import json
import time

import pytest

from gatewise.serve.llama import indented

VIM = {
    "id_slot": 0,
    "input_suffix": "\n",
    "input_extra": [{"filename": "a.py", "text": "import os"}],
    "prompt": "keep ",
    "n_predict": 16,
    "n_indent": 0,
    "top_k": 40,
    "top_p": 0.9,
    "stop": ["\n"],
    "stream": False,
    "samplers": ["top_k", "top_p", "infill"],
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 1000,
    "response_fields": [
        "content",
        "timings/prompt_n",
        "timings/prompt_ms",
        "timings/predicted_per_second",
        "truncated",
        "tokens_cached",
        "no/such",
        "content/deeper",
    ],
}


def vim_reads(raw: str) -> str | None:
    """The content as llama.vim finds it: what does not begin so is dropped unread."""
    if not raw or '"content":"' not in raw:
        return None
    return json.loads(raw)["content"]


def test_what_llama_vim_sends_is_answered_as_it_reads(client) -> None:
    found = client("POST", "/infill", {"input_prefix": "a gate\n"} | VIM)
    assert vim_reads(found.text) is not None
    assert ": " not in found.text.replace(json.dumps(found.json()["content"]), "")
    assert set(found.json()) == set(VIM["response_fields"]) - {"no/such", "content/deeper"}
    assert found.json()["timings/prompt_n"] >= 1


def test_the_state_is_warmed_and_then_known(client) -> None:
    text = "a state to warm " * 20
    found = client.post("/infill", {"input_prefix": text, "n_predict": 0})
    assert found["content"] == ""
    assert found["tokens_predicted"] == 0
    assert found["tokens_evaluated"] == len(text)
    found = client.post("/infill", {"input_prefix": text, "prompt": "o", "n_predict": 4})
    assert found["tokens_cached"] >= len(text) - 1
    assert found["timings"]["prompt_n"] <= 2


def test_every_field_is_there(client) -> None:
    found = client.post("/completion", {"prompt": "gate", "n_predict": 6, "seed": 3})
    assert set(found) >= {
        *("content", "tokens", "stop", "stop_type", "stopping_word", "model", "prompt"),
        *("truncated", "tokens_cached", "tokens_evaluated", "timings"),
    }
    assert found["stop_type"] == "limit"
    assert found["prompt"] == "gate"
    assert set(found["timings"]) == {
        *("prompt_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second"),
        *("predicted_n", "predicted_ms", "predicted_per_token_ms", "predicted_per_second"),
    }
    stop = found["content"][2:4]
    cut = client.post("/completion", {"prompt": "gate", "n_predict": 6, "seed": 3, "stop": [stop]})
    assert cut["content"] == found["content"][:2]
    assert (cut["stop_type"], cut["stopping_word"]) == ("word", stop)


def test_a_stream_ends_with_the_whole(client) -> None:
    asked = {"prompt": "gate", "n_predict": 20, "seed": 3}
    whole = client.post("/completion", asked)
    found = client("POST", "/completion", asked | {"stream": True})
    *events, end = found.text.split("\n\n")
    assert end == ""
    parts = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(part["content"] for part in parts) == whole["content"]
    assert [part["stop"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1]["timings"]["predicted_n"] == 20


def test_time_limits_end_the_writing(client) -> None:
    began = time.perf_counter()
    found = client.post("/completion", {"n_predict": 4096, "t_max_predict_ms": 5, "min_p": 0})
    assert time.perf_counter() - began < 2
    assert 0 < found["tokens_predicted"] < 4096


def test_several_completions_and_tokens_as_a_prompt(client) -> None:
    found = client.post("/completion", {"prompt": "gate", "n_predict": 9, "n_cmpl": 3, "seed": 1})
    assert [one["index"] for one in found] == [0, 1, 2]
    ids = client.post("/tokenize", {"content": "gate"})["tokens"]
    again = client.post("/completion", {"prompt": ids, "n_predict": 9, "n_cmpl": 3, "seed": 1})
    assert [one["content"] for one in again] == [one["content"] for one in found]


def test_samplers_that_are_named_act_and_unknown_ones_are_passed_over(client) -> None:
    asked = {"prompt": "gate", "n_predict": 12, "temperature": 5, "top_k": 1}
    greedy = client.post("/completion", asked | {"samplers": ["top_k", "nonsense"]})["content"]
    assert greedy == client.post("/completion", asked | {"samplers": ["top_k"]})["content"]
    assert greedy == client.post("/completion", asked | {"samplers": "xk"})["content"]
    wild = {client.post("/completion", asked | {"samplers": []})["content"] for _ in range(3)}
    assert len(wild) > 1
    asked = {"prompt": "gate", "n_predict": 12, "temperature": 0}
    drawn = {client.post("/completion", asked | {"samplers": "kpm"})["content"] for _ in range(3)}
    assert len(drawn) > 1  # what is not named does not act


def test_null_is_what_is_left_out(client) -> None:
    asked = {"prompt": "gate", "n_predict": 12, "seed": 2}
    found = client.post("/completion", asked)["content"]
    nothing = dict.fromkeys(
        ("stream", "n_probs", "temperature", "stop", "input_extra", "cache_prompt", "n_indent")
    )
    assert client.post("/completion", asked | nothing)["content"] == found
    assert client.post("/tokenize", {"content": None, "with_pieces": None}) == {"tokens": []}


def test_seeds_that_mean_any(client) -> None:
    for seed in (-1, 2**32 - 1):
        asked = {"prompt": "gate", "n_predict": 20, "seed": seed}
        assert len({client.post("/completion", asked)["content"] for _ in range(3)}) > 1


def test_the_stop_that_was_met_is_named_and_tokens_are_given_where_they_are_wanted(client) -> None:
    asked = {"prompt": "gate", "n_predict": 30, "seed": 3, "return_tokens": True}
    whole = client.post("/completion", asked)
    assert client.post("/detokenize", {"tokens": whole["tokens"]})["content"] == whole["content"]
    met = whole["content"][3:6]
    for stream in (False, True):
        found = client(
            "POST", "/completion", asked | {"stop": ["\x01", met, "\x02"], "stream": stream}
        )
        last = json.loads(found.text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert (last["stop_type"], last["stopping_word"]) == ("word", met)
    none = client.post("/completion", asked | {"stop": ["\x01", "\x02"]})
    assert (none["stop_type"], none["stopping_word"]) == ("limit", "")


def test_tokens_there_and_back(client) -> None:
    tokens = client.post("/tokenize", {"content": "open a gate", "with_pieces": True})["tokens"]
    assert "".join(one["piece"] for one in tokens) == "open a gate"
    ids = [one["id"] for one in tokens]
    assert client.post("/detokenize", {"tokens": ids}) == {"content": "open a gate"}
    assert client.post("/detokenize", {"tokens": []}) == {"content": ""}
    assert client.refused("/detokenize", {"tokens": [10**6]})["error"]["code"] == 400


def test_health_and_props(client, make, trained) -> None:
    from gatewise.serve.runs import Runs, Source

    assert client("GET", "/health").json() == {"status": "ok"}
    props = client("GET", "/props").json()
    assert props["model_path"] == "mine"
    assert str(trained.parent) not in json.dumps(props)
    loading = make(of=Runs([Source("mine", trained)]))
    for found in (loading("GET", "/health"), loading("POST", "/infill", {})):
        assert found.status_code == 503
        assert found.headers["retry-after"] == "1"
        assert set(found.json()["error"]) == {"code", "message", "type"}


@pytest.mark.parametrize(
    "body",
    [
        {"n_predict": 5000},
        {"n_cmpl": 10**9},
        {"n_probs": 3},
        {"n_probs": 10**9},
        {"stop": ["x"] * 100},
        {"logit_bias": [[1, 1]] * 301},
        {"logit_bias": [[10**9, 1]]},
        {"logit_bias": [[1, "x"]]},
        {"logit_bias": [1]},
        {"repeat_penalty": 1.3},
        {"response_fields": ["x"] * 65},
        {"input_prefix": "a" * 300_000, "prompt": "a" * 300_000},
        {"temperature": 1e9},
        {"t_max_predict_ms": "soon"},
        {"stream": True, "n_cmpl": 2},
        {"model": "none"},
    ],
    ids=lambda body: "-".join(body),
)
def test_what_is_too_much_is_refused(client, body) -> None:
    found = client("POST", "/infill", body)
    assert found.status_code in (400, 404)
    assert set(found.json()["error"]) == {"code", "message", "type"}


def test_lines_that_are_indented_by_less_are_not_part_of_it() -> None:
    text = "a:\n    b\n\n    c\n  d\n    e"
    assert indented(text, 0) == (text, False)
    assert indented(text, 4) == ("a:\n    b\n\n    c", True)
    assert indented(text, 2) == (text, False)
    assert indented("a\n  ", 4, ended=False) == ("a", False)
    assert indented("a\n  ", 4) == ("a\n  ", False)
    for size in range(len(text) + 1):
        kept, cut = indented(text[:size], 4, ended=False)
        assert "a:\n    b\n\n    c".startswith(kept) or not cut
        assert ("a:\n    b\n\n    c\n").startswith(kept)
