"""Attacks on `gatewise serve` in a process of its own: a line each, and exit status 1 where a bound is broken.

    python benchmarks/attacks.py [--only fuzz,slow,disconnects,gigabyte,overload,idle] [--cases 20000] [--run RUN]

Without a run a small untrained model is served, which is as quick to attack; memory for each idle user is that of
2 x 512 units. Linux only: memory and open files are read from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gatewise.bench.over_http import save
from gatewise.bench.server_process import SERVE, ServerProcess
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.text.tokenizers import build_tokenizer

SMALL = {"prompt": "gate ", "max_tokens": 8, "n": 3}
COMPLETIONS = "/v1/completions"
MIB = 1 << 20


@dataclass(frozen=True)
class Bound:
    """A figure that must not be above another, or none; of `at_least` not below."""

    what: str
    value: float
    most: float | None = None
    least: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is within."""
        return not (
            (self.most is not None and self.value > self.most)
            or (self.least is not None and self.value < self.least)
        )

    def __str__(self) -> str:
        limit = "" if self.most is None else f" (at most {self.most:,.4g})"
        limit += "" if self.least is None else f" (at least {self.least:,.4g})"
        value = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:,.3g}"
        return f"{self.what} {value}{limit}{'' if self.holds else ' BROKEN'}"


@dataclass(frozen=True)
class Finding:
    """What an attack did."""

    name: str
    bounds: tuple[Bound, ...]

    @property
    def holds(self) -> bool:
        """Whether all of it is within bounds."""
        return all(bound.holds for bound in self.bounds)

    def __str__(self) -> str:
        return f"{self.name}: {'; '.join(map(str, self.bounds))}"


# --- means -------------------------------------------------------------------------------------


def latencies(server: ServerProcess, count: int) -> list[float]:
    """Seconds of requests of one client, in order of length."""
    connection = server.connect()
    found = []
    for _ in range(count):
        began = time.perf_counter()
        head = {"content-type": "application/json"}
        connection.request("POST", COMPLETIONS, json.dumps(SMALL), head)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        found.append(time.perf_counter() - began)
        time.sleep(0.002)
    connection.close()
    return sorted(found)


def p95(server: ServerProcess) -> float:
    """Seconds."""
    return latencies(server, 200)[190]


def place(server: ServerProcess, text: bytes) -> socket.socket:
    """A connection on which something was sent."""
    found = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    found.sendall(text)
    return found


def head(path: str, length: int) -> bytes:
    """Of a request with a body of so many bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def post(path: str, body: Any) -> bytes:
    """A request."""
    text = json.dumps(body).encode()
    return head(path, len(text)) + text


def until_idle(server: ServerProcess) -> float:
    """Seconds until nothing is on its way; what the looking takes is among them."""
    began = time.perf_counter()
    while server.metric("gatewise_queue"):
        assert time.perf_counter() - began < 60
    return time.perf_counter() - began


# --- attacks -----------------------------------------------------------------------------------


def fuzzed(server: ServerProcess, cases: int = 20_000) -> Finding:
    """Requests as the OpenAPI allows and forbids them."""
    from serve_fuzz import fuzz

    fuzz(server, 40, 1)
    before, kept = server.memory, server.metric("gatewise_cache_bytes")
    statuses, seed = Counter[int](), 1
    while sum(statuses.values()) < cases:
        seed += 1
        statuses += fuzz(server, min(300, -(-cases // 20)), seed)
    grown, kept = server.memory - before, server.metric("gatewise_cache_bytes") - kept
    told = ", ".join(f"{count:,} of {status}" for status, count in sorted(statuses.items()))
    count = sum(statuses.values())
    return Finding(
        f"{count:,} fuzzed requests ({told})",
        (
            Bound("5xx", sum(n for status, n in statuses.items() if status >= 500), 0),
            Bound("MiB before", before / MIB),
            Bound("MiB more, without the cache of states", max(0, grown - kept) / MIB, 64),
            Bound("MiB more of the cache", kept / MIB, 256),
        ),
    )


def slow(server: ServerProcess, senders: int = 400, readers: int = 100) -> Finding:
    """Clients who send a byte now and then, or do not read; and what others feel of them."""
    stream = post(COMPLETIONS, SMALL | {"stream": True, "n": 16, "max_tokens": 4096})
    fresh = server.memory
    first = [place(server, stream) for _ in range(8)]
    latencies(server, 200)  # what is made once for each number of samples in a step is made
    for one in first:
        one.close()
    until_idle(server)
    before, memory = statistics.median(p95(server) for _ in range(3)), server.memory
    found = [place(server, b"POST /infill HT") for _ in range(senders // 2)]
    begun = head("/infill", 900_000) + b'{"input_prefix": "'
    found += [place(server, begun) for _ in range(senders - senders // 2)]
    found += [place(server, stream) for _ in range(readers)]
    ending = threading.Event()

    def drip() -> None:
        while not ending.wait(0.5):
            for one in found[:senders]:
                with contextlib.suppress(OSError):
                    one.send(b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    during = statistics.median(p95(server) for _ in range(3))
    grown = server.memory - memory
    ending.set()
    thread.join()
    for one in found:
        one.close()
    until_idle(server)
    left = server.memory - memory
    return Finding(
        f"{senders} slow senders, {readers} who do not read",
        (
            Bound("others' p95, ms, before", 1e3 * before),
            Bound("during", 1e3 * during, 1e3 * max(2 * before, before + 0.005)),
            Bound("MiB that eight readers brought once", (memory - fresh) / MIB),
            Bound("MiB more", grown / MIB, 100),
            Bound("when they have left", left / MIB, 100),
        ),
    )


def disconnects(server: ServerProcess, count: int = 1000, before: int = 200) -> Finding:
    """Clients who leave before their answer, streaming or not."""
    asked = [
        post(COMPLETIONS, SMALL | {"stream": stream, "n": 4, "max_tokens": 4096})
        for stream in (False, True)
    ]

    def leave(number: int) -> None:
        one = place(server, asked[number % 2])
        if number % 4 == 3:
            one.recv(100)
        one.close()

    for number in range(before):
        leave(number)
    until_idle(server)
    memory, files, stopped = server.memory, server.files, []
    for number in range(count):
        leave(number)
        if number % 20 == 19 or number == count - 1:
            stopped.append(until_idle(server))
    time.sleep(0.1)
    return Finding(
        f"{count:,} disconnects",
        (
            Bound("ms until all work has stopped, median", 1e3 * statistics.median(stopped), 50),
            Bound("longest", 1e3 * max(stopped), 500),
            Bound("MiB more", (server.memory - memory) / MIB, 20),
            Bound("open files more", server.files - files, 4),
        ),
    )


def gigabyte(server: ServerProcess) -> Finding:
    """A body without end."""
    server.get("/health")
    memory, sent = server.memory, 0
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    one = place(
        server,
        b"POST /infill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
    )
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while sent < 1 << 30:
            one.sendall(chunk)
            sent += 65536
    one.close()
    return Finding(
        "a body of 1 GiB",
        (
            Bound("MiB until it is cut off", sent / MIB, 64),
            Bound("MiB more", (server.memory - memory) / MIB, 8),
        ),
    )


def overload(server: ServerProcess, count: int = 600) -> Finding:
    """More requests at once than may wait: each is answered or told to come again; and what follows."""
    latencies(server, 50)
    usual = p95(server)
    long = SMALL | {"n": 8, "max_tokens": 200, "prompt": "a" * 2000}
    found = [place(server, post(COMPLETIONS, long)) for _ in range(count)]
    statuses, without = Counter[int](), 0
    for one in found:
        answer = b""
        while b"\r\n\r\n" not in answer and (part := one.recv(65536)):
            answer += part
        statuses[int(answer[9:12] or b"0")] += 1
        if answer[9:12] in (b"429", b"503"):
            without += b"\r\nretry-after: " not in answer.partition(b"\r\n\r\n")[0].lower()
    for one in found:
        one.close()
    answered = _until_usual(server, usual)
    found = [place(server, post(COMPLETIONS, long | {"max_tokens": 4096})) for _ in range(count)]
    time.sleep(1)
    for one in found:
        one.close()
    left = _until_usual(server, usual)
    refused = statuses[429] + statuses[503]
    return Finding(
        f"{count} requests at once",
        (
            Bound("answered", statuses[200], least=1),
            Bound("told to come again", refused, least=count / 4),
            Bound("of those without Retry-After", without, 0),
            Bound("lost", count - statuses[200] - refused, 0),
            Bound("s until others are answered as before, after the last", answered, 2),
            Bound("and after all of them have left", left, 2),
        ),
    )


def _until_usual(server: ServerProcess, usual: float) -> float:
    """Seconds until a small request is answered within twice its usual p95."""
    began = time.perf_counter()
    while True:
        asked = time.perf_counter()
        status, _ = server.post(COMPLETIONS, SMALL)
        ended = time.perf_counter()
        if status == 200 and ended - asked <= 2 * usual + 0.005:
            return ended - began
        assert ended - began < 60


def idle(server: ServerProcess, users: int = 500, characters: int = 1000) -> Finding:
    """Users who have a document open, have typed some keys, and keep their connections."""
    text = "".join(inspect.getsource(module) for module in (argparse, inspect, statistics))
    latencies(server, 20)
    memory, cache = server.memory, server.metric("gatewise_cache_bytes")
    connections = []
    for user in range(users):
        begin = 37 * user
        connections.append(server.connect())
        for typed in range(5):
            body = {"prefix": text[begin : begin + characters + typed], "max_tokens": 8}
            kind = {"content-type": "application/json"}
            connections[-1].request("POST", "/api/complete", json.dumps(body), kind)
            answer = connections[-1].getresponse()
            answer.read()
            assert answer.status == 200
    grown, kept = server.memory - memory, server.metric("gatewise_cache_bytes") - cache
    for connection in connections:
        connection.close()
    return Finding(
        f"{users} idle users, {characters:,} characters each",
        (
            Bound("kB of memory each", grown / users / 1024, 1000),
            Bound("of it text and states, kB", kept / users / 1024),
        ),
    )


ATTACKS: dict[str, Callable[[ServerProcess], Finding]] = {
    "slow": slow,
    "disconnects": disconnects,
    "gigabyte": gigabyte,
    "overload": overload,
}


# --- the command -------------------------------------------------------------------------------


@contextlib.contextmanager
def untrained(units: int) -> Iterator[Path]:
    """A run of two layers over characters, of weights that were only drawn."""
    tokenizer = build_tokenizer("char", [inspect.getsource(argparse)])
    config = LanguageModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=units, embedding_size=64, num_layers=2
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        yield save(LanguageModel(config), tokenizer, Path(folder) / "run")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--only", default="slow,disconnects,gigabyte,overload,idle,fuzz")
    parser.add_argument("--cases", type=int, default=20_000)
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := set(chosen) - {*ATTACKS, "idle", "fuzz"}:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}")
    attacks = [(32, ATTACKS[name]) for name in chosen if name in ATTACKS]
    if "idle" in chosen:
        attacks += [
            (512, lambda server: idle(server, 500, 1000)),
            (512, lambda server: idle(server, 100, 10_000)),
        ]
    if "fuzz" in chosen:
        attacks.append((32, lambda server: fuzzed(server, options.cases)))
    good = True
    for units, attack in attacks:
        with (
            contextlib.nullcontext(options.run) if options.run else untrained(units) as run,
            ServerProcess(*SERVE, run) as server,
        ):
            found = attack(server)
            good &= found.holds and server.popen.poll() is None
            print(found, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
