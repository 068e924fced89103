"""A captioner as two ONNX files: what sees a thing, and what writes the next tokens.

The encoder takes ``images`` (B, 3, H, W) of bytes in the model's size, or ``vectors`` (B, F), or of a model with an
image model of another library what that one makes: ``regions`` (B, C, N). It gives the decoder's first states and, where
there is attention, ``memory`` (S, B, C) and ``keys`` (S, B, K). The decoder is that of `export.pairs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.engine.base import Direction
from gatewise.export import OnnxReport, _need_onnx
from gatewise.export.pairs import DecoderWriter, PairWriter, rows_of
from gatewise.export.parts import FromZeroWriter, opened, refuse, within
from gatewise.export.two_files import call, first_states, follow, write_both
from gatewise.mappings.image_encoder import ImageEncoder, places
from gatewise.mappings.vec_to_seq import VectorToSequence
from gatewise.modes import evaluating

_CASES = ((1, 1), (3, 4))
"""(things, tokens written) that are compared."""


class SeeingWriter(FromZeroWriter, PairWriter):
    """The graph that sees."""

    def __init__(self, onnx: Any, model: VectorToSequence) -> None:
        super().__init__(onnx, model, model.decoder.stack)

    def write(self, tokenizer_json: str | None = None) -> Any:
        """The whole model."""
        model: VectorToSequence = self.pair
        width = model.bridge.in_features
        if self.config.vector_size:
            given = self.take("vectors", "FLOAT", ["B", width])
            centred = self.node("Sub", given, self._store("shift", model.shift))
            vector = self.node("Div", centred, self._store("scale", model.scale))
        else:
            regions = self._regions()
            vector = self.node("ReduceMean", regions, axes=[2], keepdims=0)
            self._attended(regions, width)
        made = self.linear(vector, "bridge", model.bridge.weight, model.bridge.bias)
        if self.config.vector_to == "input":
            self._recur(self.node("Unsqueeze", made, self.numbers(0)))
        else:
            self._states(self.node("Tanh", made))
        return self.document(tokenizer_json)

    def _attended(self, regions: str, width: int) -> None:
        attention = self.pair.decoder.attention
        if attention is None:
            return
        memory = self.node("Transpose", regions, perm=[2, 0, 1])
        keys = memory
        if not isinstance(attention.keys, nn.Identity):
            keys = self._matmul(memory, "keys_weight", attention.keys.weight)
            width = rows_of(attention.keys)
        self.give(memory, "memory", ["S", "B", self.pair.bridge.in_features])
        self.give(keys, "keys", ["S", "B", width])

    def _states(self, made: str) -> None:
        names = list(self.pair.decoder.stack.directions()[0].law.states)
        layers, hidden = self.config.num_layers, self.config.hidden_size
        parts = self.node("Reshape", made, self.numbers(-1, len(names), layers, hidden))
        for k, name in enumerate(names):
            one = self.node("Gather", parts, self._store(f"state_{k}", torch.tensor(k)), axis=1)
            self.give(self.node("Transpose", one, perm=[1, 0, 2]), name, [layers, "B", hidden])

    def _state_outputs(
        self, finals: dict[str, list[str]], directions: Sequence[Direction], both: int
    ) -> None:
        for state, parts in finals.items():
            self.give(self._join(parts), state, [len(parts), "B", self.config.hidden_size])

    # --- the image encoder -------------------------------------------------------------------------

    def _regions(self) -> str:
        """(B, C, N)."""
        net = self.pair.images
        if not isinstance(net, ImageEncoder):
            return self.take("regions", "FLOAT", ["B", self.pair.bridge.in_features, "N"])
        size = self.config.image_size
        x = self.take("images", "UINT8", ["B", 3, size, size])
        x = self.node("Cast", x, to=self._onnx.TensorProto.FLOAT)
        x = self.node("Sub", self.node("Mul", x, self._number(2 / 255)), self._number(1.0))
        x = self.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = self._with_places(x, size // 2)
        x = self.node(
            "Relu", self._norm(self._conv(x, "stem", net.stem), "stem_norm", net.stem_norm)
        )
        for k, block in enumerate(net.blocks):
            x = self._block(x, f"block_{k}", block)
        return self.node("Reshape", x, self.numbers(0, net.size, -1))

    def _number(self, value: float) -> str:
        return self._store(f"number_{value}", torch.tensor(value))

    def _with_places(self, x: str, side: int) -> str:
        grid = self._store("places", places(torch.zeros(1, 3, side, side)))
        batch = self.node("Shape", x, start=0, end=1)
        shape = str(self._node("Concat", [batch, self.numbers(2, side, side)], axis=0))
        return str(self._node("Concat", [x, self.node("Expand", grid, shape)], axis=1))

    def _block(self, x: str, name: str, block: Any) -> str:
        inner = self._norm(self._conv(x, f"{name}_1", block.first), f"{name}_n1", block.first_norm)
        inner = self._conv(self.node("Relu", inner), f"{name}_2", block.second)
        inner = self._norm(inner, f"{name}_n2", block.second_norm)
        short = x
        if not isinstance(block.shortcut, nn.Identity):
            short = self._conv(x, f"{name}_s", block.shortcut)
        return self.node("Relu", self.node("Add", inner, short))

    def _conv(self, x: str, name: str, conv: Any) -> str:
        rim, stride = conv.padding[0], conv.stride[0]
        weight = self._store(f"{name}_weight", conv.weight)
        return self.node("Conv", x, weight, pads=[rim] * 4, strides=[stride] * 2)

    def _norm(self, x: str, name: str, norm: Any) -> str:
        """A group norm: as many instances as groups, then the channels' own scale and shift."""
        groups = norm.num_groups
        flat = self.node("Reshape", x, self.numbers(0, groups, -1))
        ones, zeros = (self._store(f"{n}_{groups}", f(groups)) for n, f in _FILLED.items())
        even = self.node("InstanceNormalization", flat, ones, zeros, epsilon=norm.eps)
        back = self.node("Reshape", even, self.node("Shape", x))
        scaled = self.node("Mul", back, self._channels(f"{name}_weight", norm.weight))
        return self.node("Add", scaled, self._channels(f"{name}_bias", norm.bias))

    def _channels(self, name: str, value: Tensor) -> str:
        return self._store(name, value.view(1, -1, 1, 1))


_FILLED = {"ones": torch.ones, "zeros": torch.zeros}


def export_caption_onnx(
    model: VectorToSequence,
    path: Path | str,
    *,
    tokenizer_json: str | None = None,
    check: bool = True,
) -> tuple[OnnxReport, OnnxReport]:
    """Write a captioner as two ONNX files beside `path` (`export.pairs.paths_of`).

    Args:
        model: in float32; evaluation mode is taken (no dropout).
        path: ``model.onnx`` makes model.encoder.onnx and model.decoder.onnx.
        tokenizer_json: text of tokenizer.json, stored in both files' metadata.
        check: run both in onnxruntime, where that is installed, and compare.
    Raises:
        FailedError: if onnx is not installed, or the runtime's results differ.
        EngineError: if ONNX has no operator for the cell or the options.
    """
    onnx = _need_onnx()
    refuse(model.decoder.stack, model.decoder.embedding.weight, model.config.zoneout)
    writers = (SeeingWriter(onnx, model), DecoderWriter(onnx, model, padded=False))
    return write_both(writers, path, tokenizer_json, partial(compare_captioner, model), check=check)


def compare_captioner(model: VectorToSequence, encoder: Path, decoder: Path) -> float:
    """The largest difference of states, weights and scores between the model and both files.

    Raises:
        FailedError: if it is more than 1e-3.
    """
    sessions = opened(encoder, decoder)
    return within(max(_difference(model, sessions, *case) for case in _CASES))


def _difference(model: VectorToSequence, sessions: Sequence[Any], batch: int, steps: int) -> float:
    draw = torch.Generator().manual_seed(steps)
    name, things = _things(model, batch, draw)
    tokens = torch.randint(model.config.vocab_size, (steps, batch), generator=draw)
    found = call(sessions[0], {name: things.numpy()})
    with evaluating(model), torch.inference_mode():
        seen = model.look(things)
        out = model(things, tokens)
        state = seen.state[0] if model.config.input_feeding else seen.state  # type: ignore[index]
    first = first_states(model.decoder, state, found)
    return max(first, follow(sessions[1], found, tokens, out))


def _things(model: VectorToSequence, batch: int, draw: torch.Generator) -> tuple[str, Tensor]:
    config, width = model.config, model.bridge.in_features
    if config.vector_size:
        return "vectors", torch.randn(batch, width, generator=draw)
    if config.image_model:
        return "regions", torch.randn(batch, width, 9, generator=draw)
    shape = (batch, 3, config.image_size, config.image_size)
    return "images", torch.randint(256, shape, generator=draw, dtype=torch.uint8)
