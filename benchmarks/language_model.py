"""A whole training step of a language model beside the same network built from torch.nn.

Parity of loss and gradients first; then the two in turn, and the ratio of their medians. Peak memory is that
of a process of its own for each side. Sizes: word_language_model's (V = 33,278), or --vocab 100.

    python benchmarks/language_model.py [--vocab V] [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from wikitext_torch import high_water, update

from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.train import keep_freed_memory

T, B, H, LAYERS, LR, CLIP = 35, 20, 200, 2, 20.0, 0.25


class ByHand(nn.Module):
    """Embedding, nn.LSTM, nn.Linear and the plain cross entropy."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, H)
        self.lstm = nn.LSTM(H, H, LAYERS)
        self.decoder = nn.Linear(H, size)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h, _ = self.lstm(self.embedding(x))
        return nn.functional.cross_entropy(self.decoder(h).flatten(0, 1), y.flatten())


def pair(size: int) -> tuple[LanguageModel, ByHand]:
    """Both networks with the same weights."""
    torch.manual_seed(1)
    hand = ByHand(size)
    ours = LanguageModel(
        LanguageModelConfig(vocab_size=size, embedding_size=H, hidden_size=H, num_layers=LAYERS)
    )
    with torch.no_grad():
        ours.embedding.weight.copy_(hand.embedding.weight)
        assert ours.decoder is not None
        ours.decoder.load_state_dict(hand.decoder.state_dict())
        ours.stack.load_state_dict(hand.lstm.state_dict())
    return ours, hand


def step(net: nn.Module, loss: Callable[[], torch.Tensor]) -> float:
    """One step of plain SGD; its loss in nats."""
    value = loss()
    value.backward()
    update(net, LR, CLIP)
    net.zero_grad()
    return float(value.detach())


def check(ours: LanguageModel, hand: ByHand, x: torch.Tensor, y: torch.Tensor) -> None:
    """Stop unless loss and gradients agree."""
    a, b = ours.loss(x, y).loss, hand.loss(x, y)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    pairs = zip(ours.parameters(), hand.parameters(), strict=True)
    a.backward()
    b.backward()
    for p, q in pairs:
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6)
        p.grad = q.grad = None


def peak(size: int, side: str) -> float:
    """MiB of a process that takes three steps."""
    command = [sys.executable, __file__, "--vocab", str(size), "--alone", side]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab", type=int, default=33278)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--alone", choices=("gatewise", "torch"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.alone != "torch":
        keep_freed_memory()  # as the command does
    ours, hand = pair(args.vocab)
    x, y = torch.randint(args.vocab, (2, T, B)).unbind(0)
    losses = {"gatewise": lambda: ours.loss(x, y).loss, "torch": lambda: hand.loss(x, y)}
    nets = {"gatewise": ours, "torch": hand}
    if args.alone:
        for _ in range(3):
            step(nets[args.alone], losses[args.alone])
        print(high_water() / 1024)
        return
    check(ours, hand, x, y)
    times: dict[str, list[float]] = {name: [] for name in nets}
    for _ in range(args.rounds + 1):
        for name, net in nets.items():
            start = time.perf_counter()
            step(net, losses[name])
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(rows[1:]) for name, rows in times.items()}
    memory = {name: peak(args.vocab, name) for name in nets}
    figures = {
        "vocab": args.vocab,
        "milliseconds": {n: 1000 * m for n, m in medians.items()},
        "tokens_per_second": {n: T * B / m for n, m in medians.items()},
        "speed_ratio": medians["torch"] / medians["gatewise"],
        "peak_mib": memory,
        "memory_ratio": memory["gatewise"] / memory["torch"],
    }
    if args.json:
        print(json.dumps(figures))
        return
    print(
        f"V = {args.vocab:,}, T {T}, B {B}, H {H}, {LAYERS} layers, {torch.get_num_threads()} threads"
    )
    for name in nets:
        print(
            f"{name:10} {1000 * medians[name]:8.1f} ms  {T * B / medians[name]:9.0f} tokens/s  "
            f"peak {memory[name]:6.0f} MiB"
        )
    print(
        f"gatewise is {figures['speed_ratio']:.2f} times as fast, with {figures['memory_ratio']:.2f} of the memory"
    )


if __name__ == "__main__":
    main()
