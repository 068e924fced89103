"""The decoder's cost at a large vocabulary: plain, torch's chunked function, and gatewise's.

Parity first: the loss and all gradients against the plain formula in float64. Then time of forward and
backward together, the contestants taking turns in one process, as medians and as the median of the
per-round ratios to plain. Then peak memory beyond the inputs, each in a fresh process.

    python benchmarks/softmax.py --rows 700 --hidden 200 --vocabulary 33278 --threads 2 --json
    python benchmarks/softmax.py --chunks 64 128 256      # times for several numbers of rows
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from wikitext_torch import high_water

from gatewise.losses import linear_cross_entropy, plain_linear_cross_entropy

Cost = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
TOLERANCE = 1e-5  # float32 sums over all rows, relative to the largest entry of each tensor


def torch_chunked(h: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    options = torch.nn.LinearCrossEntropyOptions()
    return functional.linear_cross_entropy(h, weight, target, linear_bias=bias, options=options)


def contestants(chunks: list[int], slow: bool = True) -> dict[str, Cost]:
    """Name -> cost; torch's chunked function only where this torch has one."""
    found: dict[str, Cost] = {"plain": plain_linear_cross_entropy, "gatewise": linear_cross_entropy}
    if slow and hasattr(torch.nn, "LinearCrossEntropyOptions"):
        found["torch chunked"] = torch_chunked
    for rows in chunks:
        found[f"gatewise {rows} rows"] = lambda *a, rows=rows: linear_cross_entropy(*a, chunk=rows)
    return found


def make_inputs(args: argparse.Namespace) -> list[Tensor]:
    generator = torch.Generator().manual_seed(args.seed)
    h = torch.randn(args.rows, args.hidden, generator=generator).mul_(0.5)
    weight = torch.randn(args.vocabulary, args.hidden, generator=generator).mul_(0.1)
    bias = torch.randn(args.vocabulary, generator=generator).mul_(0.1)
    target = torch.randint(args.vocabulary, (args.rows,), generator=generator)
    return [h.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), target]


def step(cost: Cost, inputs: list[Tensor], autocast: bool) -> Tensor:
    for tensor in inputs[:3]:
        tensor.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = cost(*inputs)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def parity(costs: dict[str, Cost], inputs: list[Tensor]) -> dict[str, dict[str, float]]:
    """Largest difference to float64, relative to the largest entry, of the loss and each gradient."""
    exact = [t.detach().double().requires_grad_() for t in inputs[:3]] + [inputs[3]]
    truth = [step(plain_linear_cross_entropy, exact, False), *(t.grad for t in exact[:3])]
    result = {}
    for name, cost in costs.items():
        found = [step(cost, inputs, False), *(t.grad for t in inputs[:3])]
        result[name] = {
            label: float((f.double() - t).abs().max() / t.abs().max())
            for label, f, t in zip(("loss", "dh", "dW", "db"), found, truth, strict=True)
        }
    return result


def timing(
    costs: dict[str, Cost], inputs: list[Tensor], args: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Seconds of a forward and backward pass: medians, and medians of ratios within a round."""
    seconds: dict[str, list[float]] = {name: [] for name in costs}
    clock = time.process_time if args.threads == 1 else time.perf_counter
    for _ in range(args.rounds):
        for name, cost in costs.items():
            start = clock()
            step(cost, inputs, args.autocast)
            seconds[name].append(clock() - start)
    return {
        name: {
            "median_s": statistics.median(s),
            "least_s": min(s),
            "ratio_to_plain": statistics.median(
                own / plain for own, plain in zip(s, seconds["plain"], strict=True)
            ),
        }
        for name, s in seconds.items()
    }


def peak_extra(args: argparse.Namespace) -> int:
    """Bytes that one step adds to the highest resident memory, gradients included."""
    small = argparse.Namespace(**{**vars(args), "rows": 64, "vocabulary": 64})
    cost = contestants(args.chunks)[args.only]
    step(cost, make_inputs(small), args.autocast)  # library start-up is not the step's
    inputs = make_inputs(args)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts here
    before = high_water() * 1024
    step(cost, inputs, args.autocast)
    return high_water() * 1024 - before


def memory(names: list[str]) -> dict[str, int]:
    """Peak bytes of each contestant, in fresh processes with the same options."""
    return {
        name: int(
            subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--only", name],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for name in names
    }


def report(result: dict[str, dict[str, dict[str, float]]], full: int) -> None:
    print(f"N x V in the dtype of the scores: {full / 2**20:.0f} MiB")
    for name, times in result["time"].items():
        errors = ", ".join(f"{k} {v:.0e}" for k, v in result["parity"][name].items())
        peak = result["memory"][name]["peak_bytes"]
        print(
            f"{name:20} {1e3 * times['median_s']:7.1f} ms (least {1e3 * times['least_s']:.1f}), "
            f"x {times['ratio_to_plain']:.3f} of plain, peak {peak / 2**20:6.1f} MiB "
            f"({peak / full:.2f} of N x V), against float64: {errors}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=700)
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--vocabulary", type=int, default=33278)
    parser.add_argument("--threads", type=int, default=2, help="1: CPU time instead of wall time")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunks", type=int, nargs="*", default=[])
    parser.add_argument("--autocast", action="store_true", help="products in bfloat16")
    parser.add_argument("--quick", action="store_true", help="without torch's chunked function")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.only:
        print(peak_extra(args))
        return
    costs, inputs = contestants(args.chunks, not args.quick), make_inputs(args)
    found = parity(costs, inputs)
    worst = max(max(errors.values()) for errors in found.values())
    if worst > TOLERANCE:
        raise SystemExit(f"no timing without parity: expected {TOLERANCE}, found {worst}: {found}")
    result = {
        "parity": found,
        "time": timing(costs, inputs, args),
        "memory": {name: {"peak_bytes": peak} for name, peak in memory(list(costs)).items()},
    }
    if args.json:
        machine = {"torch": torch.__version__, "processor": platform.machine(), **vars(args)}
        print(json.dumps({"setting": machine, **result}))
    else:
        report(result, 4 * args.rows * args.vocabulary)


if __name__ == "__main__":
    main()
