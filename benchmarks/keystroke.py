"""A keystroke: one more character of a text that is known, three candidates of eight tokens.

    python benchmarks/keystroke.py [--http] [--run RUN] [--dtype int8] [--threads 1] [--keys 300]

Inside the completion core; with --http through `gatewise serve` in a process of its own, over one connection that is
kept. Without a run, two untrained models, which are as quick: 2 x 512 over characters, 2 x 650 over 10,000 words. Keys
are pressed one at a time; then the last answer is compared with that of a batcher that knows nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import itertools
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import gatewise as gw
from gatewise.complete import Batcher, Request
from gatewise.generate import SamplingOptions
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.step.generation import StepLanguageModel
from gatewise.text.base import Tokenizer
from gatewise.text.tokenizers import build_tokenizer

OPTIONS = SamplingOptions(n=3, max_tokens=8, temperature=0.7, seed=1)
PREFIXES = (100, 10_000, 100_000)
TEXT = "".join(inspect.getsource(module) for module in (argparse, statistics, inspect))


def untrained(tokenizer: Tokenizer, units: int) -> LanguageModel:
    """Two layers, of weights that were only drawn."""
    config = LanguageModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=units, embedding_size=units, num_layers=2
    )
    torch.manual_seed(0)
    return LanguageModel(config).eval()


class Core:
    """A batcher in this process."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, dtype: str) -> None:
        self.batcher = Batcher(StepLanguageModel(model, dtype), tokenizer)

    def __call__(self, text: str) -> list[str]:
        answer = self.batcher.submit(Request(text, OPTIONS)).result(60)
        return [one.text for one in answer.completions]

    @property
    def kept(self) -> str:
        """What is kept of a text."""
        nbytes = self.batcher.cache.nbytes / max(1, len(self.batcher.cache))
        return f"; {nbytes / 1024:,.0f} kB are kept of it"


class Served:
    """A server in another process, over one connection."""

    kept = ""

    def __init__(self, port: int) -> None:
        self._place = socket.create_connection(("127.0.0.1", port))
        self._place.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self, text: str) -> list[str]:
        from gatewise.bench.over_http import answered, message

        self._place.sendall(message(Request(text, OPTIONS)))
        received = b""
        while (found := answered(received)) is None:
            part = self._place.recv(1 << 16)
            if not part:
                sys.exit("the server closed the connection")
            received += part
        status, body = found
        document: Any = json.loads(body)
        if status != 200:
            sys.exit(f"the server answered {status}: {document.get('message')}")
        return [one["text"] for one in document["completions"]]


@contextlib.contextmanager
def served(model: LanguageModel, tokenizer: Tokenizer, dtype: str) -> Iterator[Served]:
    """`gatewise serve` for a model, as long as the context lasts."""
    from gatewise.bench.over_http import save
    from gatewise.bench.server_process import SERVE, ServerProcess

    with tempfile.TemporaryDirectory() as folder:
        run = save(model, tokenizer, Path(folder) / "run")
        with ServerProcess(*SERVE, run, "--dtype", dtype) as process:
            yield Served(process.port)


def measure(name: str, asked: Core | Served, fresh: Core, text: str, keys: int) -> None:
    """One line for each length."""
    asked(text[-300:])  # what is made at the first request of all is made
    for place, size in enumerate(PREFIXES):
        own = text[place + 1 :]  # begins as no other: nothing is known of it
        begin = time.perf_counter()
        asked(own[:size])
        cold = time.perf_counter() - begin
        seconds = []
        for k in range(1, keys + 1):
            begin = time.perf_counter()
            found = asked(own[: size + k])
            seconds.append(time.perf_counter() - begin)
        fresh.batcher.cache.clear()
        if found != fresh(own[: size + keys]):
            sys.exit(f"{name}, {size}: the warm answer is not that of a batcher that knows nothing")
        cuts = statistics.quantiles(seconds, n=100)
        tokens = len(fresh.batcher.tokenizer.encode(own[:size]))
        print(
            f"{name} {size:>7,} characters: p50 {1e3 * statistics.median(seconds):.2f} ms, p99 {1e3 * cuts[98]:.2f}, "
            f"cold {1e3 * cold:.0f} ms ({tokens:,} tokens){asked.kept}",
            flush=True,
        )


def one_model(
    name: str,
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    options: argparse.Namespace,
) -> None:
    """The model inside the core, or served."""
    fresh = Core(model, tokenizer, options.dtype)
    with (
        served(model, tokenizer, options.dtype)
        if options.http
        else contextlib.nullcontext(Core(model, tokenizer, options.dtype))
    ) as asked:
        measure(name, asked, fresh, TEXT, options.keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--run")
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keys", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.run:
        run = gw.load(options.run)
        assert isinstance(run.model, LanguageModel)
        one_model(options.run, run.model, run.tokenizer, TEXT, options)
        return
    characters = build_tokenizer("char", [TEXT])
    one_model("2 x 512, characters", untrained(characters, 512), characters, TEXT, options)
    words = list(dict.fromkeys(TEXT.split()))
    more = (f"w{k}" for k in itertools.count())
    vocabulary = words[:9_998] + [next(more) for _ in range(max(0, 9_998 - len(words)))]
    tokenizer = build_tokenizer("word", [" ".join(vocabulary) + "\n"])
    one_model("2 x 650, words", untrained(tokenizer, 650), tokenizer, TEXT, options)


if __name__ == "__main__":
    main()
