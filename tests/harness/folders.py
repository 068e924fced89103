"""Small run folders for the fault tests, and ways to harm them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatewise.checkpoint import Checkpoint, RunFolder, TrainingState


def quick_folder() -> Path | None:
    """Where files live in memory: thousands of saves, each with its syncs, are slow on a disk."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else None


STEPS = (10, 20, 30)
BEST = 20


def contents(step: int) -> dict[str, Any]:
    """What the checkpoint of `step` holds; a function of the step alone."""
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(7, 5, generator=generator)
    return {
        "config": {"cell": "lstm", "hidden_size": 5, "dropout": 0.5},
        "tensors": {
            "embedding.weight": weight,
            "decoder.weight": weight,
            "decoder.bias": torch.randn(7, generator=generator).bfloat16(),
            "count": torch.tensor(step),
        },
        "tokenizer_json": json.dumps({"kind": "char", "tokens": ["a", "b", "é"]}),
        "training": TrainingState(
            {"adam.0": torch.randn(7, 5, generator=generator), "rng": generator.get_state()[:64]},
            {"position": 3 * step, "best_loss": float("inf")},
        ),
    }


def save(run: RunFolder, step: int, **options: Any) -> Path:
    """Log `step` and save it."""
    run.log.append({"step": step, "loss": 1 / step})
    return run.save(step, **contents(step), best=step == BEST, **options)


def make_run(path: Path, steps: tuple[int, ...] = STEPS) -> Path:
    """A closed run with a checkpoint at each of `steps`."""
    with RunFolder.create(path) as run:
        for step in steps:
            save(run, step)
    return path


def copy_run(source: Path, destination: Path) -> Path:
    """A fresh copy of a run."""
    shutil.rmtree(destination, ignore_errors=True)
    return Path(shutil.copytree(source, destination))


def is_intact(checkpoint: Checkpoint) -> bool:
    """Whether every value of a loaded checkpoint is what was saved at its step, bit for bit."""
    truth = contents(checkpoint.step)
    training = checkpoint.training()
    return (
        checkpoint.config == truth["config"]
        and checkpoint.tokenizer_json == truth["tokenizer_json"]
        and same_tensors(checkpoint.tensors, truth["tensors"])
        and same_tensors(training.tensors, truth["training"].tensors)
        and training.meta == truth["training"].meta
    )


def same_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether names, dtypes, shapes and values agree exactly."""
    return one.keys() == other.keys() and all(
        one[n].dtype == other[n].dtype and torch.equal(one[n], other[n]) for n in other
    )


def damageable(run: Path) -> list[Path]:
    """Every file of a run that says something (the lock does not)."""
    return sorted(p for p in run.rglob("*") if p.is_file() and p.name != ".gatewise.lock")


def flip(path: Path, rng: random.Random) -> str:
    """Flip one bit of a file; returns where."""
    data = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    return f"bit {bit} of {path}"


def truncate(path: Path, rng: random.Random) -> str:
    """Cut a file at a random place before its end; returns where."""
    data = path.read_bytes()
    size = rng.randrange(len(data))
    path.write_bytes(data[:size])
    return f"{path} cut to {size} of {len(data)} bytes"


def seal(checkpoint: Path) -> None:
    """Give a folder a manifest that agrees with its files, as an attacker would."""
    files = {
        str(p.relative_to(checkpoint)): {
            "size": p.stat().st_size,
            "sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
        }
        for p in sorted(checkpoint.rglob("*"))
        if p.is_file() and p.name != "manifest.json"
    }
    write_manifest(checkpoint, files)


def write_manifest(checkpoint: Path, files: Mapping[str, Any], form: object = 1) -> None:
    """Write a manifest that claims `files`."""
    (checkpoint / "manifest.json").write_text(json.dumps({"format": form, "files": files}))
