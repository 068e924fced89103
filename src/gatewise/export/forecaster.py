"""A forecaster as ONNX: the step from what is known to what is said of the next value, with its states.

It takes ``x`` (T, B, I) and the states, and gives ``numbers`` (T, B, P) and the next states; T and B are free. The
columns of x are those of `Forecaster.row`, scaled; the numbers are location and scale, the quantiles, or the point, and
are added to the base. Scales, covariates and all options are in the metadata.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from gatewise.export import OnnxReport, _need_onnx
from gatewise.export.check import state_like
from gatewise.export.parts import PartWriter, refuse, write_graph
from gatewise.mappings.forecaster import Forecaster
from gatewise.modes import evaluating
from gatewise.types import state_tensors

_CASES = ((1, 1), (7, 3), (20, 2))
_NARROWEST = 1e-4


class ForecasterWriter(PartWriter):
    """The graph of a forecaster."""

    def __init__(self, onnx: Any, model: Forecaster) -> None:
        super().__init__(onnx, model.config, model.stack)
        self._forecaster = model

    def write(self, tokenizer_json: str | None = None) -> Any:
        """The whole model."""
        x = self.take("x", "FLOAT", ["T", "B", self.config.inputs])
        h = self._recur(x)
        decoder = self._forecaster.decoder
        numbers = self.linear(h, "decoder", decoder.weight, decoder.bias)
        self.give(self._described(numbers), "numbers", ["T", "B", self._forecaster.head.size])
        return self.document(tokenizer_json)

    def _described(self, numbers: str) -> str:
        output = self.config.output
        if output == "point":
            return numbers
        first = self._slice(numbers, 0, 1)
        rest = self.node("Softplus", self._slice(numbers, 1, self._forecaster.head.size))
        if output == "quantile":
            both = str(self._node("Concat", [first, rest], axis=-1))
            return self.node("CumSum", both, self._store("axis", torch.tensor(-1)))
        narrowest = self._store("narrowest", torch.tensor(_NARROWEST))
        return str(self._node("Concat", [first, self.node("Add", rest, narrowest)], axis=-1))


def export_forecaster_onnx(
    model: Forecaster,
    path: Path | str,
    *,
    scaling: dict[str, Any] | None = None,
    check: bool = True,
) -> OnnxReport:
    """Write a forecaster as an ONNX file.

    Args:
        model: in float32; evaluation mode is taken (no dropout).
        path: of the file; replaced only when the new one is complete.
        scaling: of the run, stored in the metadata as ``gatewise.scaling``.
        check: run it in onnxruntime, where that is installed, and compare.
    Raises:
        FailedError: if onnx is not installed, or the runtime's results differ.
        EngineError: if ONNX has no operator for the cell or the options.
    """
    onnx = _need_onnx()
    refuse(model.stack, model.decoder.weight, model.config.zoneout)
    writer = ForecasterWriter(onnx, model)
    proto = writer.write()
    if scaling is not None:
        entry = proto.metadata_props.add()
        entry.key, entry.value = "gatewise.scaling", json.dumps(scaling)
    compare = (lambda session: largest_difference(model, session)) if check else None
    return write_graph(proto, writer, path, compare)


def largest_difference(model: Forecaster, session: Any) -> float:
    """Between a runtime's session and the model, of numbers and states, over several sizes."""
    worst = 0.0
    for steps, batch in _CASES:
        draw = torch.Generator().manual_seed(steps)
        x = torch.randn(steps, batch, model.config.inputs, generator=draw)
        states = state_tensors(model.stack.zero_state(batch))
        given = [torch.rand(s.shape, generator=draw) - 0.5 for s in states]
        with evaluating(model), torch.inference_mode():
            out = model(x, state_like(model.stack.zero_state(batch), given))
            expected = [*state_tensors(out.state), model.head.described(out.numbers)]
        names = [one.name for one in session.get_inputs()]
        feed = dict(zip(names, [v.numpy() for v in (x, *given)], strict=True))
        found = session.run(None, feed)
        pairs = zip(expected, found, strict=True)
        worst = max(worst, *(float((e - torch.from_numpy(f)).abs().max()) for e, f in pairs))
    return worst
