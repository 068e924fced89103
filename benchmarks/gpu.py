"""Training and single steps on a CUDA card: nn.LSTM (cuDNN), gatewise's engines, and a loop by hand.

Parity first: outputs and all gradients of every contestant against nn.LSTM in float32 without TF32, with the
same weights. Then the contestants take turns in one process. A time is that of the whole call, with
what Python needs to launch it, until the card has finished; reported are medians and the median of the
per-round ratios to nn.LSTM in float16 (weights in one block: what cuDNN is fastest at; nn.LSTM under bfloat16
autocast copies its weights together at every call).

    python benchmarks/gpu.py                                       # all sizes, training and steps
    python benchmarks/gpu.py --sizes 35,20,650,2 --rounds 30 --json results.json
    python benchmarks/gpu.py --engines cuda --steps                # one of gatewise's engines, no single steps
    python benchmarks/gpu.py --cell gru --directions 2 --ragged --forms fp16   # other nets, one format
    python benchmarks/gpu.py --rehearse                            # tries this script itself, on a CPU

``recorded``: every gate and h are returned too. ``ragged``: columns of T / 2 to T steps; nn.LSTM is given them packed.
The engine ``auto`` is what gatewise chooses by itself. Without a card it says so in one line and ends with 1.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import gatewise as gw
from gatewise.bench.loops import CellLoop

SIZES = ["1024,16,768,1", "35,20,650,2", "70,80,1150,3", "35,20,1500,2"]
"""T, B, H, layers."""
STEPS = ["1,1024,2", "16,1024,2", "256,1024,2"]
"""B, H, layers of one step."""
ENGINES = ["auto", "closed", "cuda", "reference"]
"""Gatewise's; the plain loop too, to see what a kernel gains."""
THEIRS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}
LOOPS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn_tanh": nn.RNNCell}
FORMATS = {  # name -> (dtype of the weights, autocast, TF32, how far it may be from float32)
    "fp32": (torch.float32, None, False, 1e-4),
    "tf32": (torch.float32, None, True, 1e-2),
    "fp16": (torch.float16, None, True, 3e-2),
    "bf16 autocast": (torch.float32, torch.bfloat16, True, 6e-2),
}

FORMS = [name for name in FORMATS if name != "fp32"]

Run = Callable[[Tensor], Tensor]


@dataclass
class Contestant:
    """What runs an input, its weights, and the format it runs in."""

    run: Run
    weights: list[Tensor]
    form: str

    @contextmanager
    def ready(self, device: str) -> Iterator[None]:
        """Its format as torch's settings."""
        _, low, tf32, _ = FORMATS[self.form]
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        with torch.autocast(device, low, enabled=low is not None):
            yield

    def input(self, x: Tensor) -> Tensor:
        """x as it takes it."""
        return x.detach().to(FORMATS[self.form][0]).requires_grad_(x.requires_grad)


def contestants(
    size: int, layers: int, lengths: Tensor | None, args: argparse.Namespace, device: str
) -> dict[str, Contestant]:
    """Name -> contestant, torch's float32 first; all have the weights of one net of torch.nn."""
    kind, ways = THEIRS[args.cell], args.directions
    theirs = kind(size, size, layers, bidirectional=ways == 2).to(device)
    found = {}
    for form in ("fp32", *args.forms):
        own = copy.deepcopy(theirs).to(FORMATS[form][0])
        own.flatten_parameters()
        run = partial(run_theirs, own, lengths)
        found[f"nn.{kind.__name__} {form}"] = Contestant(run, list(own.parameters()), form)
    gates = [n for n in gw.Stack(args.cell, 1, 1).names() if "." not in n.removeprefix("layers.0.")]
    everything = gw.Record(*(name.removeprefix("layers.0.") for name in gates))
    for form in args.forms:
        options = {"bidirectional": ways == 2, "device": device, "dtype": FORMATS[form][0]}
        stack = gw.Stack(args.cell, size, size, layers, **options)
        stack.load_state_dict(theirs.state_dict())
        for engine in engines(args.engines):
            for record in (None, everything) if engine not in ("auto", "closed") else (None,):
                name = f"{engine} {form}" + (" recorded" if record else "")
                run = partial(run_ours, stack, engine, record, lengths)
                found[name] = Contestant(run, list(stack.parameters()), form)
    if "tf32" in args.forms and ways == 1 and lengths is None:
        found["loop tf32"] = loop(theirs, layers, args.cell, device)
    return found


def loop(theirs: nn.Module, layers: int, cell: str, device: str) -> Contestant:
    """torch.nn's cell, step by step."""
    values = theirs.state_dict()
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    rows = [{name: values[f"{name}_l{layer}"] for name in names} for layer in range(layers)]
    own = CellLoop(LOOPS[cell], rows).to(device)
    return Contestant(lambda x: own(x)[0], list(own.parameters()), "tf32")


def engines(known: Sequence[str]) -> list[str]:
    """Those of these engines of gatewise that run here."""
    there = ["auto", *(e.name for e in gw.engines() if e.available)]
    return [name for name in there if name in known]


def run_theirs(net: nn.Module, lengths: Tensor | None, x: Tensor) -> Tensor:
    if lengths is None:
        return net(x)[0]
    out, _ = net(pack_padded_sequence(x, lengths, enforce_sorted=False))
    return pad_packed_sequence(out, total_length=len(x))[0]


def run_ours(
    stack: gw.Stack, engine: str, record: gw.Record | None, lengths: Tensor | None, x: Tensor
) -> Tensor:
    return stack(x, engine=engine, record=record, lengths=lengths).h


def train(c: Contestant, x: Tensor, grad: Tensor, device: str) -> list[Tensor]:
    """Outputs, and the gradients of x and of every weight."""
    own = c.input(x)
    with c.ready(device):
        h = c.run(own)
        return [h.detach(), *torch.autograd.grad(h, [own, *c.weights], grad.to(h.dtype))]


def check_parity(runs: dict[str, Contestant], x: Tensor, grad: Tensor, device: str) -> None:
    expected = train(next(iter(runs.values())), x, grad, device)
    for name, c in runs.items():
        for k, (a, b) in enumerate(zip(train(c, x, grad, device), expected, strict=True)):
            error = float((a.float() - b).abs().max() / b.abs().max().clamp_min(1e-12))
            bound = FORMATS[c.form][3]
            if not error <= bound:
                raise SystemExit(f"{name}: result {k} is {error:.1e} away, more than {bound}")


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(calls: dict[str, Callable[[], object]], rounds: int, device: str) -> dict:
    """Name -> median ms, its spread, and the ratio of speed to torch's in fp16, else in the last format."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name, call in calls.items():
            wait(device)
            start = time.perf_counter()
            call()
            wait(device)
            if number >= 2:  # the first two warm up
                seconds[name].append(time.perf_counter() - start)
    theirs = [name for name in seconds if name.startswith("nn.")]
    base = seconds[next((n for n in theirs if n.endswith("fp16")), theirs[-1])]
    return {
        name: {
            "ms": statistics.median(own) * 1e3,
            "least": min(own) * 1e3,
            "most": max(own) * 1e3,
            "ratio": statistics.median(b / a for a, b in zip(own, base, strict=True)),
        }
        for name, own in seconds.items()
    }


def training(sizes: str, args: argparse.Namespace, device: str, forward: bool = False) -> dict:
    steps, batch, size, layers = (int(n) for n in sizes.split(","))
    torch.manual_seed(args.seed)
    lengths = torch.randint(-(-steps // 2), steps + 1, (batch,)) if args.ragged else None
    runs = contestants(size, layers, lengths, args, device)
    x = torch.randn(steps, batch, size, device=device, requires_grad=True)
    grad = torch.randn(steps, batch, args.directions * size, device=device)
    check_parity(runs, x, grad, device)
    if forward:
        return measure(without_gradients(runs, x.detach(), device), args.rounds, device)
    calls = {name: partial(train, c, x, grad, device) for name, c in runs.items()}
    return measure(calls, args.rounds, device)


def without_gradients(
    runs: dict[str, Contestant], x: Tensor, device: str
) -> dict[str, Callable[[], object]]:
    """Name -> a pass forward alone."""

    def call(c: Contestant, own: Tensor) -> None:
        with torch.no_grad(), c.ready(device):
            c.run(own)

    return {name: partial(call, c, c.input(x)) for name, c in runs.items()}


def stepping(sizes: str, args: argparse.Namespace, device: str) -> dict:
    batch, size, layers = (int(n) for n in sizes.split(","))
    runs = contestants(size, layers, None, args, device)
    x = torch.randn(1, batch, size, device=device)
    calls = without_gradients(runs, x, device)
    return measure(calls, 10 * args.rounds, device)


def show(title: str, found: dict) -> None:
    print(f"\n{title}\n  {'':34} {'ms':>9} {'least':>9} {'most':>9} {'ratio':>7}")
    for name, row in found.items():
        cells = f"{row['ms']:9.3f} {row['least']:9.3f} {row['most']:9.3f} {row['ratio']:7.2f}"
        print(f"  {name:34} {cells}", flush=True)


def machine(device: str) -> dict[str, str]:
    """What the figures were measured on."""
    found = {"date": datetime.date.today().isoformat(), "torch": torch.__version__}
    if device != "cuda":
        return {**found, "device": "a CPU: a rehearsal, no figure of which means anything"}
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    cudnn = str(torch.backends.cudnn.version())
    return {**found, "device": torch.cuda.get_device_name(), "driver": driver, "cudnn": cudnn}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="*", default=SIZES, metavar="T,B,H,L")
    parser.add_argument("--steps", nargs="*", default=STEPS, metavar="B,H,L")
    parser.add_argument("--engines", nargs="*", default=ENGINES, metavar="NAME", help="gatewise's")
    parser.add_argument("--forms", nargs="*", default=FORMS, choices=FORMS, help="of numbers")
    parser.add_argument("--cell", default="lstm", choices=THEIRS)
    parser.add_argument("--directions", type=int, default=1, choices=(1, 2))
    parser.add_argument("--ragged", action="store_true", help="columns of T / 2 to T steps")
    parser.add_argument("--no-forward", action="store_true", help="training and steps alone")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="written anew after each size")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes on the CPU")
    args = parser.parse_args()
    if args.rehearse:
        args.sizes, args.steps, args.rounds = ["3,2,4,2"], ["2,4,2"], 1
    elif not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py measures on a CUDA device, and torch sees none here")
    device = "cpu" if args.rehearse else "cuda"
    setting = {name: getattr(args, name) for name in ("cell", "directions", "ragged", "rounds")}
    found: dict = {**machine(device), **setting, "results": {}}
    print("  ".join(f"{k} {v}" for k, v in found.items() if k != "results"))
    kinds = {
        "training": (args.sizes, training),
        "forward": (args.sizes, partial(training, forward=True)),
        "step": (args.steps, stepping),
    }
    if args.no_forward:
        del kinds["forward"]
    for kind, (sizes, run) in kinds.items():
        for size in sizes:
            found["results"][f"{kind} {size}"] = run(size, args, device)
            show(f"{kind} {size}", found["results"][f"{kind} {size}"])
            if args.json is not None:
                args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
