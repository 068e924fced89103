"""Nats per character of a run on random windows, each read from an empty state: as transformers are often evaluated.

    python benchmarks/windows.py RUN INPUT.TXT          # the last 10 % of the text, windows of 256, 200 batches of 64

A net that carries its state reads the text in one piece instead (`gatewise eval`), with all that came before as its
context: the two figures do not compare.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import gatewise as gw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--share", type=float, default=0.1, help="of the text, from its end")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    run = gw.load(args.run)
    ids = np.asarray(run.tokenizer.encode(args.text.read_text(encoding="utf-8")), np.int64)
    held = ids[int(len(ids) * (1 - args.share)) :]
    draws, total = np.random.default_rng(0), 0.0
    with torch.inference_mode():
        for _ in range(args.batches):
            starts = draws.integers(0, len(held) - args.window - 1, args.batch_size)
            places = starts[None] + np.arange(args.window + 1)[:, None]
            block = torch.from_numpy(held[places])
            total += float(run.model.loss(block[:-1], block[1:]).nats)
    print(f"{total / args.batches:.4f} nats/char on random windows of {args.window}")


if __name__ == "__main__":
    main()
