"""An encoder-decoder as two ONNX files: what reads a source, and what writes the next tokens.

The encoder takes ``tokens`` (S, B) int64 and ``lengths`` (B,) int32, and gives the decoder's first states
(``h``, ``c``, each (L, B, H)) and, where the model has them, ``memory`` (S, B, H), ``keys`` (S, B, K), ``mask``
(B, S) and ``vector`` (B, H). The decoder takes those beside ``tokens`` (T, B) and gives ``logits`` (T, B, V),
``weights`` (B, T, S) and the next states, so a runtime writes token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gatewise.attention import Attention
from gatewise.engine.base import Direction
from gatewise.export import OnnxReport, _need_onnx
from gatewise.export.parts import FromZeroWriter, PartWriter, opened, refuse, within
from gatewise.export.two_files import call, first_states, follow, write_both
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoder
from gatewise.modes import evaluating
from gatewise.stack import Stack

_CASES = (([4], 1), ([7, 3, 1], 3), ([20, 20], 2))
"""(lengths of the sources, tokens written) that are compared."""


class PairWriter(PartWriter):
    """What both graphs have in common: the model around them."""

    def __init__(self, onnx: Any, model: Any, stack: Stack) -> None:
        super().__init__(onnx, model.config, stack)
        self.pair = model


class EncoderWriter(FromZeroWriter, PairWriter):
    """The graph that reads a source."""

    def __init__(self, onnx: Any, model: EncoderDecoder) -> None:
        super().__init__(onnx, model, model.encoder)

    def write(self, tokenizer_json: str | None = None) -> Any:
        """The whole model."""
        tokens = self.take("tokens", "INT64", ["S", "B"])
        self._lengths = self.take("lengths", "INT32", ["B"])
        read = tokens
        if self.config.reverse_source:
            wide = self.node("Cast", self._lengths, to=self._onnx.TensorProto.INT64)
            read = self.node("ReverseSequence", tokens, wide, batch_axis=1, time_axis=0)
        x = self.node("Gather", self._store("embedding", self.pair.embedding.weight), read)
        h = self._recur(x)
        attention, hidden = self.pair.decoder.attention, self.config.hidden_size
        if attention is None:
            return self.document(tokenizer_json)
        self.give(h, "memory", ["S", "B", hidden])
        width = hidden
        if not isinstance(attention.keys, torch.nn.Identity):
            width = rows_of(attention.keys)
            h = self._matmul(h, "keys_weight", attention.keys.weight)
        self.give(h, "keys", ["S", "B", width])
        self._mask(tokens)
        return self.document(tokenizer_json)

    def _mask(self, tokens: str) -> None:
        """0 where a column has a step, -1e30 in its padding: (B, S)."""
        size = self.node("Gather", self.node("Shape", tokens), self._scalar("zero", 0))
        steps = self.node("Range", self._scalar("zero", 0), size, self._scalar("one", 1))
        wide = self.node("Cast", self._lengths, to=self._onnx.TensorProto.INT64)
        valid = self.node("Less", steps, self.node("Unsqueeze", wide, self.numbers(1)))
        added = (
            self._store("nothing", torch.zeros(1)),
            self._store("never", torch.full((1,), -1e30)),
        )
        self.give(self.node("Where", valid, *added), "mask", ["B", "S"])

    def _scalar(self, name: str, value: int) -> str:
        return self._store(name, torch.tensor(value))

    def _state_outputs(
        self, finals: dict[str, list[str]], directions: Sequence[Direction], both: int
    ) -> None:
        hidden = self.config.hidden_size
        for k, (state, parts) in enumerate(finals.items()):
            if both == 2:
                parts = [self._side_by_side(part) for part in parts]
            whole = self._join(parts)
            if k == 0 and self.config.feed_vector:
                last = self.node("Gather", parts[-1], self._scalar("zero", 0), axis=0)
                self.give(last, "vector", ["B", hidden])
            if len(self.pair.bridge):
                bridge: Any = self.pair.bridge[k]
                whole = self.linear(whole, f"bridge_{k}", bridge.weight, bridge.bias)
                whole = self.node("Tanh", whole)
            self.give(whole, state, [len(parts), "B", hidden])

    def _side_by_side(self, part: str) -> str:
        """(2, B, H / 2) as (1, B, H)."""
        turned = self.node("Transpose", part, perm=[1, 0, 2])
        return self.node("Reshape", turned, self.numbers(1, -1, self.config.hidden_size))


class DecoderWriter(PairWriter):
    """The graph that writes.

    Args:
        onnx: the package.
        model: with a `decoder`.
        padded: whether the memory has padding, and so a mask.
    """

    def __init__(self, onnx: Any, model: Any, *, padded: bool = True) -> None:
        super().__init__(onnx, model, model.decoder.stack)
        self._padded = padded

    def write(self, tokenizer_json: str | None = None) -> Any:
        """The whole model."""
        decoder, config = self.pair.decoder, self.config
        hidden = config.hidden_size
        steps: int | str = 1 if config.input_feeding else "T"
        tokens = self.take("tokens", "INT64", [steps, "B"])
        parts = [self.node("Gather", self._store("embedding", decoder.embedding.weight), tokens)]
        if config.input_feeding:
            fed = self.take("fed_in", "FLOAT", ["B", hidden])
            parts.append(self.node("Unsqueeze", fed, self.numbers(0)))
        if decoder.extra:
            parts.append(self._repeated(self.take("vector", "FLOAT", ["B", decoder.extra]), tokens))
        x = parts[0] if len(parts) == 1 else str(self._node("Concat", parts, axis=2))
        output = self._recur(x)
        if decoder.attention is not None:
            output = self._attend(output, decoder.attention)
        if config.input_feeding:
            last = self.node("Squeeze", output, self.numbers(0))
            self.give(last, "fed_out", ["B", hidden])
        if decoder.projection is not None:
            output = self._matmul(output, "projection", decoder.projection.weight)
        weight, bias = decoder.decoder_weights()
        logits = self.linear(output, "decoder", weight, bias)
        self.give(logits, "logits", [steps, "B", decoder.vocab_size])
        return self.document(tokenizer_json)

    def _repeated(self, vector: str, tokens: str) -> str:
        """(B, H) beside every token: (T, B, H)."""
        shape = self.node("Shape", tokens)
        size = self.numbers(self.pair.decoder.extra)
        return self.node("Expand", vector, str(self._node("Concat", [shape, size], axis=0)))

    def _attend(self, h: str, attention: Attention) -> str:
        combine = self.pair.decoder.combine
        assert combine is not None
        size = combine.weight.shape[1] - self.config.hidden_size
        width = size if attention.kind == "dot" else rows_of(attention.keys)
        memory = self.take("memory", "FLOAT", ["S", "B", size])
        keys = self.take("keys", "FLOAT", ["S", "B", width])
        scores = self._scores(self.node("Transpose", h, perm=[1, 0, 2]), keys, attention)
        if self._padded:
            mask = self.take("mask", "FLOAT", ["B", "S"])
            scores = self.node("Add", scores, self.node("Unsqueeze", mask, self.numbers(1)))
        weights = self.node("Softmax", scores, axis=-1)
        self.give(weights, "weights", ["B", 1 if self.config.input_feeding else "T", "S"])
        values = self.node("Transpose", memory, perm=[1, 0, 2])
        context = self.node("Transpose", self.node("MatMul", weights, values), perm=[1, 0, 2])
        both = str(self._node("Concat", [context, h], axis=2))
        return self.node("Tanh", self._matmul(both, "combine", combine.weight))

    def _scores(self, query: str, keys: str, attention: Attention) -> str:
        """(B, T, S) of the queries (B, T, H)."""
        if attention.query is None or attention.score is None:
            found = self.node("MatMul", query, self.node("Transpose", keys, perm=[1, 2, 0]))
            return self.node("Mul", found, self._store("scale", torch.tensor(attention._scale)))
        asked = self.linear(query, "query", attention.query.weight, attention.query.bias)
        asked = self.node("Unsqueeze", asked, self.numbers(2))  # (B, T, 1, A)
        known = self.node("Transpose", keys, perm=[1, 0, 2])
        known = self.node("Unsqueeze", known, self.numbers(1))  # (B, 1, S, A)
        both = self.node("Tanh", self.node("Add", asked, known))
        found = self._matmul(both, "score", attention.score.weight)
        return self.node("Squeeze", found, self.numbers(-1))


def rows_of(linear: Any) -> int:
    """Outputs of a linear map."""
    return int(linear.weight.shape[0])


def export_pair_onnx(
    model: EncoderDecoder,
    path: Path | str,
    *,
    tokenizer_json: str | None = None,
    check: bool = True,
) -> tuple[OnnxReport, OnnxReport]:
    """Write an encoder-decoder as two ONNX files beside `path` (`paths_of`).

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
    refuse(model.encoder, model.embedding.weight, model.config.zoneout)
    writers = (EncoderWriter(onnx, model), DecoderWriter(onnx, model))
    return write_both(writers, path, tokenizer_json, partial(compare_pair, model), check=check)


def compare_pair(model: EncoderDecoder, encoder: Path, decoder: Path) -> float:
    """The largest difference of states, weights and scores between the model and both files.

    Raises:
        FailedError: if it is more than 1e-3.
    """
    sessions = opened(encoder, decoder)
    return within(max(_difference(model, sessions, *case) for case in _CASES))


def _difference(
    model: EncoderDecoder, sessions: Sequence[Any], lengths: list[int], steps: int
) -> float:
    """Of one batch, written token by token."""
    draw = torch.Generator().manual_seed(steps)
    sizes, batch = torch.tensor(lengths), len(lengths)
    source = torch.randint(model.config.source_size, (max(lengths), batch), generator=draw)
    tokens = torch.randint(model.config.target_size, (steps, batch), generator=draw)
    feed = {"tokens": source.numpy(), "lengths": sizes.int().numpy()}
    found = call(sessions[0], feed)
    with evaluating(model), torch.inference_mode():
        read = model.encode(source, sizes)
        out = model.write(tokens, read)
    return max(
        first_states(model.decoder, read.state, found), follow(sessions[1], found, tokens, out)
    )
