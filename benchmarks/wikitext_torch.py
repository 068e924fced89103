"""Epochs of word_language_model's network, built from torch.nn modules alone.

The other side of ``benchmarks/wikitext.py``: nothing of gatewise is imported here. Same options as the
``word-language-model`` preset (2 x 200 LSTM, lr 20, clip .25, batch 20, bptt 35); the vocabulary comes
from all three splits in order of first appearance, as the reference program does.

    python benchmarks/wikitext_torch.py DATA --dropout 0 --seed 1111 --out result.json

``--device cuda --dtype tf32`` (or bfloat16, float16: autocast, the latter without a loss scaler, for its speed alone) runs
on a card; ``--hidden 650 --dropout 0.5 --tied`` is the program's larger setting.

``--nudge`` multiplies one weight by 1 + 2^-23 before the first step: how far rounding alone carries the
result, which is the least difference that means anything between two programs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn


def read_tokens(folder: Path) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    """The vocabulary (word -> id, by first appearance) and each split's ids, (N,)."""
    vocabulary: dict[str, int] = {}
    splits = {}
    for split in ("train", "valid", "test"):
        ids = []
        for line in (folder / f"{split}.txt").read_text(encoding="utf-8").splitlines():
            for word in [*line.split(), "<eos>"]:
                ids.append(vocabulary.setdefault(word, len(vocabulary)))
        splits[split] = torch.from_numpy(np.array(ids, dtype=np.int64))
    return vocabulary, splits


class Network(nn.Module):
    """Embedding, LSTM, decoder, with the reference program's initial weights."""

    def __init__(
        self,
        size: int,
        hidden: int = 200,
        layers: int = 2,
        dropout: float = 0.2,
        tied: bool = False,
    ):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(size, hidden)
        self.rnn = nn.LSTM(hidden, hidden, layers, dropout=dropout)
        self.decoder = nn.Linear(hidden, size)
        if tied:
            self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, x, state):  # type: ignore[no-untyped-def]
        h, state = self.rnn(self.drop(self.encoder(x)), state)
        return self.decoder(self.drop(h)).flatten(0, 1), state


@torch.no_grad()
def nudge(net: Network, places: int) -> None:
    """Move the first `places` weights of the decoder by one rounding."""
    net.decoder.weight.view(-1)[:places].mul_(1 + torch.finfo(torch.float32).eps)


def high_water() -> int:
    """KiB that this program held at most; ru_maxrss would count what started it as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def batchify(tokens: torch.Tensor, columns: int) -> torch.Tensor:
    rows = tokens.numel() // columns
    return tokens[: rows * columns].view(columns, rows).t().contiguous()


AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def products(device: str, dtype: str) -> torch.autocast:
    """How matrix products run: in TF32, under autocast, or as they are."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    return torch.autocast(device, AUTOCAST.get(dtype), enabled=dtype in AUTOCAST)


@torch.no_grad()
def evaluate(net: Network, data: torch.Tensor, bptt: int = 35) -> float:
    """Mean nats per token over the N-1 positions of each column."""
    net.eval()
    total, state = 0.0, None
    for i in range(0, len(data) - 1, bptt):
        n = min(bptt, len(data) - 1 - i)
        logits, state = net(data[i : i + n], state)
        total += n * nn.functional.cross_entropy(logits, data[i + 1 : i + 1 + n].reshape(-1)).item()
    return total / (len(data) - 1)


@torch.no_grad()
def update(net: nn.Module, lr: float, clip: float) -> None:
    """Plain SGD on gradients clipped by their common norm."""
    nn.utils.clip_grad_norm_(net.parameters(), clip)
    for p in net.parameters():
        assert p.grad is not None
        p.add_(p.grad, alpha=-lr)


def train_epoch(
    net: Network,
    data: torch.Tensor,
    lr: float,
    clip: float,
    bptt: int = 35,
    dtype: str = "float32",
) -> float:
    """One pass over the columns; tokens/s."""
    net.train()
    state, start, tokens = None, time.perf_counter(), 0
    for k, i in enumerate(range(0, len(data) - 1, bptt)):
        n = min(bptt, len(data) - 1 - i)
        net.zero_grad()
        state = None if state is None else tuple(s.detach() for s in state)
        with products(data.device.type, dtype):
            logits, state = net(data[i : i + n], state)
            loss = nn.functional.cross_entropy(logits, data[i + 1 : i + 1 + n].reshape(-1))
        loss.backward()
        update(net, lr, clip)
        tokens += n * data.shape[1]
        if k % 200 == 0:
            speed = tokens / (time.perf_counter() - start)
            print(f"{k} loss {loss.item():.3f} {speed:.0f} tokens/s", flush=True)
    loss.item()  # until the device has finished
    return tokens / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1111)
    parser.add_argument("--share", type=float, default=1.0, help="of the training tokens")
    parser.add_argument("--nudge", type=int, default=0, help="weights moved by one rounding")
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "tf32", *AUTOCAST])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    vocabulary, splits = read_tokens(args.data)
    torch.manual_seed(args.seed)
    net = Network(len(vocabulary), args.hidden, dropout=args.dropout, tied=args.tied)
    nudge(net, args.nudge)
    net = net.to(args.device)
    train = splits["train"][: int(args.share * len(splits["train"]))]
    data = batchify(train, 20).to(args.device)
    if args.device != "cpu":
        train_epoch(
            net, data[:351], lr=0.0, clip=0.25, dtype=args.dtype
        )  # a card's first steps are slow
    speed = train_epoch(net, data, lr=20.0, clip=0.25, dtype=args.dtype)
    result = {
        "hidden": args.hidden,
        "tied": args.tied,
        "dtype": args.dtype,
        "dropout": args.dropout,
        "seed": args.seed,
        "share": args.share,
        "nudge": args.nudge,
        "tokens_per_second": speed,
        "seconds": train.numel() / speed,
        "peak_kib": high_water(),
    }
    for split in ("valid", "test") if args.share == 1 else ("valid",):
        nats = evaluate(net, batchify(splits[split], 10).to(args.device))
        result |= {f"{split}_nats": nats, f"{split}_perplexity": math.exp(nats)}
    args.out.write_text(json.dumps(result) + "\n")
    print(result)


if __name__ == "__main__":
    main()
