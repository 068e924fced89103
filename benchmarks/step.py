"""Speed of generation, a whole token at a time: the step engine beside ONNX Runtime and torch.

A token is embedding, layers, decoder and choosing the most probable next token. Parity first: the scores of
every contestant against the reference engine, over a few tokens. Then the contestants take turns in one
process, each for some milliseconds, so that what else the machine does hits all of them; reported are
medians of microseconds a token, ratios of medians, and for the step engine how far it is from the time to
read its weights at the bandwidth measured for a buffer of that size. It folds the embedding into the first
layer where that table takes 96 MB at most; "with table": however large it is.

    python benchmarks/step.py                                     # all sizes, batch 1
    python benchmarks/step.py --sizes 512,100 1024,10000 --batch 1 16 --rounds 9 --json
    python benchmarks/step.py --sizes 512,100 --contestants int8 "ort int8"
    python benchmarks/step.py --bandwidth                         # the machine's ceilings alone

onnxruntime and onnx are optional: without them its rows are missing. nn.LSTM is measured as it comes and
with mkldnn off: by default it packs its weights anew at every call.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor, nn

from gatewise.engine.cpu import threads
from gatewise.engine.cpu.compiling import functions
from gatewise.engine.cpu.kinds import I8, I64
from gatewise.engine.cpu.step.panels import Routine
from gatewise.engine.cpu.step.program import host
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.step.choose import DTYPES
from gatewise.step.drawing import Drawing
from gatewise.step.model import StepModel

SIZES = ["256,100", "512,100", "512,10000", "1024,10000", "1500,33278"]
LEVELS = [1 << 17, 1 << 19, 1 << 20, 1 << 21, 1 << 22, 1 << 23, 1 << 24, 3 << 23, 1 << 26, 1 << 28]
# largest difference of a score, relative to the largest score, after a few tokens
TOLERANCES = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.05, "int4": 0.5}
LAYERS, PARITY_TOKENS = 2, 6
Run = Callable[[int], None]
"""So many tokens, one after the other."""


@dataclass(frozen=True)
class Contestant:
    """What takes part.

    Args:
        run: it, for some tokens.
        scores: of some given tokens (T, B): (T, B, V).
        tolerance: of the scores.
        read: bytes of weights that a step reads, or 0.
    """

    run: Run
    scores: Callable[[Tensor], Tensor]
    tolerance: float
    read: int = 0


# --- the machine's ceilings -------------------------------------------------------------------------


@cache
def _reader() -> tuple[int, tuple[str, ...]]:
    """A kernel that reads a buffer `times` times, each thread its own part."""
    threads.publish()
    module, target = ir.Module(), host()
    p = Routine(module, "read", target)
    b, vector = p.builder, target.kind.vector
    first, end, _ = p.share(p.number("blocks"))
    with b.goto_entry_block():
        sums = [b.alloca(vector) for _ in range(8)]
    for s in sums:
        b.store(ir.Constant(vector, None), s)
    with p.loop(I64(0), p.number("times"), "time"), p.loop(first, end, "block") as i:
        at = b.gep(p.pointer("data", I8), [b.mul(i, I64(8 * 4 * target.lanes))])
        for k, s in enumerate(sums):
            place = b.bitcast(b.gep(at, [I64(k * 4 * target.lanes)]), vector.as_pointer())
            b.store(b.fadd(b.load(s), b.load(place, align=64)), s)
    total = b.load(sums[0])
    for s in sums[1:]:
        total = b.fadd(total, b.load(s))
    here = b.sext(b.call(p.external("omp_get_thread_num", ir.IntType(32)), []), I64)
    p.lanes.store(total, b.gep(p.pointer("out"), [b.mul(here, I64(64))]))
    p.finish()
    address = functions(module, ["read"])[0]
    return address, tuple(sorted(p.arguments, key=p.arguments.__getitem__))


def bandwidth(size: int, workers: int, seconds: float = 0.01) -> float:
    """Bytes/s of reading a buffer of `size` again and again, each thread its share: the best of five."""
    from gatewise.step.memory import settled

    address, names = _reader()
    data = settled(torch.ones(size, dtype=torch.uint8))
    out = torch.zeros(64 * 64)
    block = 8 * 4 * host().lanes
    values = {"data": data.data_ptr(), "out": out.data_ptr(), "blocks": size // block}

    def once(times: int) -> float:
        arguments = [{**values, "times": times}[name] for name in names]
        start = time.perf_counter()
        threads.run(address, arguments, workers)
        return time.perf_counter() - start

    times = 1
    while once(times) < seconds and times < 1 << 30:
        times *= 2
    return max(size * times / once(times) for _ in range(5))


def ceilings(workers: int) -> dict[str, dict[int, float]]:
    """Threads -> size -> bytes/s."""
    return {
        str(count): {size: bandwidth(size, count) for size in LEVELS}
        for count in range(1, workers + 1)
    }


# --- the contestants --------------------------------------------------------------------------------


def step_engine(
    model: LanguageModel, dtype: str, batch: int, table: bool | None = None
) -> Contestant:
    packed = StepModel(model, dtype, table=table)
    session = packed.start(batch)
    token, drawing = torch.zeros(batch, dtype=torch.int64), Drawing(0.0, logprobs=False)

    def scores(tokens: Tensor) -> Tensor:
        return packed.start(batch).push(tokens)

    def run(count: int) -> None:
        session.run(token, count, drawing)

    return Contestant(run, scores, TOLERANCES[dtype], packed.read_bytes())


class TorchModel(nn.Module):
    """The same model, of torch.nn's own modules."""

    def __init__(self, model: LanguageModel, size: int, vocab: int) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(vocab, size), nn.LSTM(size, size, LAYERS)
        self.decoder = nn.Linear(size, vocab)
        self.embedding.load_state_dict(model.embedding.state_dict())
        self.lstm.load_state_dict(model.stack.state_dict())
        assert model.decoder is not None
        self.decoder.load_state_dict(model.decoder.state_dict())

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        h, state = self.lstm(self.embedding(tokens), state)
        return self.decoder(h), state


def torch_model(model: nn.Module, batch: int, tolerance: float, mkldnn: bool = True) -> Contestant:
    def flags() -> Any:
        return contextlib.nullcontext() if mkldnn else torch.backends.mkldnn.flags(enabled=False)

    @torch.inference_mode()
    def scores(tokens: Tensor) -> Tensor:
        with flags():
            found, state = [], None
            for row in tokens:
                out, state = model(row.unsqueeze(0), state)
                found.append(out[0])
            return torch.stack(found)

    @torch.inference_mode()
    def run(count: int) -> None:
        with flags():
            tokens, state = torch.zeros(1, batch, dtype=torch.int64), None
            for _ in range(count):
                out, state = model(tokens, state)
                tokens = out.argmax(-1)

    return Contestant(run, scores, tolerance)


def onnx_model(path: Path, size: int, batch: int, workers: int, tolerance: float) -> Contestant:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = workers, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    zero = np.zeros((LAYERS, batch, size), np.float32)

    def scores(tokens: Tensor) -> Tensor:
        h, c, found = zero, zero, []
        for row in tokens:
            feeds = {"tokens": row.unsqueeze(0).numpy(), "h_in": h, "c_in": c}
            logits, h, c = session.run(["logits", "h_out", "c_out"], feeds)
            found.append(torch.from_numpy(logits[0]))
        return torch.stack(found)

    def run(count: int) -> None:
        tokens, h, c = np.zeros((1, batch), np.int64), zero, zero
        names = ["logits", "h_out", "c_out"]
        for _ in range(count):
            feeds = {"tokens": tokens, "h_in": h, "c_in": c}
            logits, h, c = session.run(names, feeds)
            tokens = logits.argmax(-1)

    return Contestant(run, scores, tolerance)


def contestants(
    model: LanguageModel, size: int, vocab: int, batch: int, folder: Path, wanted: list[str]
) -> dict[str, Contestant]:
    """Name -> contestant, those that are wanted and can run here."""
    theirs = TorchModel(model, size, vocab).eval()
    makers: dict[str, Callable[[], Contestant]] = {
        dtype: lambda dtype=dtype: step_engine(model, dtype, batch) for dtype in DTYPES
    }
    makers["int8 with table"] = lambda: step_engine(model, "int8", batch, table=True)
    makers["nn.LSTM"] = lambda: torch_model(theirs, batch, TOLERANCES["float32"])
    makers["nn.LSTM mkldnn off"] = lambda: torch_model(
        theirs, batch, TOLERANCES["float32"], mkldnn=False
    )
    makers["torch int8"] = lambda: torch_model(_torch_int8(theirs), batch, 0.2)
    with contextlib.suppress(ImportError):
        import onnxruntime  # noqa: F401

        for workers in sorted({1, torch.get_num_threads()}):
            makers[f"ort float32 x{workers}"] = lambda w=workers: onnx_model(
                _onnx(model, folder, False), size, batch, w, TOLERANCES["float32"]
            )
            makers[f"ort int8 x{workers}"] = lambda w=workers: onnx_model(
                _onnx(model, folder, True), size, batch, w, 0.2
            )
    chosen = [
        n for n in makers if not wanted or any(n == w or n.startswith(w + " x") for w in wanted)
    ]
    return {name: makers[name]() for name in chosen}


def _torch_int8(model: nn.Module) -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {nn.LSTM, nn.Linear}, torch.qint8)


def _onnx(model: LanguageModel, folder: Path, quantised: bool) -> Path:
    from gatewise.export import export_onnx

    path = folder / "model.onnx"
    if not path.exists():
        export_onnx(model, path, check=False)
    if not quantised:
        return path
    small = folder / "model.int8.onnx"
    if not small.exists():
        import logging

        from onnxruntime.quantization import QuantType, quantize_dynamic

        logging.getLogger().setLevel(logging.ERROR)
        quantize_dynamic(path, small, weight_type=QuantType.QInt8)
    return small


# --- measuring --------------------------------------------------------------------------------------


def check_parity(found: dict[str, Contestant], model: LanguageModel, batch: int) -> None:
    """Every contestant's scores against the model's own, or the benchmark ends."""
    tokens = torch.randint(model.vocab_size, (PARITY_TOKENS, batch))
    with torch.no_grad():
        expected = model(tokens, engine="reference").logits
    for name, contestant in found.items():
        error = float((contestant.scores(tokens) - expected).abs().max() / expected.abs().max())
        if not error <= contestant.tolerance:
            raise SystemExit(
                f"{name}: a score is {error:.1e} away, more than {contestant.tolerance}"
            )


def microseconds(found: dict[str, Contestant], rounds: int, share: float) -> dict[str, list[float]]:
    """Name -> microseconds a token in each round; in a round each runs for about `share` seconds."""
    counts = {}
    for name, contestant in found.items():
        contestant.run(3)
        start = time.perf_counter()
        contestant.run(3)
        counts[name] = max(2, int(share * 3 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, contestant in found.items():
            time.sleep(0.1)  # the threads of the one before spin for some 50 ms
            contestant.run(counts[name])  # wakes its own threads, and fills the caches
            start = time.perf_counter()
            contestant.run(counts[name])
            times[name].append((time.perf_counter() - start) / counts[name] * 1e6)
    return times


def measure(size: int, vocab: int, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    """Contestant -> its figures."""
    torch.manual_seed(args.seed)
    config = LanguageModelConfig(
        vocab_size=vocab, embedding_size=size, hidden_size=size, num_layers=LAYERS,
        initialisation="torch",
    )  # fmt: skip
    model = LanguageModel(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        found = contestants(model, size, vocab, batch, Path(folder), args.contestants)
    check_parity(found, model, batch)
    times = microseconds(found, args.rounds, args.share)
    rows = {}
    for name, own in times.items():
        median = statistics.median(own)
        rows[name] = {
            "us": median,
            "low": min(own),
            "high": max(own),
            "tokens/s": batch / median * 1e6,
        }
        if read := found[name].read:
            best = max(bandwidth(_size(read), count) for count in range(1, args.threads + 1))
            rows[name] |= {"read MB": read / 1e6, "ceiling us": read / best * 1e6}
    return rows


def _size(read: int) -> int:
    return max(4096, read // 4096 * 4096)


def against(rows: dict[str, Any]) -> Iterator[str]:
    """The ratios that matter."""
    for dtype in (*DTYPES, "int8 with table"):
        if dtype not in rows:
            continue
        for rival in ("ort float32", "ort int8"):
            theirs = [r["us"] for name, r in rows.items() if name.startswith(rival + " x")]
            if theirs:
                yield f"{dtype} {min(theirs) / rows[dtype]['us']:.2f}x {rival}"


def show(results: dict[str, Any]) -> None:
    for title, rows in results.items():
        print(
            f"\n{title}\n  {'':20} {'us/token':>9} {'low':>8} {'high':>8} {'tokens/s':>10} {'of ceiling':>11}"
        )
        for name, row in rows.items():
            part = f"{row['us'] / row['ceiling us']:9.2f}x" if "ceiling us" in row else ""
            print(
                f"  {name:20} {row['us']:9.1f} {row['low']:8.1f} {row['high']:8.1f} "
                f"{row['tokens/s']:10,.0f} {part:>11}"
            )
        print("  " + "; ".join(against(rows)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="H,V")
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--contestants", nargs="+", default=[], help="default: all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--share", type=float, default=0.03, help="seconds of a turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bandwidth", action="store_true", help="the ceilings alone")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": args.threads,
    }
    results: dict[str, Any] = {}
    if args.bandwidth:
        results = ceilings(args.threads)
    else:
        for sizes in args.sizes:
            size, vocab = (int(n) for n in sizes.split(","))
            for batch in args.batch:
                title = f"H {size}  V {vocab}  batch {batch}"
                results[title] = measure(size, vocab, batch, args)
    if args.json:
        print(json.dumps({**machine, "results": results}))
        return
    print("  ".join(f"{k} {v}" for k, v in machine.items()))
    if args.bandwidth:
        for count, found in results.items():
            levels = "  ".join(f"{s / 1e6:.1f} MB {r / 1e9:.0f}" for s, r in found.items())
            print(f"  {count} thread(s), GB/s: {levels}")
        return
    show(results)


if __name__ == "__main__":
    main()
