"""The ONNX graph of a language model, node by node: recurrent operators, decoder, metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise import __version__
from gatewise.cells.base import Law, Weights
from gatewise.engine.base import Direction
from gatewise.types import state_tensors

OPSET = 17
OPERATORS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "rnn_tanh": ("RNN", ("s",), {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", ("s",), {"activations": ["Relu"]}),
    "lstm": ("LSTM", ("i", "o", "f", "g"), {}),
    "gru": ("GRU", ("z", "r", "n"), {"linear_before_reset": 1}),
    "gru_paper": ("GRU", ("z", "r", "n"), {"linear_before_reset": 0}),
}
"""Cell -> the operator, its order of the gates, its attributes."""


class Writer:
    """Builds the graph, node by node."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self._onnx = onnx
        self._model = model
        self._prefix = ""  # of the names of weights, where there are several nets
        self._lengths = ""  # name of the columns' lengths; "": all steps are valid
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
        op, order, attributes = OPERATORS[layer[0].law.name]
        prefix, size = self._prefix + layer[0].path, layer[0].weights.hidden_size
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
            [x, w, r, b, self._lengths, *(before[s] for s in states)],
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
        weight, bias = model.decoder_weights()
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
