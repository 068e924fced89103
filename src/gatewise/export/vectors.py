"""A classifier or regressor as one ONNX file.

It takes ``tokens`` (T, B) int64, or ``values`` (T, B, channels) float32 with NaN where one is missing, and
``lengths`` (B,) int32, and gives ``scores`` (B, K): of classes before the softmax, or numbers. Scaling, marks of
missing values and the readout are in the graph; names of classes and the tokenizer in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatewise.export import OnnxReport, _need_onnx
from gatewise.export.parts import StatelessWriter, refuse, write_graph
from gatewise.mappings.seq_to_vec import SequenceToVector
from gatewise.modes import evaluating

_CASES = ((4,), (7, 3, 1), (20, 20))
"""Lengths of the batches that are compared."""


class VectorWriter(StatelessWriter):
    """The graph of a classifier or regressor."""

    def __init__(self, onnx: Any, model: SequenceToVector) -> None:
        super().__init__(onnx, model.config, model.stack)
        self.of: Any = model

    def write(self, tokenizer_json: str | None = None) -> Any:
        """The whole model."""
        config = self.config
        if config.vocab_size:
            given = self.take("tokens", "INT64", ["T", "B"])
            weight = self.of.embedding.weight
            x = self.node("Gather", self._store("embedding", weight), given)
        else:
            given = self.take("values", "FLOAT", ["T", "B", config.channels])
            x = self._scaled(given)
        self._lengths = self.take("lengths", "INT32", ["B"])
        h = self._recur(x)
        vector = getattr(self, f"_{config.readout}")(h)
        scores = self.linear(vector, "decoder", self.of.decoder.weight, self.of.decoder.bias)
        if config.target == "number":
            scores = self.node("Mul", scores, self._store("target_scale", self.of.target_scale))
            scores = self.node("Add", scores, self._store("target_shift", self.of.target_shift))
        self.give(scores, "scores", ["B", config.outputs])
        return self.document(tokenizer_json)

    def _scaled(self, x: str) -> str:
        """(x - mean) / deviation, 0 where it is missing, and the marks of that."""
        x = self.node("Sub", x, self._store("shift", self.of.shift))
        x = self.node("Div", x, self._store("scale", self.of.scale))
        missing = self.node("IsNaN", x)
        filled = self.node("Where", missing, self._store("zero_value", torch.zeros(1)), x)
        if not self.config.marks:
            return filled
        marks = self.node("Cast", missing, to=self._onnx.TensorProto.FLOAT)
        return str(self._node("Concat", [filled, marks], axis=2))

    def _wide(self) -> str:
        """Lengths as int64."""
        return self.node("Cast", self._lengths, to=self._onnx.TensorProto.INT64)

    def _valid(self, h: str) -> str:
        """(T, B) bool: the steps before each column's end."""
        zero, one = self._store("zero", torch.tensor(0)), self._store("one", torch.tensor(1))
        size = self.node("Gather", self.node("Shape", h), zero)
        steps = self.node("Unsqueeze", self.node("Range", zero, size, one), self.numbers(1))
        return self.node("Less", steps, self._wide())

    def _last(self, h: str) -> str:
        """The final states of the last layer."""
        if not self.config.bidirectional:
            return self.node("Squeeze", self.last, self.numbers(0))
        side_by_side = self.node("Transpose", self.last, perm=[1, 0, 2])  # (B, 2, H)
        return self.node("Reshape", side_by_side, self.numbers(0, 2 * self.config.hidden_size))

    def _mean(self, h: str) -> str:
        total = self.node(
            "ReduceSum", h, self.numbers(0), keepdims=0
        )  # the operators write 0 behind the end
        count = self.node("Cast", self._wide(), to=self._onnx.TensorProto.FLOAT)
        return self.node("Div", total, self.node("Unsqueeze", count, self.numbers(1)))

    def _max(self, h: str) -> str:
        valid = self.node("Unsqueeze", self._valid(h), self.numbers(2))
        lowest = self._store("lowest", torch.full((1,), -1e30))
        return self.node("ReduceMax", self.node("Where", valid, h, lowest), axes=[0], keepdims=0)

    def _attention(self, h: str) -> str:
        inner, score = self.of.readout.inner, self.of.readout.score
        asked = self.node("Tanh", self.linear(h, "inner", inner.weight, inner.bias))
        asked = self._matmul(asked, "score", score.weight)  # (T, B, 1)
        valid = self.node("Unsqueeze", self._valid(h), self.numbers(2))
        lowest = self._store("lowest", torch.full((1,), -1e30))
        weights = self.node("Softmax", self.node("Where", valid, asked, lowest), axis=0)
        return self.node("ReduceSum", self.node("Mul", weights, h), self.numbers(0), keepdims=0)


def export_vector_onnx(
    model: SequenceToVector,
    path: Path | str,
    *,
    tokenizer_json: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    check: bool = True,
) -> OnnxReport:
    """Write a classifier or regressor as an ONNX file.

    Args:
        model: in float32; evaluation mode is taken.
        path: of the file; replaced only when the new one is complete.
        tokenizer_json: text of tokenizer.json, stored in the metadata.
        metadata: more to store there as JSON: how it reads.
        check: run it in onnxruntime, where that is installed, and compare.
    Raises:
        FailedError: if onnx is not installed, or the runtime's results differ.
        EngineError: if ONNX has no operator for the cell or the options.
    """
    onnx = _need_onnx()
    refuse(model.stack, model.decoder.weight, model.config.zoneout)
    writer = VectorWriter(onnx, model)
    proto = writer.write(tokenizer_json)
    if metadata is not None:
        entry = proto.metadata_props.add()
        entry.key, entry.value = "gatewise.reader", json.dumps(dict(metadata))
    compare = (lambda session: largest_difference(model, session)) if check else None
    return write_graph(proto, writer, path, compare)


def largest_difference(model: SequenceToVector, session: Any) -> float:
    """Between a runtime's session and the model, of scores over several sizes, relative to the largest."""
    worst = 0.0
    for lengths in _CASES:
        x, sizes = _drawn(model, lengths), torch.tensor(lengths)
        names = [one.name for one in session.get_inputs()]
        feed = dict(zip(names, (x.numpy(), sizes.int().numpy()), strict=True))
        found = torch.from_numpy(session.run(None, feed)[0])
        with evaluating(model), torch.inference_mode():
            expected = model(x, sizes).scores
        gap = (found - expected).abs().max() / expected.abs().max().clamp(min=1)
        worst = max(worst, float(gap))
    return worst


def _drawn(model: SequenceToVector, lengths: Sequence[int]) -> Tensor:
    """A batch of that many steps."""
    draw = torch.Generator().manual_seed(len(lengths))
    shape = (max(lengths), len(lengths))
    if model.config.vocab_size:
        return torch.randint(model.config.vocab_size, shape, generator=draw)
    x = torch.randn(*shape, model.config.channels, generator=draw) * model.scale + model.shift
    if model.config.marks:
        x[1, 0, 0] = torch.nan
    return x
