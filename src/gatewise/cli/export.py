"""`gatewise export`: a run as something smaller or something else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.options import Json
from gatewise.cli.runs import Opening, RunPath, open_run, say_notes
from gatewise.errors import OptionError


def export(
    run: RunPath,
    /,
    *,
    to: Annotated[
        Path, Parameter(help="What to make: a new folder, or for ONNX a file (ends in .onnx).")
    ],
    format: Annotated[
        Literal["safetensors", "onnx"] | None,
        Parameter(
            help="safetensors: a checkpoint without its training state. onnx: a model file with real "
            "recurrent operators. Default: by the name of --to."
        ),
    ] = None,
    checkpoint: Annotated[
        Literal["best", "latest"], Parameter(help="Of a run, the best checkpoint or the latest.")
    ] = "best",
    json: Json = False,
) -> int:
    """Export a model for use elsewhere.

    Nothing that exists is replaced.
    """
    from gatewise.checkpoint import export_checkpoint, load_checkpoint

    kind = format or ("onnx" if to.suffix.lower() == ".onnx" else "safetensors")
    if kind == "onnx":
        made = _onnx(run, to, checkpoint)
    else:
        found = load_checkpoint(run, checkpoint)
        say_notes(found.notes)
        path = export_checkpoint(found, to)
        made = {"path": str(path), "format": kind, "step": found.step, "size": _size(path)}
    if json:
        screen.out_json(made)
    else:
        screen.out(_line(made))
    return 0


def _onnx(run: Path, to: Path, checkpoint: Literal["best", "latest"]) -> dict[str, object]:
    from gatewise.export import export_onnx

    if os.path.lexists(to):
        raise OptionError(f"{to} exists: expected a new file, choose another --to")
    if not to.parent.is_dir():
        raise OptionError(f"{to.parent} is no folder: expected one to write {to.name} into")
    opened = open_run(run, Opening(checkpoint=checkpoint, dtype="float32"), "generate")
    report = export_onnx(opened.model, to, tokenizer_json=opened.tokenizer.to_json())
    return {
        "path": str(report.path),
        "format": "onnx",
        "step": opened.step,
        "size": report.size,
        "largest_difference": report.error,
        "inputs": report.inputs,
        "outputs": report.outputs,
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _line(made: dict[str, object]) -> str:
    line = f"{made['path']}: step {made['step']:,}, {made['size']:,} bytes"
    if made["format"] == "onnx":
        error = made["largest_difference"]
        checked = "not checked: onnxruntime is not installed"
        if error is not None:
            checked = f"run by onnxruntime, largest difference {error:.1e}"
        line += f", {checked}"
    return line
