"""A language model as ONNX, with real RNN, LSTM and GRU operators and free batch and time.

torch's own exporters unroll the loop or freeze its shape; here the operators are written one by one. The
model takes tokens (T, B) and the states, and gives the scores (T, B, V) and the next states, so a
runtime can stream. It needs the `onnx` package; with `onnxruntime` the file is run and compared.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gatewise.errors import EngineError, FailedError, OptionError
from gatewise.export.check import compare
from gatewise.export.writer import OPERATORS, Writer
from gatewise.mappings import LanguageModel

__all__ = ["OnnxReport", "compare", "export_onnx"]


@dataclass(frozen=True)
class OnnxReport:
    """What was written.

    Args:
        path: of the file.
        size: in bytes.
        error: largest difference of scores and states from this model's, run by onnxruntime over
            several lengths and batch sizes; None if onnxruntime is not installed.
        inputs, outputs: their names.
    """

    path: Path
    size: int
    error: float | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def export_onnx(
    model: LanguageModel,
    path: Path | str,
    *,
    tokenizer_json: str | None = None,
    check: bool = True,
) -> OnnxReport:
    """Write a language model as an ONNX file.

    Inputs: ``tokens`` (T, B) int64 and, for each state of the cell, ``h_in`` (L D, B, H), ``c_in``
    (one per layer and direction, ``h_in_0``, ... , where sizes differ). Outputs: ``logits`` (T, B, V),
    ``h_out``, ``c_out``. T and B are free. A learned first state and the tokenizer are in the file's
    metadata.

    Args:
        model: in float32; evaluation mode is taken (no dropout).
        path: of the file; replaced only when the new one is complete.
        tokenizer_json: text of tokenizer.json, stored in the metadata.
        check: run it in onnxruntime, where that is installed, and compare.
    Raises:
        FailedError: if onnx is not installed, or the runtime's results differ.
        EngineError: if ONNX has no operator for the cell or the options.
    """
    onnx = _need_onnx()
    _refuse(model)
    writer = Writer(onnx, model)
    proto = writer.model(tokenizer_json)
    onnx.checker.check_model(proto, full_check=True)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        onnx.save(proto, os.fspath(temporary))
        error = compare(model, temporary) if check and _has("onnxruntime") else None
        temporary.replace(target)
    except OSError as problem:
        raise FailedError(f"cannot write {target}: {problem.strerror or problem}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return OnnxReport(
        target, target.stat().st_size, error, tuple(writer.inputs), tuple(writer.outputs)
    )


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _need_onnx() -> Any:
    if not _has("onnx"):
        raise FailedError(
            "writing ONNX needs the onnx package, which is not installed: "
            "run pip install 'gatewise[onnx]'"
        )
    import onnx

    return onnx


def _refuse(model: LanguageModel) -> None:
    """Raise if there is no operator for what the model does."""
    law = model.stack.directions()[0].law
    if law.name not in OPERATORS:
        known = ", ".join(OPERATORS)
        raise EngineError(f"ONNX has no operator for the cell {law.name}: expected one of {known}")
    if model.config.proj_size:
        raise EngineError("ONNX's LSTM has no projection: train with --proj-size 0 to export")
    if model.config.zoneout:
        raise EngineError("ONNX's operators have no zoneout: train without it to export")
    if model.embedding.weight.dtype != torch.float32:
        raise OptionError(
            f"expected a model in float32, found {model.embedding.weight.dtype}: use model.float()"
        )
