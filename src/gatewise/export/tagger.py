"""A tagger as ONNX: words, and their characters, to the scores of tags.

It takes ``words`` and ``places`` (T, B), ``characters`` (C, W) and ``sizes`` (W,) of the W distinct words, and gives
``scores`` (T, B, K). A net of two directions also takes ``lengths`` (B,); one of one direction takes and gives its
states, so a runtime can stream. Words, characters and tags are in the metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatewise.engine.base import Direction
from gatewise.export import OnnxReport, _need_onnx
from gatewise.export.check import state_like
from gatewise.export.parts import Part, PartWriter, StatelessWriter, refuse, write_graph
from gatewise.mappings.tagger import Sentences, Tagger
from gatewise.modes import evaluating
from gatewise.types import State, state_tensors

_CASES = (([4], 3), ([7, 3, 1], 5), ([20, 20], 9))
"""(lengths of the sentences, longest word) that are compared."""


class TaggerWriter(StatelessWriter):
    """The graph of a tagger."""

    def __init__(self, onnx: Any, model: Tagger) -> None:
        super().__init__(onnx, model.config, model.stack)
        self._tagger = model
        self._streams = False

    def write(self, tokenizer_json: str | None = None) -> Any:
        """The whole model."""
        model, parts = self._tagger, []
        if model.embedding is not None:
            words = self.take("words", "INT64", ["T", "B"])
            parts.append(
                self.node("Gather", self._store("embedding", model.embedding.weight), words)
            )
        if model.characters is not None:
            parts.append(
                self.node("Gather", self._spell(), self.take("places", "INT64", ["T", "B"]))
            )
        self._streams = not self.config.bidirectional
        self._lengths = "" if self._streams else self.take("lengths", "INT32", ["B"])
        self._model, self._prefix = Part(model.stack), ""
        x = parts[0] if len(parts) == 1 else str(self._node("Concat", parts, axis=2))
        h = self._recur(x)
        scores = self.linear(h, "decoder", model.decoder.weight, model.decoder.bias)
        self.give(scores, "scores", ["T", "B", self.config.tags])
        return self.document(tokenizer_json)

    def _spell(self) -> str:
        """What each distinct word looks like, (W, 2 C)."""
        model = self._tagger
        assert model.characters is not None and model.character_embedding is not None
        letters = self.take("characters", "INT64", ["C", "W"])
        self._lengths = self.take("sizes", "INT32", ["W"])
        self._model, self._prefix = Part(model.characters), "characters."
        weight = model.character_embedding.weight
        self._recur(self.node("Gather", self._store("character_embedding", weight), letters))
        turned = self.node("Transpose", self.last, perm=[1, 0, 2])
        return self.node("Reshape", turned, self.numbers(-1, 2 * self.config.character_hidden))

    def _state_inputs(
        self, directions: Sequence[Direction], states: Sequence[str]
    ) -> dict[str, list[str]]:
        if self._streams:
            return PartWriter._state_inputs(self, directions, states)
        return super()._state_inputs(directions, states)

    def _state_outputs(
        self, finals: dict[str, list[str]], directions: Sequence[Direction], both: int
    ) -> None:
        if self._streams:
            PartWriter._state_outputs(self, finals, directions, both)
        else:
            super()._state_outputs(finals, directions, both)


def export_tagger_onnx(
    model: Tagger, path: Path | str, *, tokenizer_json: str | None = None, check: bool = True
) -> OnnxReport:
    """Write a tagger as an ONNX file.

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
    refuse(model.stack, model.decoder.weight, model.config.zoneout)
    writer = TaggerWriter(onnx, model)
    proto = writer.write(tokenizer_json)
    compare = (lambda session: largest_difference(model, session)) if check else None
    return write_graph(proto, writer, path, compare)


def largest_difference(model: Tagger, session: Any) -> float:
    """Between a runtime's session and the model, of the scores of words, over several sizes."""
    worst = 0.0
    for lengths, longest in _CASES:
        of = _sentences(model, lengths, longest)
        state, given = _state(model, len(lengths), longest)
        with evaluating(model), torch.inference_mode():
            scores = model(of if not given else _without_lengths(of), state).scores
        feed = {
            "words": of.words,
            "places": of.places,
            "characters": of.characters,
            "sizes": of.sizes.int(),
            "lengths": torch.tensor(lengths).int(),
        } | given
        names = [one.name for one in session.get_inputs()]
        (found,) = session.run(["scores"], {name: feed[name].numpy() for name in names})
        for column, size in enumerate(lengths):
            size = max(lengths) if given else size
            error = scores[:size, column] - torch.from_numpy(found[:size, column])
            worst = max(worst, float(error.abs().max()))
    return worst


def _sentences(model: Tagger, lengths: Sequence[int], longest: int) -> Sentences:
    draw = torch.Generator().manual_seed(longest)
    config, shape = model.config, (max(lengths), len(lengths))
    count = 6
    return Sentences(
        torch.randint(config.words, shape, generator=draw),
        torch.randint(count, shape, generator=draw),
        torch.randint(config.characters, (longest, count), generator=draw),
        torch.cat(
            (
                torch.tensor([longest, 1]),
                torch.randint(1, longest + 1, (count - 2,), generator=draw),
            )
        ),
        torch.tensor(lengths),
    )


def _without_lengths(of: Sentences) -> Sentences:
    return Sentences(of.words, of.places, of.characters, of.sizes)


def _state(model: Tagger, batch: int, seed: int) -> tuple[State, dict[str, Tensor]]:
    """A state drawn, of a net of one direction, and the same by the names of inputs."""
    if model.config.bidirectional:
        return None, {}
    draw = torch.Generator().manual_seed(seed)
    zero = model.stack.zero_state(batch)
    given = [torch.rand(s.shape, generator=draw) - 0.5 for s in state_tensors(zero)]
    names = [f"{name}_in" for name in model.stack.directions()[0].law.states]
    return state_like(zero, given), dict(zip(names, given, strict=True))
