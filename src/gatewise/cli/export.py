"""`gatewise export`: a run as something smaller or something else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.options import Json
from gatewise.cli.runs import Opening, RunPath, open_run, say_notes
from gatewise.errors import OptionError

if TYPE_CHECKING:  # only these names: the page of help must not wait for torch
    from gatewise.export import OnnxReport
    from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoder
    from gatewise.mappings.vec_to_seq import VectorToSequence
    from gatewise.run import Run


def export(
    run: RunPath,
    /,
    *,
    to: Annotated[
        Path,
        Parameter(
            help="What to make: a new folder, or for ONNX a file (ends in .onnx; of an encoder-decoder or "
            "captioner two, .encoder.onnx and .decoder.onnx)."
        ),
    ],
    format: Annotated[
        Literal["safetensors", "onnx"] | None,
        Parameter(
            help="safetensors: a checkpoint without its training state. onnx: a model file with real "
            "recurrent operators. Default: by the name of --to."
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "int8", "int4"] | None,
        Parameter(
            help="Store the weights so: bfloat16 takes half of the room, int8 a quarter, int4 an eighth. "
            "Default: as they are."
        ),
    ] = None,
    data: Annotated[
        list[str],
        Parameter(
            help="With --dtype: measure on these held-out texts what it costs, and store that with "
            "the weights."
        ),
    ] = [],  # noqa: B006
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
    if dtype is None and data:
        raise OptionError("--data: expected --dtype with it, found none: nothing would be measured")
    if kind == "onnx":
        if dtype is not None:
            raise OptionError("--dtype: expected --format safetensors with it, found onnx")
        made = _onnx(run, to, checkpoint)
    elif dtype is not None:
        made = _rounded(run, to, checkpoint, dtype, data)
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


def _rounded(
    run: Path, to: Path, checkpoint: Literal["best", "latest"], dtype: str, data: list[str]
) -> dict[str, object]:
    """A checkpoint of the same weights in another dtype, with what that costs."""
    from gatewise.checkpoint import export_checkpoint
    from gatewise.run.export import rounded

    opened = open_run(run, Opening(checkpoint=checkpoint, dtype="float32"), "read")
    found, cost = rounded(opened, dtype, data)
    path = export_checkpoint(found, to)
    made: dict[str, object] = {
        "path": str(path),
        "format": "safetensors",
        "step": found.step,
        "size": _size(path),
        "dtype": dtype,
    }
    return made if cost is None else made | {"cost": cost}


def _onnx(run: Path, to: Path, checkpoint: Literal["best", "latest"]) -> dict[str, object]:
    from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoder
    from gatewise.mappings.vec_to_seq import VectorToSequence
    from gatewise.run import load

    if os.path.lexists(to):
        raise OptionError(f"{to} exists: expected a new file, choose another --to")
    if not to.parent.is_dir():
        raise OptionError(f"{to.parent} is no folder: expected one to write {to.name} into")
    opened = load(run, checkpoint, "cpu", "float32")
    say_notes(opened.notes)
    if isinstance(opened.model, EncoderDecoder | VectorToSequence):
        return _onnx_pair(opened.model, opened, to)
    report = _written(opened, to)
    return {
        "path": str(report.path),
        "format": "onnx",
        "step": opened.step,
        "size": report.size,
        "largest_difference": report.error,
        "inputs": report.inputs,
        "outputs": report.outputs,
    }


def _written(opened: Run, to: Path) -> OnnxReport:
    """The model of a run in one file."""
    from gatewise.export import export_onnx
    from gatewise.export.forecaster import export_forecaster_onnx
    from gatewise.export.tagger import export_tagger_onnx
    from gatewise.export.vectors import export_vector_onnx
    from gatewise.mappings.course import TOKENIZER
    from gatewise.mappings.seq_to_seq import LanguageModel
    from gatewise.run import ClassifyRun, ExecuteRun, ForecastRun, LanguageRun, TagRun

    if isinstance(opened, ForecastRun):
        return export_forecaster_onnx(opened.model, to, scaling=opened.scaling.to_dict())
    if isinstance(opened, ClassifyRun):
        tokenizer = opened.reader.tokenizer
        return export_vector_onnx(
            opened.model,
            to,
            tokenizer_json=None if tokenizer is None else tokenizer.to_json(),
            metadata=opened.reader.to_dict(),
        )
    if isinstance(opened, TagRun):
        return export_tagger_onnx(opened.model, to, tokenizer_json=opened.tokens.to_json())
    if isinstance(opened, LanguageRun):
        return export_onnx(opened.model, to, tokenizer_json=opened.tokenizer.to_json())
    if isinstance(opened, ExecuteRun) and isinstance(opened.model, LanguageModel):
        return export_onnx(opened.model, to, tokenizer_json=TOKENIZER.to_json())
    raise OptionError(f"--format onnx: a run of mapping {opened.mapping!r} has no such form")


def _onnx_pair(
    model: EncoderDecoder | VectorToSequence, opened: Run, to: Path
) -> dict[str, object]:
    """What reads and the decoder's step, each a file."""
    from gatewise.checkpoint import load_checkpoint
    from gatewise.export.captions import export_caption_onnx
    from gatewise.export.pairs import export_pair_onnx
    from gatewise.export.two_files import paths_of
    from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoder

    for path in paths_of(to):
        if os.path.lexists(path):
            raise OptionError(f"{path} exists: expected a new file, choose another --to")
    tokenizer = load_checkpoint(opened.path).tokenizer_json
    if isinstance(model, EncoderDecoder):
        reports = export_pair_onnx(model, to, tokenizer_json=tokenizer)
    else:
        reports = export_caption_onnx(model, to, tokenizer_json=tokenizer)
    parts = {
        name: {
            "path": str(each.path),
            "size": each.size,
            "inputs": each.inputs,
            "outputs": each.outputs,
        }
        for name, each in zip(("encoder", "decoder"), reports, strict=True)
    }
    return {
        "path": " and ".join(str(each.path) for each in reports),
        "format": "onnx",
        "step": opened.step,
        "size": sum(each.size for each in reports),
        "largest_difference": reports[0].error,
        "parts": parts,
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
    if "dtype" in made:
        line += f", {made['dtype']}"
        cost = made.get("cost")
        if isinstance(cost, dict):
            line += f": perplexity {cost['perplexity']:.4f}, {cost['lost']:+.3%} of float32's"
        else:
            line += ", not measured: give --data a held-out text"
    return line
