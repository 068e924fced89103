"""The rnn-writer contract, a clause a test; the client is not changed for us."""

from __future__ import annotations

import json
import socket
from urllib.parse import quote

import pytest

from gatewise.serve.writer import shaped

COMPONENT = "-_.!~*'()"
"""What encodeURIComponent leaves as it is."""


def ask(client, text: str, **query: object):
    parts = "".join(f"&{name}={value}" for name, value in query.items())
    return client("GET", f"/generate?start_text={quote(text, safe=COMPONENT)}{parts}")


def test_any_json_at_the_root_is_success(client) -> None:
    found = client("GET", "/")
    assert found.json() == {"message": "Have fun!"}
    assert found.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "text", ["gate", "100% sure", "a+b&c=d", "é ☃ 𝄞\n\t", "", "%41", "keep 'a' (state)!"]
)
def test_the_echo_is_the_raw_query_byte_for_byte(client, text: str) -> None:
    found = ask(client, text, n=2).json()
    assert found["start_text"] == quote(text, safe=COMPONENT)
    assert set(found) == {"start_text", "completions", "time"}


def test_escapes_that_no_encoder_writes_are_echoed_as_they_came(client) -> None:
    raw = "%61%e9%zz%"
    body = client("GET", f"/generate?n=1&start_text={raw}").json()
    assert body["start_text"] == raw


def test_the_time_is_a_text_in_seconds_with_two_decimals(client) -> None:
    time = ask(client, "gate").json()["time"]
    assert isinstance(time, str)
    assert len(time.partition(".")[2]) == 2
    assert float(time) < 10


@pytest.mark.parametrize(("n", "most"), [(1, 1), (5, 5), (10, 10), (99, 10), (10**30, 10)])
def test_there_are_at_most_n_completions_and_at_most_ten(client, n: int, most: int) -> None:
    found = ask(client, "gate", n=n).json()["completions"]
    assert 1 <= len(found) <= most
    assert len(set(found)) == len(found)


def test_n_may_have_escapes_and_spaces(client) -> None:
    for n in ("%33", "%203+", "3 "):
        found = client("GET", f"/generate?start_text=gate&n={n}")
        assert 1 <= len(found.json()["completions"]) <= 3
    for n in ("-1", "2.0", "%C2%B2", "x"):
        assert client("GET", f"/generate?start_text=gate&n={n}").status_code == 400


def test_n_and_the_text_may_be_missing(client) -> None:
    assert len(client("GET", "/generate?start_text=gate").json()["completions"]) == 1
    found = client("GET", "/generate").json()
    assert found["start_text"] == ""
    assert len(found["completions"]) == 1


def test_completions_are_never_empty_and_end_without_space(client) -> None:
    for text in ("", "gate ", "gate open.", "\n", "☃" * 48):
        for one in ask(client, text, n=5).json()["completions"]:
            assert one.strip()
            assert one == one.rstrip()
            assert len(one) <= 140


def test_the_same_prompt_is_answered_differently(client) -> None:
    answers = {tuple(ask(client, "gate ", n=3).json()["completions"]) for _ in range(4)}
    assert len(answers) > 1


def test_errors_are_a_message(client, make) -> None:
    found = ask(client, "gate", n="many")
    assert found.status_code == 400
    assert set(found.json()) == {"message"}
    assert client("GET", "/generate?model=none").json()["message"]
    for path in ("/nothing", "/generate/", "/v1"):
        assert client("GET", path).json() == {
            "message": "no such endpoint: /openapi.json lists them"
        }
    assert client("POST", "/generate", {}).json() == {"message": "expected GET, found POST"}
    assert make(host="evil.example")("GET", "/").json() == {"message": "Forbidden"}


def test_other_runs_answer_by_their_name(client) -> None:
    assert client("GET", "/generate?model=other&n=2").json()["completions"]


def test_case_is_kept_and_white_space_is_not_folded(client) -> None:
    assert ask(client, "GATE  \n").json()["start_text"] == "GATE%20%20%0A"


def test_a_temperature_is_drawn_for_each_completion_and_the_work_is_bounded(
    client, runs, monkeypatch
) -> None:
    asked = []
    loaded = runs.find("mine").loaded
    submit = loaded.submit

    def noted(request, *calls):
        asked.append(request)
        return submit(request, *calls)

    monkeypatch.setattr(loaded, "submit", noted)
    monkeypatch.setattr("gatewise.serve.writer.shaped", lambda text: (text, False))
    assert ask(client, "gate", n=10).is_success
    assert len(asked) == 3  # none is good enough, but there are no more rounds
    drawn = {temperature for request in asked for temperature in request.temperatures}
    assert len(drawn) > 1
    assert drawn <= {0.5, 0.6, 0.7, 0.8, 0.9}
    for request in asked:
        assert len(request.temperatures) == 10
        assert 0 < request.seconds <= 2
        assert request.options.max_characters == 140


def test_how_a_completion_is_cut() -> None:
    assert shaped(" one two. Three four five. six") == (" one two. Three four five.", True)
    assert shaped("one two three four! five.") == ("one two three four!", True)
    assert shaped("one two ") == ("one two", False)
    long = " ".join(str(k) for k in range(30))
    assert shaped(long) == (" ".join(str(k) for k in range(20)), True)
    assert shaped(" \n") == ("", False)


def test_spaces_and_letters_may_be_sent_as_they_are(process) -> None:
    line = "GET /generate?start_text=open the é&n=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as place:
        data = line.encode()
        place.sendall(data[:30])
        place.sendall(data[30:])
        answer = b""
        while b'"time"' not in answer:
            answer += place.recv(65536)
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert found["start_text"] == "open%20the%20%C3%A9"
    assert len(found["completions"]) == 1
