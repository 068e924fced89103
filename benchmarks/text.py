"""Speed of reading, tokenising and batchifying, in MB/s of UTF-8, for each tokenizer.

    python benchmarks/text.py [FILE] [--megabytes 8] [--repeat 3] [--json]

Before anything is timed, each tokenizer must give the text back (words: the same words), in
chunks as in one piece, and the windows of the stream must give the ids back. The text is
generated (words with Zipf frequencies, a few of them not ASCII) unless a file is given. Figures are medians
of wall time on one thread of Python; the BPE library runs on all cores unless
TOKENIZERS_PARALLELISM=false.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tokenizers
import torch

from gatewise.text.batches import Stream
from gatewise.text.corpora import build_corpus
from gatewise.text.reading import find_documents
from gatewise.text.tokenizers import KINDS, Tokenizer, build_tokenizer

_CHUNK = 2**20
_BATCH, _BPTT = 64, 64


def generated(megabytes: float, seed: int = 0) -> str:
    """Lines of words whose frequencies follow Zipf's law."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwygpbvkxqjzéüß漢"))
    weights = 1 / np.arange(1, len(letters) + 1)
    lengths = rng.integers(1, 10, 20_000)
    words = ["".join(rng.choice(letters, n, p=weights / weights.sum())) for n in lengths]
    ranks = 1 / np.arange(1, len(words) + 1)
    drawn = rng.choice(len(words), int(megabytes * 1e6 / 6.5), p=ranks / ranks.sum())
    lines = [" ".join(words[i] for i in drawn[k : k + 12]) for k in range(0, len(drawn), 12)]
    return "\n".join(lines) + "\n"


def chunks(text: str) -> list[str]:
    return [text[i : i + _CHUNK] for i in range(0, len(text), _CHUNK)]


def encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The ids of `text`, chunk by chunk, as a corpus makes them."""
    return np.concatenate([tokenizer.encode(p) for p in tokenizer.pieces(chunks(text))])


def check(tokenizer: Tokenizer, text: str, ids: np.ndarray) -> None:
    """Ends the program unless ids, text and stream agree."""
    back = tokenizer.decode(ids)
    same = back.split() == text.split() if tokenizer.kind == "word" else back == text
    whole = np.array_equal(tokenizer.encode(text), ids)
    stream = Stream(ids, _BATCH)
    rows = torch.cat([x for _, x, _ in stream.windows(_BPTT)])
    columns = np.array_equal(rows.T.numpy(), stream._columns[:, :-1])
    if not (same and whole and columns):
        sys.exit(f"{tokenizer.kind}: no parity (text {same}, chunks {whole}, stream {columns})")


def seconds(run: Callable[[], object], repeat: int) -> float:
    """Median wall time of `run`."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(kind: str, text: str, path: Path, repeat: int) -> dict[str, Any]:
    """MB/s of each stage for one tokenizer."""
    size = len(text.encode()) / 1e6
    vocabulary = seconds(lambda: build_tokenizer(kind, chunks(text)), 1)
    tokenizer = build_tokenizer(kind, chunks(text))
    ids = encode(tokenizer, text)
    check(tokenizer, text, ids)
    narrow = ids.astype("u1" if tokenizer.vocab_size <= 256 else "<u2")

    def windows() -> None:
        for _ in Stream(narrow, _BATCH).windows(_BPTT):
            pass

    def corpus() -> None:
        build_corpus(path, tokenizer=tokenizer, fractions=(0.9, 0.1), cache=False)

    batch = seconds(windows, repeat)
    return {
        "tokenizer": kind,
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": size * 1e6 / len(ids),
        "vocabulary_mb_s": size / vocabulary,
        "encode_mb_s": size / seconds(lambda: encode(tokenizer, text), repeat),
        "decode_mb_s": size / seconds(lambda: tokenizer.decode(ids), repeat),
        "corpus_mb_s": size / seconds(corpus, repeat),
        "batchify_mb_s": size / batch,
        "batchify_tokens_s": len(ids) / batch,
    }


def table(rows: list[dict[str, Any]]) -> str:
    heads = ("", "V", "bytes/id", "vocabulary", "encode", "decode", "corpus", "batchify")
    lines = [" ".join(f"{head:>10}" for head in heads)]
    for row in rows:
        values = list(row.values())[:-1]
        shown = [f"{values[0]:>10}", f"{values[1]:>10}", *(f"{v:>10.2f}" for v in values[2:])]
        lines.append(" ".join(shown))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="a text instead of a generated one")
    parser.add_argument("--megabytes", type=float, default=8.0, help="of generated text")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = options.file or Path(folder, "generated.txt")
        if options.file is None:
            path.write_text(generated(options.megabytes), "utf-8")
        (document,) = find_documents(path).documents
        text = "".join(document.chunks())
        rows = [measure(kind, text, path, options.repeat) for kind in KINDS]
    machine = {
        "text": str(options.file or "generated"),
        "megabytes": len(text.encode()) / 1e6,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "tokenizers": tokenizers.__version__,
    }
    if options.json:
        print(json.dumps({**machine, "rows": rows}, indent=1))
        return
    print(", ".join(f"{k} {v}" for k, v in machine.items()))
    print("MB/s of UTF-8 (corpus: files to token files, batchify: ids to x and y, B 64, T 64)")
    print(table(rows))


if __name__ == "__main__":
    main()
