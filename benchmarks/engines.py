"""Training speed of the engines beside torch: nn.LSTM by hand, and a loop over nn.LSTMCell.

Parity first: outputs, last states and all gradients of every contestant against nn.LSTM with the same
weights. Then forward and backward together (no decoder, no optimizer), the contestants taking turns in
one process, so that what else the machine does hits all of them. Reported are medians of tokens/s, a
token being one step of one column, and the median of the per-round ratios to nn.LSTM.

    python benchmarks/engines.py                                  # all sizes, a minute or two
    python benchmarks/engines.py --sizes 35,20,200,2 --rounds 30 --threads 2 --json
    python benchmarks/engines.py --contestants reference recorded nn.LSTM --cell lstm

``recorded``: every gate and h, on the engine that is chosen. ``controlled``: half of the units of one gate
under a control (that leaves them as they are, so that the results can be compared).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import gatewise as gw
from gatewise.types import state_tensors

SIZES = ["35,20,200,2", "35,20,650,2", "50,64,256,1"]
# float32, relative to the largest entry of each tensor: sums over time and batch in another order
TOLERANCE = 1e-4
KINDS = {"lstm": (nn.LSTM, nn.LSTMCell), "gru": (nn.GRU, nn.GRUCell)}

Run = Callable[[Tensor], list[Tensor]]


class CellLoop(nn.Module):
    """What one writes by hand to see inside: torch's cell, called at each step."""

    def __init__(self, cell: type[nn.Module], size: int, layers: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cell(size, size) for _ in range(layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        finals = []
        for cell in self.cells:
            state, outputs = None, []
            for step in x.unbind():
                state = cell(step, state)
                outputs.append(state[0] if isinstance(state, tuple) else state)
            x = torch.stack(outputs)
            finals.append(state)
        parts = zip(*(s if isinstance(s, tuple) else (s,) for s in finals), strict=True)
        return [x, *(torch.stack(part) for part in parts)]


def contestants(kind: str, size: int, layers: int) -> dict[str, tuple[Run, list[Tensor]]]:
    """Name -> what runs it, and its weights; all with the weights of nn.LSTM."""
    over_time, cell = KINDS[kind]
    theirs = over_time(size, size, layers)
    loop = CellLoop(cell, size, layers)
    for layer, own in enumerate(loop.cells):
        own.load_state_dict({
            name: theirs.state_dict()[f"{name}_l{layer}"] for name in own.state_dict()
        })  # fmt: skip

    def by_hand(x: Tensor) -> list[Tensor]:
        h, state = theirs(x)
        return [h, *state_tensors(state)]

    found: dict[str, tuple[Run, list[Tensor]]] = {}
    for engine in gw.engines():
        if engine.available:
            found[engine.name] = _on_engine(theirs, kind, size, layers, engine.name, None)
    gates = gw.cells.REGISTRY[kind].law.graph.gates
    everything = gw.Record(*gates, "h")
    found["recorded"] = _on_engine(theirs, kind, size, layers, "auto", everything)
    half = gw.Control.scale(next(iter(gates)), 1.0, units=slice(0, size // 2))
    found["controlled"] = _on_engine(theirs, kind, size, layers, "auto", None, half)
    found[f"nn.{over_time.__name__}"] = (by_hand, list(theirs.parameters()))
    found[f"{cell.__name__} loop"] = (loop, list(loop.parameters()))
    return found


def _on_engine(
    theirs: nn.Module,
    kind: str,
    size: int,
    layers: int,
    engine: str,
    record: gw.Record | None,
    control: gw.Control | None = None,
) -> tuple[Run, list[Tensor]]:
    stack = gw.Stack(kind, size, size, layers)
    stack.load_state_dict(theirs.state_dict(), strict=True)

    def run(x: Tensor) -> list[Tensor]:
        out = stack(x, engine=engine, record=record, control=control)
        return [out.h, *state_tensors(out.state)]

    return run, list(stack.parameters())


def step(run: Run, weights: list[Tensor], x: Tensor, grad: Tensor) -> list[Tensor]:
    """Outputs, states, and the gradients of x and of every weight."""
    values = run(x)
    return [*(v.detach() for v in values), *torch.autograd.grad(values[0], [x, *weights], grad)]


def check_parity(runs: dict[str, tuple[Run, list[Tensor]]], x: Tensor, grad: Tensor) -> None:
    expected = step(*next(v for k, v in runs.items() if k.startswith("nn.")), x, grad)
    for name, (run, weights) in runs.items():
        for k, (a, b) in enumerate(zip(step(run, weights, x, grad), expected, strict=True)):
            error = float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
            if not error <= TOLERANCE:
                raise SystemExit(f"{name}: result {k} is {error:.1e} away, more than {TOLERANCE}")


def measure(args: argparse.Namespace, sizes: str) -> dict[str, dict[str, float]]:
    """Contestant -> median ms, tokens/s, and ratio of speed to nn.LSTM."""
    steps, batch, size, layers = (int(n) for n in sizes.split(","))
    torch.manual_seed(args.seed)
    runs = contestants(args.cell, size, layers)
    x, grad = torch.randn(steps, batch, size, requires_grad=True), torch.randn(steps, batch, size)
    check_parity(runs, x, grad)
    base = next(name for name in runs if name.startswith("nn."))
    runs = {k: v for k, v in runs.items() if not args.contestants or k in (base, *args.contestants)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(args.rounds + 2):
        for name, (run, weights) in runs.items():
            start = time.perf_counter()
            step(run, weights, x, grad)
            if number >= 2:  # the first two warm up
                seconds[name].append(time.perf_counter() - start)
    return {
        name: {
            "ms": statistics.median(own) * 1e3,
            "tokens/s": steps * batch / statistics.median(own),
            "ratio": statistics.median(b / a for a, b in zip(own, seconds[base], strict=True)),
        }
        for name, own in seconds.items()
    }


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    for sizes, found in results.items():
        steps, batch, size, layers = sizes.split(",")
        print(f"\nT {steps}  B {batch}  H {size}  layers {layers}")
        print(f"  {'':16} {'ms':>9} {'tokens/s':>10} {'ratio':>7}")
        for name, row in found.items():
            print(f"  {name:16} {row['ms']:9.2f} {row['tokens/s']:10,.0f} {row['ratio']:7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="T,B,H,L")
    parser.add_argument("--cell", choices=sorted(KINDS), default="lstm")
    parser.add_argument("--contestants", nargs="+", help="default: all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = {sizes: measure(args, sizes) for sizes in args.sizes}
    machine = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": args.threads,
        "rounds": args.rounds,
        "cell": args.cell,
    }
    if args.json:
        print(json.dumps({**machine, "results": results}))
        return
    print("  ".join(f"{k} {v}" for k, v in machine.items()))
    show(results)


if __name__ == "__main__":
    main()
