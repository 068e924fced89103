"""A model as two ONNX files, what reads and what writes: made together, run together, compared token by token."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from gatewise.errors import FailedError
from gatewise.export import OnnxReport, _has, _need_onnx
from gatewise.mappings.decoder import Decoder, Written
from gatewise.types import State, state_tensors


class Graph(Protocol):
    """What writes one of the two files."""

    inputs: list[str]
    outputs: list[str]

    def write(self, tokenizer_json: str | None = None) -> Any:
        """The whole model."""


def paths_of(path: Path | str) -> tuple[Path, Path]:
    """The two files that are made for ``model.onnx``: model.encoder.onnx and model.decoder.onnx."""
    path = Path(path)
    stem = path.name.removesuffix(path.suffix)
    return tuple(path.with_name(f"{stem}.{part}.onnx") for part in ("encoder", "decoder"))  # type: ignore[return-value]


def write_both(
    writers: tuple[Graph, Graph],
    path: Path | str,
    tokenizer_json: str | None,
    compare: Callable[[Path, Path], float],
    *,
    check: bool,
) -> tuple[OnnxReport, OnnxReport]:
    """Write both graphs beside `path`, each replaced only when both are complete and agree.

    Args:
        writers: of encoder and decoder.
        path: ``model.onnx`` makes model.encoder.onnx and model.decoder.onnx.
        tokenizer_json: text of tokenizer.json, stored in both files' metadata.
        compare: the largest difference between the model and both files.
        check: call it, where onnxruntime is installed.
    """
    onnx = _need_onnx()
    finals = paths_of(path)
    drafts = [final.with_name(f".{final.name}.{os.getpid()}") for final in finals]
    try:
        for writer, draft in zip(writers, drafts, strict=True):
            proto = writer.write(tokenizer_json)
            onnx.checker.check_model(proto, full_check=True)
            onnx.save(proto, os.fspath(draft))
        error = compare(drafts[0], drafts[1]) if check and _has("onnxruntime") else None
        for draft, final in zip(drafts, finals, strict=True):
            draft.replace(final)
    except OSError as problem:
        raise FailedError(f"cannot write {path}: {problem.strerror or problem}") from None
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)
    first, second = (
        OnnxReport(final, final.stat().st_size, error, tuple(w.inputs), tuple(w.outputs))
        for final, w in zip(finals, writers, strict=True)
    )
    return first, second


def follow(session: Any, found: dict[str, Tensor], tokens: Tensor, out: Written) -> float:
    """The largest difference between a decoder's file, token by token, and the model's own `out`.

    Args:
        session: of the file.
        found: what the encoder gave; moved on.
        tokens: that are written, (T, B).
        out: of the model, given those tokens.
    """
    assert out.logits is not None
    worst, names = 0.0, [one.name for one in session.get_inputs()]
    if "fed_in" in names:
        found["fed"] = torch.zeros(tokens.shape[1], out.output.shape[-1])
    for t in range(len(tokens)):
        known = {name: found[name.removesuffix("_in")] for name in names if name != "tokens"}
        feed = {n: v.numpy() for n, v in known.items()} | {"tokens": tokens[t : t + 1].numpy()}
        step = call(session, feed)
        found |= {n.removesuffix("_out"): v for n, v in step.items() if n.endswith("_out")}
        expected = {"logits": out.logits[t : t + 1]}
        if out.weights is not None:
            expected["weights"] = out.weights[t].unsqueeze(1)
        worst = max(worst, _largest(expected, step))
    return worst


def call(session: Any, feed: dict[str, Any]) -> dict[str, Tensor]:
    """The outputs of a file, by name."""
    names = [one.name for one in session.get_outputs()]
    values = session.run(names, feed)
    return {n: torch.from_numpy(v) for n, v in zip(names, values, strict=True)}


def first_states(decoder: Decoder, state: State, found: dict[str, Tensor]) -> float:
    """The largest difference between a decoder's first states and those that a file gave."""
    names = decoder.stack.directions()[0].law.states
    return _largest(dict(zip(names, state_tensors(state), strict=False)), found)


def _largest(expected: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    return max(float((e - found[name]).abs().max()) for name, e in expected.items())
