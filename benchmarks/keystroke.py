"""A keystroke inside the completion core: one more character of a text that is known, three candidates of eight tokens.

    python benchmarks/keystroke.py [--run RUN] [--dtype int8] [--threads 1]

Without a run, two untrained models, which are as quick: 2 x 512 over characters, 2 x 650 over 10,000 words. First the
answer of the warm batcher is compared with that of one that knows nothing; then keys are pressed, one at a time.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import statistics
import sys
import time

import torch

import gatewise as gw
from gatewise.complete import Answer, Batcher, Request
from gatewise.generate import SamplingOptions
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.step.generation import StepLanguageModel
from gatewise.text.base import Tokenizer
from gatewise.text.tokenizers import build_tokenizer

OPTIONS = SamplingOptions(n=3, max_tokens=8, temperature=0.7, seed=1)
PREFIXES = (100, 10_000, 100_000)
KEYS = 300


def untrained(tokenizer: Tokenizer, units: int) -> LanguageModel:
    """Two layers, of weights that were only drawn."""
    config = LanguageModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=units, embedding_size=units, num_layers=2
    )
    torch.manual_seed(0)
    return LanguageModel(config).eval()


def answer(batcher: Batcher, text: str) -> tuple[float, Answer]:
    """Seconds, and what came."""
    begin = time.perf_counter()
    found = batcher.submit(Request(text, OPTIONS)).result(60)
    return time.perf_counter() - begin, found


def measure(name: str, model: LanguageModel, tokenizer: Tokenizer, text: str, dtype: str) -> None:
    """One line for each length."""
    batcher, fresh = (Batcher(StepLanguageModel(model, dtype), tokenizer) for _ in range(2))
    for size in PREFIXES:
        batcher.cache.clear()
        cold, _ = answer(batcher, text[:size])
        seconds = []
        for k in range(1, KEYS + 1):
            spent, found = answer(batcher, text[: size + k])
            seconds.append(spent)
        fresh.cache.clear()
        _, again = answer(fresh, text[: size + KEYS])
        if found.samples != again.samples:
            sys.exit(f"{name}, {size}: the warm answer is not that of a batcher that knows nothing")
        cuts = statistics.quantiles(seconds, n=100)
        kept = batcher.cache.nbytes / max(1, len(batcher.cache)) / 1024
        print(
            f"{name} {size:>7,} characters: p50 {1e3 * statistics.median(seconds):.2f} ms, p99 {1e3 * cuts[98]:.2f}, "
            f"cold {1e3 * cold:.0f} ms ({len(tokenizer.encode(text[:size])):,} tokens); {kept:,.0f} kB are kept of it"
        )
    batcher.close()
    fresh.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run")
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = "".join(inspect.getsource(module) for module in (argparse, statistics, inspect))
    if options.run:
        run = gw.load(options.run)
        assert isinstance(run.model, LanguageModel)
        measure(options.run, run.model, run.tokenizer, text, options.dtype)
        return
    characters = build_tokenizer("char", [text])
    measure("2 x 512, characters", untrained(characters, 512), characters, text, options.dtype)
    words = list(dict.fromkeys(text.split()))
    more = (f"w{k}" for k in itertools.count())
    vocabulary = words[:9_998] + [next(more) for _ in range(max(0, 9_998 - len(words)))]
    tokenizer = build_tokenizer("word", [" ".join(vocabulary) + "\n"])
    measure("2 x 650, words", untrained(tokenizer, 650), tokenizer, text, options.dtype)


if __name__ == "__main__":
    main()
