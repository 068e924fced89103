"""Long sequences of cells that are linear recurrences: the scan beside the loop and the compiled engine.

Parity first: outputs, last states and all gradients of every engine against the reference loop. Then forward
and backward together (no decoder, no optimizer), the engines taking turns in one process. Reported are medians
of milliseconds and the median of the per-round ratios to the loop, so more than 1 is faster. What all of them
share, the product of the input with its weights and its two gradients, is timed apart ("products"): no
engine can be faster than that.

    python benchmarks/scan.py                                     # a minute
    python benchmarks/scan.py --sizes 1024,8,256 --cells mingru --rounds 9 --threads 2 --json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import gatewise as gw
from gatewise.types import state_tensors

SIZES = ["1024,8,256", "1024,32,256", "256,32,256"]
# float32, relative to the largest entry of each tensor: sums over time and batch in another order
TOLERANCE = 1e-4
LOOP = "reference"

Run = Callable[[Tensor, Tensor], list[Tensor]]


def contestants(stack: gw.Stack) -> dict[str, Run]:
    """Engine -> forward and backward: outputs, states, gradients."""

    def on(engine: str) -> Run:
        def run(x: Tensor, grad: Tensor) -> list[Tensor]:
            out = stack(x, engine=engine)
            values = [out.h.detach(), *(s.detach() for s in state_tensors(out.state))]
            return values + list(torch.autograd.grad(out.h, [x, *stack.parameters()], grad))

        return run

    def products(x: Tensor, grad: Tensor) -> list[Tensor]:
        weight, bias = stack.weight_ih_l0, stack.bias_ih_l0
        y = torch.nn.functional.linear(x, weight, bias)
        return list(torch.autograd.grad(y, [x, weight, bias], y.detach()))

    names = [e.name for e in gw.engines() if e.available and e.name != "closed"]
    return {name: on(name) for name in names} | {"products": products}


def check_parity(runs: dict[str, Run], x: Tensor, grad: Tensor) -> None:
    expected = runs[LOOP](x, grad)
    for name, run in runs.items():
        if name == "products":
            continue
        for k, (a, b) in enumerate(zip(run(x, grad), expected, strict=True)):
            if not b.numel():
                continue
            error = float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
            if not error <= TOLERANCE:
                raise SystemExit(f"{name}: result {k} is {error:.1e} away, more than {TOLERANCE}")


def measure(args: argparse.Namespace, cell: str, sizes: str) -> dict[str, dict[str, float]]:
    """Engine -> median ms, tokens/s, and ratio of speed to the loop."""
    steps, batch, size = (int(n) for n in sizes.split(","))
    torch.manual_seed(args.seed)
    stack = gw.Stack(cell, size, size)
    x, grad = torch.randn(steps, batch, size, requires_grad=True), torch.randn(steps, batch, size)
    runs = contestants(stack)
    check_parity(runs, x, grad)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(args.rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run(x, grad)
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    return {
        name: {
            "ms": statistics.median(own) * 1e3,
            "spread": (max(own) - min(own)) / statistics.median(own),
            "tokens/s": steps * batch / statistics.median(own),
            "ratio": statistics.median(b / a for a, b in zip(own, seconds[LOOP], strict=True)),
        }
        for name, own in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="T,B,H")
    parser.add_argument("--cells", nargs="+", default=["mingru", "minlstm"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = {c: {s: measure(args, c, s) for s in args.sizes} for c in args.cells}
    machine = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": args.threads,
        "rounds": args.rounds,
    }
    if args.json:
        print(json.dumps({**machine, "results": results}))
        return
    print("  ".join(f"{k} {v}" for k, v in machine.items()))
    for cell, found in results.items():
        for sizes, rows in found.items():
            steps, batch, size = sizes.split(",")
            print(f"\n{cell}  T {steps}  B {batch}  H {size}")
            print(f"  {'':10} {'ms':>9} {'spread':>7} {'tokens/s':>11} {'ratio':>7}")
            for name, row in rows.items():
                print(
                    f"  {name:10} {row['ms']:9.2f} {row['spread']:6.0%} {row['tokens/s']:11,.0f} "
                    f"{row['ratio']:7.2f}"
                )


if __name__ == "__main__":
    main()
