"""`gatewise serve` as a command: what it refuses, in one line each."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from gatewise.checkpoint import load_checkpoint
from gatewise.cli import main

EVERYWHERE = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]


@pytest.fixture
def refused(capsys, monkeypatch):
    """The one line with which a command line is refused."""
    monkeypatch.delenv("GATEWISE_TOKEN", raising=False)

    def call(*words: object, status: int = 2) -> str:
        assert main(["serve", *map(str, words)]) == status
        error = capsys.readouterr().err
        assert error.startswith("gatewise: ")
        assert error.count("\n") == 1
        return error

    return call


def test_what_cannot_be_served(refused, trained: Path, tmp_path: Path) -> None:
    assert "at least one run" in refused()
    assert "--port" in refused(trained, "--port", 70000)
    assert "two runs are called 'mine'" in refused(trained, trained)
    assert "--control" in refused(trained, "--control", tmp_path / "none.json")
    assert "no-run" in refused(tmp_path / "no-run", "--port", 0, status=1)
    assert "a folder of texts" in refused(trained, "--watch", tmp_path / "none")


def test_others_may_reach_it_with_a_token_alone(
    refused, trained: Path, tmp_path: Path, monkeypatch
) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.7", "example.com"):
        assert "give a token" in refused(trained, "--host", host)
    with monkeypatch.context() as lying:  # a name that looks like this machine's
        lying.setattr("gatewise.serve.server.socket.getaddrinfo", lambda *_, **__: EVERYWHERE)
        assert "give a token" in refused(trained, "--host", "my.localhost", "--port", 0)
    file = tmp_path / "token"
    for text in ("", "short", "a token with spaces in it", "tökentökentökentöken"):
        file.write_text(text, encoding="utf-8")
        line = refused(trained, "--host", "0.0.0.0", "--token-file", file)
        assert "expected a token" in line
        assert not text or text not in line
    assert "--token-file" in refused(trained, "--token-file", tmp_path / "none")
    monkeypatch.setenv("GATEWISE_TOKEN", "short")
    assert "at least 16" in refused(trained)


def test_a_port_that_is_taken(refused, trained: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = refused(trained, "--port", taken.getsockname()[1], status=1)
    assert "cannot listen at 127.0.0.1" in line


def test_it_says_what_it_serves_and_ends_when_what_is_on_its_way_is_answered(
    start, trained: Path, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    process = start(f"first={trained}", trained, "--token-file", token, "--host", "0.0.0.0")
    assert process.lines[-1].startswith("serving first, mine at http://0.0.0.0:")
    assert "token" in process.get("/v1/models")
    assert "ok" in process.get("/health")
    connection = process.connect()
    head = {"authorization": "Bearer 0123456789abcdef", "content-type": "application/json"}
    connection.request("GET", "/v1/models", headers=head)
    assert b"first" in connection.getresponse().read()
    asked = json.dumps({"prompt": "gate", "max_tokens": 4096, "n": 2})
    connection.request("POST", "/v1/completions", asked, head)
    watching = process.connect()
    began = time.monotonic()
    busy = b""
    while b'gatewise_queue{run="first"} 1.0' not in busy:
        assert time.monotonic() - began < 5
        watching.request("GET", "/metrics", headers=head)
        busy = watching.getresponse().read()
    process.popen.send_signal(signal.SIGINT)
    answer = connection.getresponse()
    assert answer.status == 200
    choices = json.loads(answer.read())["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["length"] * 2
    assert process.popen.wait(10) == 130
    assert process.popen.stderr.read() == "gatewise: stopped\n"
    connection.close()
    watching.close()


def test_it_learns_from_a_folder_and_takes_over(start, trained: Path, tmp_path: Path) -> None:
    run, notes = tmp_path / "run", tmp_path / "notes"
    shutil.copytree(trained, run)
    notes.mkdir()
    words = "rain memory open gate road stone river tree cloud field light paper hand letter"
    draw = random.Random(5)
    for number in range(4):
        paragraphs = (" ".join(draw.choices(words.split(), k=20)) for _ in range(20))
        (notes / f"{number}.txt").write_text("\n\n".join(paragraphs))
    past = time.time() - 60
    for file in notes.iterdir():
        os.utime(file, (past, past))
    server = start(run, "--watch", notes)
    end = time.monotonic() + 60
    while not server.metric("gatewise_takeovers"):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert server.post("/v1/completions", {"prompt": "rain", "max_tokens": 4})[0] == 200
    server.popen.terminate()
    assert server.popen.wait(10) == 143
    assert "learning: learning: 4 files, 0 skipped; " in server.popen.stderr.read()
    assert not (run / "learning").exists()
    assert load_checkpoint(run).config["learnt"]["decision"] == "better"
