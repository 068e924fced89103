"""Speed of saving and loading a run folder, beside torch.save and the safetensors library.

    python benchmarks/checkpoint.py [--megabytes 200] [--folder DIR] [--repeat 5]

A save here writes, sums and syncs; the others only write (their columns with a sync are the fair
ones). Loading here verifies every byte; the others trust the file. Medians, MB/s of tensor data.
Parity first: what is loaded must equal what was saved.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gatewise.checkpoint import RunFolder, TrainingState, load_checkpoint


def _tensors(megabytes: int) -> dict[str, Tensor]:
    """Eight equal float32 tensors, together of that size."""
    count = megabytes * 1_000_000 // 32
    return {f"layers.{index}.weight": torch.randn(count) for index in range(8)}


def _median(function: Callable[[], object], repeat: int) -> float:
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _synced(write: Callable[[], object], path: Path) -> Callable[[], None]:
    def both() -> None:
        write()
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)

    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    tensors = _tensors(options.megabytes)
    half = dict(list(tensors.items())[:4])
    rest = TrainingState({name: tensors[name] for name in tensors if name not in half})
    place = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        with RunFolder.create(place / "run") as run:

            def save() -> None:
                run.save(1, config={}, tensors=half, training=rest)

            def load() -> None:
                load_checkpoint(place / "run").training()

            save()
            found = load_checkpoint(place / "run")
            loaded = found.tensors | found.training().tensors
            assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
            lib, pt = place / "x.safetensors", place / "x.pt"
            rows = {
                "save, summed and synced": save,
                "load, verified (weights and state)": load,
                "load, verified (state not read)": lambda: load_checkpoint(place / "run"),
                "safetensors save_file": lambda: save_file(tensors, lib),
                "safetensors save_file + sync": _synced(lambda: save_file(tensors, lib), lib),
                "safetensors load_file": lambda: {n: t + 0 for n, t in load_file(lib).items()},
                "torch.save": lambda: torch.save(tensors, pt),
                "torch.save + sync": _synced(lambda: torch.save(tensors, pt), pt),
            }
            print(
                f"{options.megabytes} MB, {platform.machine()}, torch {torch.__version__}, {place}"
            )
            for name, function in rows.items():
                seconds = _median(function, options.repeat)
                print(f"{name:36} {seconds * 1e3:8.0f} ms {options.megabytes / seconds:8.0f} MB/s")
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
