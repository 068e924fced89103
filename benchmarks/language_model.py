"""A whole training step of a language model beside the same network built from torch.nn.

Embedding, LSTM, decoder, cross entropy, clipping by norm and plain SGD; the state carried from step to step.
Both sides in the same dtype: with ``--dtype bfloat16`` torch.nn runs under its own autocast, with torch's own
cost. Parity of loss and gradients first, in bfloat16 against the float32 network: ours must not be further from
it than torch's. Then the sides in turn, and the ratio of their medians. Peak memory is that of a process of
its own for each side. ``--float32`` adds torch.nn in float32 as a third side.

    python benchmarks/language_model.py --vocab 10000 --hidden 650 --dtype bfloat16 [--rounds N] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from wikitext_torch import high_water, update

from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.optim import build_optimizer, clip_gradients
from gatewise.train import keep_freed_memory
from gatewise.types import State, detach

LR, CLIP = 20.0, 0.25
# torch's own rounding is the measure in bfloat16, with room for another order of summation
ROOM = 1.5


class ByHand(nn.Module):
    """Embedding, nn.LSTM, nn.Linear and the plain cross entropy."""

    def __init__(self, size: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, hidden)
        self.lstm = nn.LSTM(hidden, hidden, layers)
        self.decoder = nn.Linear(hidden, size)

    def loss(self, x: Tensor, y: Tensor, state: State) -> tuple[Tensor, State]:
        h, state = self.lstm(self.embedding(x), state)
        return nn.functional.cross_entropy(self.decoder(h).flatten(0, 1), y.flatten()), state


@dataclass
class Side:
    """One contestant: its network, and how a step is taken."""

    net: nn.Module
    dtype: str
    engine: str = ""
    state: State = None
    ran: str = "torch.nn"

    def __post_init__(self) -> None:
        named = self.net.named_parameters()
        self.rule = build_optimizer("sgd", named, lr=LR) if self.ours else None

    @property
    def ours(self) -> bool:
        return isinstance(self.net, LanguageModel)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == "bfloat16"):
            if isinstance(self.net, LanguageModel):
                out = self.net.loss(x, y, self.state, engine=self.engine)
                loss, state, self.ran = out.loss, out.state, out.engine
            else:
                loss, state = self.net.loss(x, y, self.state)
        self.state = detach(state)
        return loss

    def step(self, x: Tensor, y: Tensor) -> float:
        """One step of plain SGD; its loss in nats."""
        loss = self.loss(x, y)
        loss.backward()
        if self.rule is None:
            update(self.net, LR, CLIP)
        else:
            clip_gradients(self.net.parameters(), CLIP)
            self.rule.step()
        for p in self.net.parameters():
            p.grad = None
        return float(loss.detach())

    def gradients(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """The loss and all gradients at the start; nothing is changed."""
        loss = self.loss(x, y)
        found = torch.autograd.grad(loss, list(self.net.parameters()))
        self.state = None
        return [loss.detach(), *found]


def sides(args: argparse.Namespace) -> dict[str, Side]:
    """The contestants, with the same weights."""
    torch.manual_seed(1)
    size, hidden, layers = args.vocab, args.hidden, args.layers
    hand = ByHand(size, hidden, layers)
    config = LanguageModelConfig(
        vocab_size=size, embedding_size=hidden, hidden_size=hidden, num_layers=layers
    )
    ours, other = LanguageModel(config), ByHand(size, hidden, layers)
    with torch.no_grad():
        for mine, theirs in zip(ours.parameters(), hand.parameters(), strict=True):
            mine.copy_(theirs)
    other.load_state_dict(hand.state_dict())
    found = {"gatewise": Side(ours, args.dtype, args.engine), "torch": Side(hand, args.dtype)}
    if args.float32 or args.dtype == "bfloat16":
        found["torch float32"] = Side(other, "float32")
    return found


def check(found: dict[str, Side], x: Tensor, y: Tensor) -> dict[str, float]:
    """Stop unless loss and gradients agree; the largest relative error of each side."""
    base = found.get("torch float32", found["torch"]).gradients(x, y)
    worst = {}
    for name in ("gatewise", "torch"):
        pairs = zip(found[name].gradients(x, y), base, strict=True)
        worst[name] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
    limit = 1e-4 if found["torch"].dtype == "float32" else ROOM * worst["torch"]
    if not worst["gatewise"] <= limit:
        raise SystemExit(f"no timing without parity: expected at most {limit}, found {worst}")
    return worst


def peak(args: argparse.Namespace, side: str) -> float:
    """MiB of a process that takes three steps."""
    command = [sys.executable, __file__, *sys.argv[1:], "--alone", side]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(args: argparse.Namespace, x: Tensor, y: Tensor) -> dict[str, object]:
    """All figures of one size."""
    found = sides(args)
    errors = check(found, x, y)
    if not args.float32:
        found.pop("torch float32", None)
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(args.rounds + 1):
        for name, side in found.items():
            start = time.perf_counter()
            side.step(x, y)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(rows[1:]) for name, rows in times.items()}
    memory = {name: peak(args, name) for name in found} if args.memory else {}
    tokens = args.steps * args.batch
    return {
        "setting": {k: v for k, v in vars(args).items() if k not in ("json", "alone")},
        "engine": found["gatewise"].ran,
        "threads": torch.get_num_threads(),
        "error_to_float32" if args.dtype == "bfloat16" else "difference": errors,
        "milliseconds": {n: 1000 * m for n, m in medians.items()},
        "least_milliseconds": {n: 1000 * min(rows[1:]) for n, rows in times.items()},
        "tokens_per_second": {n: tokens / m for n, m in medians.items()},
        "speed_ratio": {n: m / medians["gatewise"] for n, m in medians.items() if n != "gatewise"},
        "peak_mib": memory,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=33278)
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=35, help="T")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--float32", action="store_true", help="time torch.nn in float32 too")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    if args.alone in (None, "gatewise"):
        keep_freed_memory()  # as the command does
    x, y = torch.randint(args.vocab, (2, args.steps, args.batch)).unbind(0)
    if args.alone:
        side = sides(args)[args.alone]
        for _ in range(3):
            side.step(x, y)
        print(high_water() / 1024)
        return
    figures = measure(args, x, y)
    if args.json:
        print(json.dumps(figures))
        return
    print(
        f"V {args.vocab:,}, T {args.steps}, B {args.batch}, H {args.hidden}, {args.layers} layers, "
        f"{args.dtype}, engine {figures['engine']}, {args.threads} threads"
    )
    for name, ms in figures["milliseconds"].items():
        ratio = figures["speed_ratio"].get(name, 1.0)
        memory = figures["peak_mib"].get(name)
        print(
            f"{name:14} {ms:8.2f} ms  (least {figures['least_milliseconds'][name]:.2f})  "
            f"{figures['tokens_per_second'][name]:8.0f} tokens/s  gatewise is x {ratio:.2f}"
            + (f"  peak {memory:.0f} MiB" if memory else "")
        )
    print(
        "errors:",
        {
            n: f"{e:.1e}"
            for n, e in figures.get("error_to_float32", figures.get("difference")).items()
        },
    )


if __name__ == "__main__":
    main()
