"""Who may ask and how much: each attack of a hostile page, client or text."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging

import pytest
from pydantic import ValidationError

from gatewise.serve import api, llama, openai, security
from gatewise.serve.app import Settings
from gatewise.serve.bounds import MOST_BYTES
from gatewise.serve.security import Guard, Rules, is_loopback

TOKEN = "0123456789abcdef-secret"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST.:80", 200),
        ("127.0.0.1:1", 200),
        ("127.9.9.9", 200),
        ("[::1]:8080", 200),
        ("my.localhost", 200),
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403),
        ("192.168.1.7:8080", 403),
        ("0.0.0.0", 403),
        ("", 403),
        ("localhost:x", 403),
        ("localhost evil", 403),
        ("[::1", 403),
    ],
)
def test_only_names_of_this_machine_are_answered(client, host: str, status: int) -> None:
    assert client("GET", "/health", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1", 200),
        ("file://", 200),
        ("vscode-file://vscode-app", 200),
        ("vscode-webview://1a2b", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        ("", 403),
    ],
)
def test_only_pages_of_this_machine_and_editors_may_ask(client, origin: str, status: int) -> None:
    found = client("POST", "/infill", {"n_predict": 0}, headers={"origin": origin})
    assert found.status_code == status
    assert found.headers.get("access-control-allow-origin") == (origin if status == 200 else None)


def test_pages_without_an_origin_are_known_by_where_they_are_from(make) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("none", 200)):
        assert make(**{"sec-fetch-site": site})("GET", "/generate").status_code == status
    assert make(**{"sec-fetch-site": "cross-site", "origin": "file://"})("GET", "/").is_success


def test_a_preflight_is_answered_to_friends_alone(make) -> None:
    found = make(origin="file://")("OPTIONS", "/infill")
    assert found.status_code == 204
    assert found.headers["access-control-allow-origin"] == "file://"
    assert make(origin="https://evil.example")("OPTIONS", "/infill").status_code == 403
    more = Settings(rules=Rules(origins=("https://my.editor", "null")))
    assert make(more, origin="https://my.editor")("GET", "/").status_code == 200
    assert make(more, origin="null")("GET", "/").status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "a/json"]
)
@pytest.mark.parametrize("path", ["/v1/completions", "/infill", "/api/complete", "/nothing"])
def test_what_a_form_can_send_is_refused(client, kind: str, path: str) -> None:
    found = client("POST", path, content=b"{}", headers={"content-type": kind})
    assert found.status_code == 415


def test_a_token_is_asked_for_everywhere_and_never_shown(make, runs, caplog) -> None:
    settings = Settings(rules=Rules(token=TOKEN, addresses=True), log=True)
    with caplog.at_level(logging.DEBUG):
        stranger = make(settings)
        for wrong in ("", f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}"):
            head = {"authorization": wrong} if wrong else {}
            for path in ("/", "/metrics", "/openapi.json", "/nothing", "/v1/models"):
                found = stranger("GET", path, headers=head)
                assert found.status_code == 401
                assert found.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in found.text
        friend = make(settings, authorization=f"Bearer {TOKEN}", host="192.168.1.7")
        assert friend("GET", "/v1/models").status_code == 200
        assert make(settings)("GET", "/health").status_code == 200
        evil = make(settings, authorization=f"Bearer {TOKEN}", host="evil.example")
        assert evil("GET", "/v1/models").status_code == 403
    assert TOKEN not in caplog.text


def test_headers_that_stand_twice_are_refused(client) -> None:
    async def call() -> list[dict]:
        sent: list[dict] = []
        head = [(b"host", b"localhost"), (b"host", b"evil.example")]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": head}

        async def send(message: dict) -> None:
            sent.append(message)

        await client.app(scope | {"query_string": b""}, None, send)
        return sent

    assert asyncio.run(call())[0]["status"] == 400


def test_bodies_are_capped_while_they_come(client) -> None:
    large = b'{"prompt":"' + b"a" * MOST_BYTES + b'"}'
    head = {"content-type": "application/json"}

    async def endless():
        while True:
            yield b" " * 65536

    for content in (large, endless()):
        found = client("POST", "/v1/completions", content=content, headers=head)
        assert found.status_code == 413
        assert found.headers["connection"] == "close"
    found = client("POST", "/infill", content=b"{}", headers=head | {"content-length": "1" * 12})
    assert found.status_code == 413


def test_a_packed_body_is_not_unpacked(client) -> None:
    head = {"content-type": "application/json", "content-encoding": "gzip"}
    body = gzip.compress(b" " * 10**7)
    assert client("POST", "/infill", content=body, headers=head).status_code == 415


def test_slow_bodies_are_given_up(runs) -> None:
    async def app(scope, receive, send) -> None:
        raise AssertionError("reached")

    async def drip():
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    head = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"content-length", b"9999"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/infill", "headers": head}
    guard = Guard(app, Rules(), body_seconds=0.1)
    asyncio.run(guard(scope, drip, send))
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == 408


def test_all_bodies_together_are_bounded(client, monkeypatch) -> None:
    monkeypatch.setattr(security, "HELD_BYTES", 10)
    found = client("POST", "/infill", {"input_prefix": "a" * 100})
    assert found.status_code == 503
    assert found.headers["retry-after"] == "1"
    monkeypatch.undo()
    assert client("POST", "/infill", {"input_prefix": "a" * 100, "n_predict": 0}).is_success


@pytest.mark.parametrize(
    "content",
    [
        b'{"prompt":NaN}',
        b'{"temperature":Infinity}',
        b'{"temperature":1e999}',
        b'{"prompt":"a","prompt":"b"}',
        b"[" * 100_000,
        b'{"prompt":' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b'{"n":' + b"9" * 5000 + b"}",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"nonsense",
        b"null",
        b"[]",
        b'"text"',
        b"{",
    ],
    ids=lambda content: repr(content[:12]),
)
@pytest.mark.parametrize("path", ["/v1/completions", "/completion", "/api/complete"])
def test_json_that_is_none_or_too_much_is_refused(client, path: str, content: bytes) -> None:
    head = {"content-type": "application/json"}
    found = client("POST", path, content=content, headers=head)
    assert found.status_code == 400, found.text
    assert len(found.text) < 400


def test_what_was_wrong_with_json_is_said(client) -> None:
    head = {"content-type": "application/json"}
    long = b'{"prompt":"' + b"a" * 100_000 + b'","n":1e999}'
    for content in (b'{"n":1,"n":1}', b'{"n":NaN}', b"{", long):
        found = client("POST", "/v1/completions", content=content, headers=head)
        assert found.status_code == 400
        assert "no key twice, no NaN" in found.json()["error"]["message"]
    found = client("POST", "/v1/completions", content=b"[]", headers=head)
    assert found.json()["error"]["message"].startswith("the body: ")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"prefix": "gate", "max_token": 3}, "max_token: no such field: /openapi.json lists them"),
        ({"prefix": "gate", "n": "many"}, "n: expected a valid integer"),
    ],
)
def test_a_misspelt_field_of_our_own_interface_is_refused(client, body, line: str) -> None:
    found = client("POST", "/api/complete", body)
    assert (found.status_code, found.json()) == (400, {"message": line})


@pytest.mark.parametrize("head", ["host", "origin"])
@pytest.mark.parametrize("path", ["/v1/models", "/health", "/api/runs"])
def test_who_may_not_ask_is_told_which_option_lets_him(client, path: str, head: str) -> None:
    found = client("GET", path, headers={head: "https://evil.example"})
    assert found.status_code == 403
    assert f"--allow-{head}" in found.text
    assert "evil" not in found.text


def test_of_many_errors_only_the_first_are_made() -> None:
    for model, body in (
        (openai.CompletionBody, {"prompt": [-1] * 1000}),
        (openai.CompletionBody, {"prompt": [[]] * 1000, "stop": [0] * 1000}),
        (llama.InfillBody, {"input_extra": [0] * 1000, "response_fields": [0] * 1000}),
        (llama.DetokenizeBody, {"tokens": ["a"] * 1000}),
        (api.GatesBody, {"text": "a", "names": [0] * 1000, "units": [-1] * 1000}),
    ):
        with pytest.raises(ValidationError) as found:
            model.model_validate(body)
        assert found.value.error_count() < 10


def test_a_control_of_many_rules_is_not_built(client, monkeypatch) -> None:
    monkeypatch.setattr(api.Control, "from_json", None)
    for control in ([{"op": "off", "name": "o"}] * 33, {str(k): 1 for k in range(33)}):
        client.refused("/api/complete", {"prefix": "a", "control": control})


def test_halves_of_characters_are_no_error(client) -> None:
    head = {"content-type": "application/json"}
    body = (
        rb'{"prompt":"gate \ud83d","input_prefix":"\udc00x","prefix":"\ud83d","content":"\ud800"}'
    )
    for path in ("/v1/completions", "/completion", "/infill", "/tokenize"):
        assert client("POST", path, content=body, headers=head).is_success
    own = rb'{"prefix":"\ud83d","suffix":"\udc00x"}'
    assert client("POST", "/api/complete", content=own, headers=head).is_success
    keys = rb'{"\ud800":"\ud83d","n":[]}'
    assert client("POST", "/v1/completions", content=keys, headers=head).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/v1/models/..%2f..%2fetc",
        "/v1/models/%2e%2e",
        "/static/x",
        "/docs",
        "/%0aINFO%20forged",
    ],
)
def test_no_path_reaches_a_file(client, path: str) -> None:
    found = client("GET", path)
    assert found.status_code == 404
    assert "passwd" not in found.text
    for body in ({"model": "../../etc/passwd"}, {"model": "/etc/passwd"}):
        assert client("POST", "/v1/completions", body).status_code == 404


def test_nothing_is_a_page(client) -> None:
    text = "<script>alert(1)</script>"
    for found in (
        client("POST", "/v1/completions", {"prompt": text, "echo": True}),
        client("GET", f"/generate?start_text={text}"),
        client("GET", f"/{text}"),
    ):
        assert found.headers["content-type"] == "application/json"
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["content-security-policy"] == "default-src 'none'"


def test_the_log_holds_texts_only_where_that_was_asked_for(make, caplog) -> None:
    secret = "open sesame\nINFO forged"
    for settings in (Settings(log=True), Settings(log_text=True)):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "gatewise.serve"):
            client = make(settings)
            client.post("/v1/completions", {"prompt": secret})
            client("POST", "/infill", {"prompt": secret, "stream": True, "n_predict": 4})
            client("GET", "/generate?start_text=open%20sesame")
            client("GET", "/open%20sesame%0aforged")
        lines = [record.getMessage() for record in caplog.records]
        assert ("sesame" in str(lines)) == settings.log_text
        assert not any("\n" in line for line in lines)
        assert any(line.startswith("/v1/completions 200") for line in lines)
        assert any(line.startswith('/infill "') for line in lines) == settings.log_text
        assert any(line.startswith("other 404") for line in lines)


def test_errors_of_our_own_hold_no_text(client, runs, monkeypatch, caplog) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("open sesame in /secret/place")

    monkeypatch.setattr(runs.find("mine").loaded, "submit", fail)
    with caplog.at_level(logging.DEBUG, "gatewise.serve"):
        for path in ("/v1/completions", "/infill", "/api/complete"):
            found = client("POST", path, {"prefix": "a"})
            assert found.status_code == 500
            assert "sesame" not in found.text
            assert "secret" not in found.text
    assert "RuntimeError at " in caplog.text
    assert "sesame" not in caplog.text


def test_names_of_the_loopback() -> None:
    for name in ("localhost", "127.0.0.1", "::1", "[::1]", "a.localhost"):
        assert is_loopback(name), name
    for name in ("0.0.0.0", "::", "192.168.0.1", "example.com", "127.0.0.1.nip.example", ""):
        assert not is_loopback(name), name
