"""`gatewise info`: this machine, or a run."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from gatewise import __version__
from gatewise.bench.machine import cores, processor
from gatewise.cli import screen
from gatewise.cli.options import Json


def info(
    run: Annotated[
        Path | None,
        Parameter(help="A run folder, or one of its checkpoints. Without: the machine."),
    ] = None,
    /,
    *,
    json: Json = False,
) -> int:
    """Say what is here: the machine and its engines, or what a run folder holds.

    Every file of a run is read and compared with its sum; damage is said, and the exit status is 1.
    """
    if run is None:
        found = _machine()
        status = 0
    else:
        found = _run(run)
        status = 1 if found["faults"] else 0
    if json:
        screen.out_json(found)
    else:
        screen.out(_text(found))
    return status


def _machine() -> dict[str, Any]:
    import torch

    from gatewise.engine import engines

    return {
        "gatewise": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": platform.platform(terse=True),
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "kernels": _kernels(),
        "engines": [
            {"name": e.name, "available": e.available, "summary": e.summary, "why": e.reason}
            for e in engines()
        ],
    }


def _kernels() -> str:
    """What the compiled engine makes its kernels for."""
    from gatewise.engine.cpu.engine import CompiledEngine

    if (why := CompiledEngine().available()) is not None:
        return f"none: {why}"
    from gatewise.engine.cpu.target import current
    from gatewise.engine.cpu.threads import limit

    return "; ".join(filter(None, (f"for {current()}", limit())))


def _run(path: Path) -> dict[str, Any]:
    from gatewise.checkpoint import RunFolder, load_checkpoint, verify_run

    checkpoint = load_checkpoint(path)
    whole = (path / "checkpoints").is_dir()
    folder = RunFolder.open(path) if whole else None
    config = checkpoint.config
    return {
        "run": str(path),
        "checkpoint": str(checkpoint.path),
        "step": checkpoint.step,
        "best": checkpoint.is_best,
        "written_by": checkpoint.version,
        "mapping": config.get("mapping"),
        "parameters": sum(tensor.numel() for tensor in checkpoint.tensors.values()),
        "bytes": sum(t.numel() * t.element_size() for t in checkpoint.tensors.values()),
        "checkpoints": folder.checkpoints() if folder else [checkpoint.step],
        "resumable": checkpoint.has_training,
        "validation": _validation(path) if folder else {},
        "config": config,
        "faults": verify_run(path) if whole else list(checkpoint.notes),
    }


def _validation(path: Path) -> dict[str, Any]:
    """The last validation in the log."""
    from gatewise.cli.evaluate import validations

    found = validations(path)
    return found[-1] if found else {}


def _text(found: dict[str, Any]) -> str:
    rows = []
    for name, value in found.items():
        if name == "engines":
            rows += [[f"engine {e['name']}", _engine(e)] for e in value]
        elif name == "faults":
            rows += [["damage", fault] for fault in value] or [
                ["files", "all as they were written"]
            ]
        elif name == "config":
            rows += _config(value)
        elif name == "validation":
            rows += [["validation", _figures(value)]] if value else []
        else:
            rows.append([name.replace("_", " "), _value(value)])
    return screen.table([[key, screen.visible(text)] for key, text in rows], indent="")


def _engine(engine: dict[str, Any]) -> str:
    return engine["summary"] if engine["available"] else f"not here: {engine['why']}"


def _config(config: dict[str, Any]) -> list[list[str]]:
    """The parts of the settings, a line each."""
    rows = []
    for name, part in config.items():
        if isinstance(part, dict):
            shown = ", ".join(
                f"{k} {_value(v)}" for k, v in part.items() if v not in (None, [], {})
            )
            rows.append([f"config {name}", shown])
    return rows


_MOST = 12
"""Entries of a part of the settings that are shown; of a run on many series there is a scale for each."""


def _figures(record: dict[str, Any]) -> str:
    names = ("nats_per_token", "bits_per_character", "perplexity")
    shown = [f"{name.replace('_', ' ')} {record[name]:.4f}" for name in names if record.get(name)]
    if not shown:
        from gatewise.train import figures_line

        shown = [figures_line(record)]
    return f"step {record.get('step'):,}: " + ", ".join(shown)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict) and len(value) > _MOST:
        return f"{{{len(value):,} entries}}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return ", ".join(_value(each) for each in value) or "none"
    return str(value)
