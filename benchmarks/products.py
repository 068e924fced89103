"""Nets with a matrix product within a step: projected LSTMs, beside torch's, and the GRU of its paper.

Parity first: outputs, last states and all gradients against the reference loop, in float32. Then forward and
backward together, everybody in turns in one process; medians of milliseconds and ratios of medians.

    python benchmarks/products.py                   # under a minute
    python benchmarks/products.py --rounds 9 --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import gatewise as gw
from gatewise.types import state_tensors

# T, B, H, projected to, layers; 0: the paper's GRU, which has a matrix within its equations
SIZES = ((35, 20, 650, 256, 2), (50, 64, 256, 128, 1), (50, 64, 256, 0, 1))
# float32, relative to the norm of each tensor: sums in another order
TOLERANCE = 1e-4

Run = Callable[[Tensor], list[Tensor]]


def gradients(y: Tensor, x: Tensor, net: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(y.float().sum(), [x, *net.parameters()]))


def on(net: gw.Stack, engine: str, *, low: bool = False) -> Run:
    def run(x: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = net(x, engine=engine)
        states = [s.detach() for s in state_tensors(out.state)]
        return [out.h.detach(), *states, *gradients(out.h, x, net)]

    return run


def torch_on(net: nn.LSTM, *, low: bool = False) -> Run:
    def run(x: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            y, (h, c) = net(x)
        return [y.detach(), h.detach(), c.detach(), *gradients(y, x, net)]

    return run


def contestants(hidden: int, projected: int, layers: int) -> dict[str, Run]:
    """Everybody with the same weights."""
    cell = "lstm" if projected else "gru_paper"
    net = gw.Stack(cell, hidden, hidden, layers, proj_size=projected)
    runs = {
        "reference": on(net, "reference"),
        "compiled": on(net, "compiled"),
        "compiled, bfloat16": on(net, "compiled", low=True),
    }
    if projected:
        peer = nn.LSTM(hidden, hidden, layers, proj_size=projected)
        peer.load_state_dict(net.state_dict())
        runs = {"nn.LSTM": torch_on(peer)} | runs
    return runs


def check(runs: Mapping[str, Run], x: Tensor) -> None:
    expected = runs["reference"](x)
    for name, run in runs.items():
        if "bfloat16" in name:
            continue  # its errors are those of its numbers: the tests hold them against the plain loop's
        for one, other in zip(run(x), expected, strict=True):
            error = float((one - other).norm() / other.norm().clamp(min=1e-30))
            if error > TOLERANCE:
                raise SystemExit(f"{name}: wrong by {error:.1e}, expected at most {TOLERANCE:.0e}")


def measure(runs: Mapping[str, Run], x: Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of each, in turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run(x)
            if turn:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    for steps, batch, hidden, projected, layers in SIZES:
        x = torch.randn(steps, batch, hidden, requires_grad=True)
        runs = contestants(hidden, projected, layers)
        check(runs, x)
        found = measure(runs, x, args.rounds)
        what = f"LSTM projected to {projected}" if projected else "the paper's GRU"
        print(f"{what}: T {steps}, B {batch}, H {hidden}, L {layers}; {args.threads} threads")
        base = next(iter(found))
        for name, seconds in found.items():
            print(
                f"  {name:<20} {1e3 * seconds:8.1f} ms  {found[base] / seconds:5.2f} of {base}'s speed"
            )


if __name__ == "__main__":
    main()
