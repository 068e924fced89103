"""What the graphs of models with several nets have in common: declared values, nodes, one file of them, checked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatewise import __version__
from gatewise.engine.base import Direction
from gatewise.errors import EngineError, FailedError, OptionError
from gatewise.export import OnnxReport, _has, _need_onnx
from gatewise.export.writer import OPERATORS, OPSET, Writer
from gatewise.stack import Stack

TOLERANCE = 1e-3
"""Largest difference between a model and its graph that is accepted."""


class Part:
    """A stack as `Writer` looks at a model."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack


class PartWriter(Writer):
    """Builds a graph of declared inputs and outputs.

    Args:
        onnx: the package.
        config: of the model, for the metadata.
        stack: the net that `_recur` writes.
    """

    def __init__(self, onnx: Any, config: Any, stack: Stack) -> None:
        super().__init__(onnx, Part(stack))
        self.inputs, self.outputs = [], []
        self.config = config

    def write(self, tokenizer_json: str | None = None) -> Any:
        """The whole model."""
        raise NotImplementedError

    def take(self, name: str, kind: str, shape: list[int | str]) -> str:
        """An input of the graph."""
        element = getattr(self._onnx.TensorProto, kind)
        self.inputs.append(name)
        self._values_in.append(self._onnx.helper.make_tensor_value_info(name, element, shape))
        return name

    def give(self, value: str, name: str, shape: list[int | str]) -> None:
        """An output of the graph."""
        self._rename(value, name)
        self.outputs.append(name)
        element = self._onnx.TensorProto.FLOAT
        self._values_out.append(self._onnx.helper.make_tensor_value_info(name, element, shape))

    def linear(self, x: str, name: str, weight: Tensor, bias: Tensor | None) -> str:
        """x W^T + b."""
        found = self._matmul(x, name, weight)
        return found if bias is None else self.node("Add", found, self._store(f"{name}_bias", bias))

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node with one result."""
        return str(self._node(op, inputs, **attributes))

    def numbers(self, *values: int) -> str:
        """A constant row of whole numbers."""
        return self._store("_".join(["row", *map(str, values)]), list(values))

    def document(self, tokenizer_json: str | None) -> Any:
        """The whole ONNX model of the nodes so far."""
        helper = self._onnx.helper
        graph = helper.make_graph(
            self._nodes, "gatewise", self._values_in, self._values_out, self._initializers
        )
        opset = [helper.make_opsetid("", OPSET)]
        proto = helper.make_model(
            graph, opset_imports=opset, producer_name="gatewise", producer_version=__version__
        )
        proto.ir_version = 9
        properties = {"gatewise.config": json.dumps(self.config.to_dict())}
        if tokenizer_json is not None:
            properties["gatewise.tokenizer"] = tokenizer_json
        helper.set_model_props(proto, properties)
        return proto


class FromZeroWriter(PartWriter):
    """A graph whose nets begin with zeros."""

    def _state_inputs(
        self, directions: Sequence[Direction], states: Sequence[str]
    ) -> dict[str, list[str]]:
        return {s: [""] * len(directions) for s in states}

    def _join(self, parts: list[str]) -> str:
        return super()._join(parts) if any(parts) else ""


class StatelessWriter(FromZeroWriter):
    """A graph whose nets begin with zeros and do not say where they end.

    Attributes:
        last: the last h of the last layer of the net that was written last, (directions, B, H).
    """

    last = ""

    def _state_outputs(
        self, finals: dict[str, list[str]], directions: Sequence[Direction], both: int
    ) -> None:
        self.last = next(iter(finals.values()))[-1]


def refuse(stack: Stack, weight: Tensor, zoneout: float) -> None:
    """Raise if ONNX has no operator for what a net does.

    Raises:
        EngineError: another cell, or zoneout.
        OptionError: another dtype than float32.
    """
    law = stack.directions()[0].law
    if law.name not in OPERATORS:
        known = ", ".join(OPERATORS)
        raise EngineError(f"ONNX has no operator for the cell {law.name}: expected one of {known}")
    if zoneout:
        raise EngineError("ONNX's operators have no zoneout: train without it to export")
    if weight.dtype != torch.float32:
        raise OptionError(f"expected a model in float32, found {weight.dtype}: use model.float()")


def write_graph(
    proto: Any,
    writer: PartWriter,
    path: Path | str,
    compare: Callable[[Any], float] | None,
) -> OnnxReport:
    """Write a graph as one file, run by onnxruntime where that is installed.

    Args:
        proto: the ONNX model.
        writer: that made it.
        path: of the file; replaced only when the new one is complete.
        compare: the largest difference of a runtime's session from the model; None: nothing is run.
    Raises:
        FailedError: if it cannot be written, or the results differ.
    """
    onnx = _need_onnx()
    onnx.checker.check_model(proto, full_check=True)
    final = Path(path)
    draft = final.with_name(f".{final.name}.{os.getpid()}")
    try:
        onnx.save(proto, os.fspath(draft))
        error = within(compare(*opened(draft))) if compare and _has("onnxruntime") else None
        draft.replace(final)
    except OSError as problem:
        raise FailedError(f"cannot write {path}: {problem.strerror or problem}") from None
    finally:
        draft.unlink(missing_ok=True)
    size = final.stat().st_size
    return OnnxReport(final, size, error, tuple(writer.inputs), tuple(writer.outputs))


def opened(*paths: Path) -> list[Any]:
    """Files in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return [
        onnxruntime.InferenceSession(os.fspath(p), options, providers=["CPUExecutionProvider"])
        for p in paths
    ]


def within(worst: float) -> float:
    """A difference that may be.

    Raises:
        FailedError: if it is more than 1e-3.
    """
    if not worst <= TOLERANCE:
        raise FailedError(
            f"the exported model differs by {worst:.2g} from the original (expected at most "
            f"{TOLERANCE:.0e}): please report it with the run's config.json"
        )
    return worst
