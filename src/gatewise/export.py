"""A language model as ONNX, with real RNN, LSTM and GRU operators and free batch and time.

torch's own exporters unroll the loop or freeze its shape; here the operators are written one by one. The
model takes tokens (T, B) and the states, and gives the scores (T, B, V) and the next states, so a
runtime can stream. It needs the `onnx` package; with `onnxruntime` the file is run and compared.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise import __version__
from gatewise.cells.base import Law, Weights
from gatewise.engine.base import Direction
from gatewise.errors import EngineError, FailedError, OptionError
from gatewise.mappings import LanguageModel
from gatewise.types import State, state_tensors

OPSET = 17
_OPERATORS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "rnn_tanh": ("RNN", ("s",), {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", ("s",), {"activations": ["Relu"]}),
    "lstm": ("LSTM", ("i", "o", "f", "g"), {}),
    "gru": ("GRU", ("z", "r", "n"), {"linear_before_reset": 1}),
    "gru_paper": ("GRU", ("z", "r", "n"), {"linear_before_reset": 0}),
}
"""Cell -> the operator, its order of the gates, its attributes."""


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
    writer = _Writer(onnx, model)
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


def compare(model: LanguageModel, path: Path | str, tolerance: float = 1e-3) -> float:
    """The largest difference between the model and the file run by onnxruntime.

    Args:
        model: the original.
        path: of the ONNX file.
        tolerance: largest difference accepted.
    Raises:
        FailedError: if it is exceeded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    worst = 0.0
    for steps, batch in ((1, 1), (7, 3), (20, 2)):
        worst = max(worst, _difference(model, session, steps, batch))
    if not worst <= tolerance:
        raise FailedError(
            f"the exported model differs by {worst:.2g} from the original (expected at most "
            f"{tolerance:.0e}): please report it with the run's config.json"
        )
    return worst


def _difference(model: LanguageModel, session: Any, steps: int, batch: int) -> float:
    generator = torch.Generator().manual_seed(steps)
    tokens = torch.randint(model.vocab_size, (steps, batch), generator=generator)
    given = [
        torch.rand(s.shape, generator=generator) - 0.5
        for s in state_tensors(model.zero_state(batch))
    ]
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        out = model(tokens, _state_like(model, batch, given))
    model.train(was_training)
    assert out.logits is not None
    expected = [out.logits, *state_tensors(out.state)]
    names = [i.name for i in session.get_inputs()]
    feed = dict(zip(names, [tokens.numpy(), *(g.numpy() for g in given)], strict=True))
    found = session.run(None, feed)
    pairs = zip(expected, found, strict=True)
    return max(float((e - torch.from_numpy(f)).abs().max()) for e, f in pairs)


def _state_like(model: LanguageModel, batch: int, flat: Sequence[Tensor]) -> State:
    """The tensors `flat` in the form of the model's state."""
    rest = list(flat)

    def fill(state: State) -> State:
        if isinstance(state, Tensor):
            return rest.pop(0)
        return None if state is None else tuple(fill(part) for part in state)

    return fill(model.zero_state(batch))


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
    if law.name not in _OPERATORS:
        known = ", ".join(_OPERATORS)
        raise EngineError(f"ONNX has no operator for the cell {law.name}: expected one of {known}")
    if model.config.proj_size:
        raise EngineError("ONNX's LSTM has no projection: train with --proj-size 0 to export")
    if model.config.zoneout:
        raise EngineError("ONNX's operators have no zoneout: train without it to export")
    if model.embedding.weight.dtype != torch.float32:
        raise OptionError(
            f"expected a model in float32, found {model.embedding.weight.dtype}: use model.float()"
        )


class _Writer:
    """Builds the graph, node by node."""

    def __init__(self, onnx: Any, model: LanguageModel) -> None:
        self._onnx = onnx
        self._model = model
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._stored: dict[str, None] = {}
        self.inputs: list[str] = ["tokens"]
        self.outputs: list[str] = ["logits"]
        self._values_in: list[Any] = []
        self._values_out: list[Any] = []

    def model(self, tokenizer_json: str | None) -> Any:
        """The whole ONNX model."""
        helper, types = self._onnx.helper, self._onnx.TensorProto
        tokens = helper.make_tensor_value_info("tokens", types.INT64, ["T", "B"])
        self._values_in.append(tokens)
        size = self._model.vocab_size
        logits = helper.make_tensor_value_info("logits", types.FLOAT, ["T", "B", size])
        self._values_out.append(logits)
        x = self._node("Gather", [self._store("embedding", self._model.embedding.weight), "tokens"])
        self._rename(self._decode(self._recur(x)), "logits")
        graph = helper.make_graph(
            self._nodes, "gatewise", self._values_in, self._values_out, self._initializers
        )
        opset = [helper.make_opsetid("", OPSET)]
        proto = helper.make_model(
            graph, opset_imports=opset, producer_name="gatewise", producer_version=__version__
        )
        proto.ir_version = 9  # the newest that runtimes of the last years read
        helper.set_model_props(proto, self._metadata(tokenizer_json))
        return proto

    def _metadata(self, tokenizer_json: str | None) -> dict[str, str]:
        import json

        properties = {"gatewise.config": json.dumps(self._model.config.to_dict())}
        if self._model.config.learned_state:
            start = [s[..., 0, :].tolist() for s in state_tensors(self._model.zero_state(1))]
            properties["gatewise.start"] = json.dumps(start)
        if tokenizer_json is not None:
            properties["gatewise.tokenizer"] = tokenizer_json
        return properties

    # --- nodes -----------------------------------------------------------------------------------

    def _node(self, op: str, inputs: Sequence[str], count: int = 1, **attributes: Any) -> Any:
        names = [f"{op.lower()}_{len(self._nodes)}_{k}" for k in range(count)]
        self._nodes.append(self._onnx.helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if count == 1 else names

    def _rename(self, name: str, new: str) -> None:
        self._nodes.append(self._onnx.helper.make_node("Identity", [name], [new]))

    def _store(self, name: str, value: Tensor | list[int]) -> str:
        """An initializer, stored once."""
        if name not in self._stored:
            self._stored[name] = None
            array = (
                value.detach().cpu().contiguous().numpy()
                if isinstance(value, Tensor)
                else np.array(value, dtype=np.int64)
            )
            self._initializers.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    # --- the stack -------------------------------------------------------------------------------

    def _recur(self, x: str) -> str:
        directions = self._model.stack.directions()
        states = list(directions[0].law.states)
        both = 2 if self._model.stack.bidirectional else 1
        given = self._state_inputs(directions, states)
        finals: dict[str, list[str]] = {s: [] for s in states}
        for first in range(0, len(directions), both):
            layer = directions[first : first + both]
            before = {s: self._join(given[s][first : first + both]) for s in states}
            x, after = self._layer(x, layer, before)
            for s in states:
                finals[s].append(after[s])
        self._state_outputs(finals, directions, both)
        return x

    def _layer(
        self, x: str, layer: Sequence[Direction], before: dict[str, str]
    ) -> tuple[str, dict[str, str]]:
        op, order, attributes = _OPERATORS[layer[0].law.name]
        prefix, size = layer[0].path, layer[0].weights.hidden_size
        w, r, b = (
            self._store(f"{prefix}.{kind}", torch.stack(parts))
            for kind, parts in zip(
                "WRB",
                zip(*(_operator_weights(d.law, d.weights, order) for d in layer), strict=True),
                strict=True,
            )
        )
        if "activations" in attributes:
            attributes = {"activations": attributes["activations"] * len(layer)}
        states = list(before)
        names = self._node(
            op,
            [x, w, r, b, "", *(before[s] for s in states)],
            1 + len(states),
            hidden_size=size,
            direction="bidirectional" if len(layer) == 2 else "forward",
            **attributes,
        )
        y = self._node("Transpose", [names[0]], perm=[0, 2, 1, 3])
        shape = self._store(f"shape_{len(layer) * size}", [0, 0, len(layer) * size])
        return self._node("Reshape", [y, shape]), dict(zip(states, names[1:], strict=True))

    def _join(self, parts: list[str]) -> str:
        return parts[0] if len(parts) == 1 else str(self._node("Concat", parts, axis=0))

    def _state_inputs(
        self, directions: Sequence[Direction], states: Sequence[str]
    ) -> dict[str, list[str]]:
        """State -> for each direction the name of its (1, B, H) part."""
        if not self._model.stack.uniform:
            return self._single_inputs(directions, states)
        size, count = directions[0].weights.hidden_size, len(directions)
        given = {}
        for s in states:
            name = self._declare(f"{s}_in", [count, "B", size])
            if count == 1:
                given[s] = [name]
                continue
            sizes = self._store(f"ones_{count}", [1] * count)
            given[s] = list(self._node("Split", [name, sizes], count, axis=0))
        return given

    def _single_inputs(
        self, directions: Sequence[Direction], states: Sequence[str]
    ) -> dict[str, list[str]]:
        given: dict[str, list[str]] = {s: [] for s in states}
        for k, d in enumerate(directions):
            for s in states:
                flat = self._declare(f"{s}_in_{k}", ["B", d.weights.hidden_size])
                given[s].append(self._node("Unsqueeze", [flat, self._store("axis_0", [0])]))
        return given

    def _declare(self, name: str, shape: list[int | str]) -> str:
        kind = self._onnx.TensorProto.FLOAT
        self.inputs.append(name)
        self._values_in.append(self._onnx.helper.make_tensor_value_info(name, kind, shape))
        return name

    def _state_outputs(
        self, finals: dict[str, list[str]], directions: Sequence[Direction], both: int
    ) -> None:
        kind = self._onnx.TensorProto.FLOAT
        info = self._onnx.helper.make_tensor_value_info
        if self._model.stack.uniform:
            for s, parts in finals.items():
                self._rename(self._join(parts), f"{s}_out")
                self.outputs.append(f"{s}_out")
                shape = [len(directions), "B", directions[0].weights.hidden_size]
                self._values_out.append(info(f"{s}_out", kind, shape))
            return
        for k, d in enumerate(directions):
            for s, parts in finals.items():
                part = parts[k // both]
                index = self._store(f"index_{k % both}", torch.tensor(k % both))
                name = f"{s}_out_{k}"
                self._rename(self._node("Gather", [part, index], axis=0), name)
                self.outputs.append(name)
                self._values_out.append(info(name, kind, ["B", d.weights.hidden_size]))

    # --- the decoder -----------------------------------------------------------------------------

    def _decode(self, h: str) -> str:
        model = self._model
        if model.softmax is not None:
            return self._adaptive(h)
        if model.projection is not None:
            h = self._matmul(h, "projection", model.projection.weight)
        weight, bias = model._weights()
        if weight is model.embedding.weight:
            turned = self._node("Transpose", ["embedding"], perm=[1, 0])
            scores = self._node("MatMul", [h, turned])
        else:
            scores = self._matmul(h, "decoder", weight)
        if bias is not None:
            scores = self._node("Add", [scores, self._store("decoder_bias", bias)])
        operator = {"linear": None, "tanh": "Tanh", "sigmoid": "Sigmoid", "relu": "Relu"}
        last = operator[model.config.decoder]
        return scores if last is None else str(self._node(last, [scores]))

    def _matmul(self, x: str, name: str, weight: Tensor) -> str:
        return str(self._node("MatMul", [x, self._store(name, weight.t())]))

    def _adaptive(self, h: str) -> str:
        """Log-probabilities of head and clusters, put back in the order of the classes."""
        softmax = self._model.softmax
        assert softmax is not None
        inner = softmax.softmax
        head = self._matmul(h, "head", inner.head.weight)
        if inner.head.bias is not None:
            head = self._node("Add", [head, self._store("head_bias", inner.head.bias)])
        head = self._node("LogSoftmax", [head], axis=-1)
        short = inner.shortlist_size
        parts = [self._slice(head, 0, short)]
        for k, tail in enumerate(inner.tail):
            scores = h
            for number, weight in enumerate(tail.parameters()):
                scores = self._matmul(scores, f"tail_{k}_{number}", weight)
            scores = self._node("LogSoftmax", [scores], axis=-1)
            gate = self._slice(head, short + k, short + k + 1)
            parts.append(self._node("Add", [scores, gate]))
        ranked = self._node("Concat", parts, axis=-1)
        return str(self._node("Gather", [ranked, self._store("rank", softmax.rank)], axis=2))

    def _slice(self, x: str, start: int, stop: int) -> str:
        bounds = [self._store(f"at_{n}", [n]) for n in (start, stop)]
        return str(self._node("Slice", [x, *bounds, self._store("axis_2", [2])]))


def _operator_weights(
    law: Law, weights: Weights, order: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """W (G H, I), R (G H, H) and B (2 G H) with the gates in the operator's order."""
    size = weights.hidden_size
    ih = dict(zip(law.pre, torch.split(weights.ih, size), strict=True))
    hh = dict(zip(law.recurrent_blocks, torch.split(weights.hh, size), strict=True))
    if "weight_hn" in weights.params:
        hh["n"] = weights.params["weight_hn"]
    zero = weights.ih.new_zeros(size)
    b_ih, b_hh = dict.fromkeys(law.pre, zero), dict.fromkeys(law.pre, zero)
    if weights.b_ih is not None and weights.b_hh is not None:
        b_ih = dict(zip(law.pre, torch.split(weights.b_ih, size), strict=True))
        b_hh |= dict(zip(law.recurrent_blocks, torch.split(weights.b_hh, size), strict=True))
    return (
        torch.cat([ih[g] for g in order]),
        torch.cat([hh[g] for g in order]),
        torch.cat([b_ih[g] for g in order] + [b_hh[g] for g in order]),
    )
