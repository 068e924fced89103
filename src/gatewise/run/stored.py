"""Weights in a checkpoint as whole numbers: how they are exported, and read again.

A matrix ``name`` is stored as ``name`` (rows, k) int8 for "int8", (rows, k / 2) uint8 for "int4" (the even
numbers in the low halves, 8 added), and ``name.scales``: float32 (rows, 1), or bfloat16 (rows, k / 64). Vectors
stay float32, and so does an embedding that is looked up and not multiplied. "bfloat16" rounds every tensor.
config.json says ``"weights": {"dtype": ..., "width": {name: k}, ...}``, with what the rounding costs on a text
where that was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.checkpoint import Checkpoint
from gatewise.engine.cpu.step.formats import FORMATS, GROUP, Quantised, quantise
from gatewise.errors import CheckpointError
from gatewise.mappings import LanguageModel

_SCALES = ".scales"
_KEY = "weights"


def matrices(model: LanguageModel) -> list[str]:
    """Names of the matrices that a step multiplies with."""
    found = [f"stack.{n}" for n, w in model.stack.named_parameters() if n.startswith("weight_")]
    if model.projection is not None:
        found.append("projection.weight")
    return [*found, "embedding.weight" if model.decoder is None else "decoder.weight"]


def quantised(model: LanguageModel, dtype: str) -> dict[str, Quantised]:
    """The matrices of a model in whole numbers, by name."""
    weights = dict(model.named_parameters())
    form = FORMATS[dtype]
    return {n: quantise(weights[n], form) for n in matrices(model) if weights[n].numel()}


def as_stored(checkpoint: Checkpoint, whole: Mapping[str, Quantised], dtype: str) -> Checkpoint:
    """The checkpoint with those matrices in whole numbers.

    Args:
        checkpoint: of float32 weights.
        whole: what `quantised` found.
        dtype: "bfloat16" (all tensors, rounded), "int8" or "int4".
    """
    tensors = {}
    if dtype == "bfloat16":
        config = checkpoint.config | {_KEY: {"dtype": dtype, "width": {}}}
        halves = {n: _to(t, torch.bfloat16) for n, t in checkpoint.tensors.items()}
        return replace(checkpoint, tensors=halves, config=config)
    for name, tensor in checkpoint.tensors.items():
        tensors[name] = tensor
        if name in whole:
            numbers = whole[name].numbers
            tensors[name] = numbers if dtype == "int8" else _halves(numbers)
            tensors[name + _SCALES] = whole[name].scales
    widths = {name: q.numbers.shape[1] for name, q in whole.items()}
    config = checkpoint.config | {_KEY: {"dtype": dtype, "width": widths}}
    return replace(checkpoint, tensors=tensors, config=config)


def stored_weights(checkpoint: Checkpoint) -> tuple[str | None, dict[str, Quantised]]:
    """The dtype that a checkpoint's matrices are stored as, and they; None and none where they are real.

    Raises:
        CheckpointError: if what config.json says and the tensors do not belong together.
    """
    told = checkpoint.config.get(_KEY)
    if told is None:
        return None, {}
    dtype = told.get("dtype") if isinstance(told, dict) else None
    widths = told.get("width") if isinstance(told, dict) else None
    if dtype not in ("bfloat16", "int8", "int4") or not isinstance(widths, dict):
        raise CheckpointError(
            f"{checkpoint.path}: expected weights of bfloat16, int8 or int4 with their widths, found "
            f"{str(told)[:80]}: was it written by a later version?"
        )
    if dtype == "bfloat16" and widths:
        raise CheckpointError(
            f"{checkpoint.path}: expected no widths beside bfloat16 weights, found {len(widths)}: "
            "config and weights do not belong together"
        )
    return dtype, {name: _read(checkpoint, name, k, dtype) for name, k in widths.items()}


def as_dense(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with all of its weights as real numbers."""
    dtype, stored = stored_weights(checkpoint)
    if dtype == "bfloat16":
        whole = {n: _to(t, torch.float32) for n, t in checkpoint.tensors.items()}
        return replace(checkpoint, tensors=whole)
    if not stored:
        return checkpoint
    tensors = {n: t for n, t in checkpoint.tensors.items() if n.removesuffix(_SCALES) not in stored}
    return replace(checkpoint, tensors=tensors | {n: q.dense() for n, q in stored.items()})


def _read(checkpoint: Checkpoint, name: str, k: object, dtype: str) -> Quantised:
    numbers, scales = checkpoint.tensors.get(name), checkpoint.tensors.get(name + _SCALES)
    if (
        isinstance(k, bool)
        or not isinstance(k, int)
        or numbers is None
        or scales is None
        or not _fits(numbers, scales, k, dtype)
    ):
        raise CheckpointError(
            f"{checkpoint.path}: expected {name!r} and its scales as {dtype} of width {k}, found "
            f"something else: config and weights do not belong together"
        )
    return Quantised(numbers if dtype == "int8" else _whole(numbers, k), scales)


def _fits(numbers: Tensor, scales: Tensor, k: int, dtype: str) -> bool:
    if dtype == "int8":
        kinds, widths = (torch.int8, torch.float32), (k, 1)
    else:
        kinds, widths = (torch.uint8, torch.bfloat16), (-(-k // 2), -(-k // GROUP))
    return (
        (numbers.dtype, scales.dtype) == kinds
        and numbers.ndim == scales.ndim == 2
        and len(numbers) == len(scales)
        and (numbers.shape[1], scales.shape[1]) == widths
        and bool(scales.isfinite().all())
    )


def _to(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _halves(numbers: Tensor) -> Tensor:
    """-8 to 7 as two a byte."""
    shifted = (F.pad(numbers, (0, numbers.shape[1] % 2)) + 8).to(torch.uint8)
    return shifted[:, ::2] | (shifted[:, 1::2] << 4)


def _whole(halves: Tensor, k: int) -> Tensor:
    both = torch.stack([halves & 15, halves >> 4], -1).flatten(1)
    return both[:, :k].to(torch.int8) - 8
