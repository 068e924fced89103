"""ONNX Runtime as a peer: our own export of the model, in float32 and dynamically quantised to int8."""

from __future__ import annotations

import logging
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gatewise.bench.contestants import Excluded
from gatewise.mappings import LanguageModel

Array = NDArray[Any]


class OnnxWriter:
    """A model in ONNX Runtime that is fed token by token.

    Args:
        model: to export.
        batch: columns.
        threads: of the runtime.
        quantised: weights and activations of the products in int8.
    Raises:
        Excluded: where a package is missing.
    """

    def __init__(self, model: LanguageModel, batch: int, threads: int, *, quantised: bool) -> None:
        for package in ("onnx", "onnxruntime"):
            if find_spec(package) is None:
                raise Excluded(f"{package} is not installed: pip install 'gatewise[onnx]'")
        with tempfile.TemporaryDirectory(prefix="gatewise-bench-") as folder:
            self._session = _session(_file(model, Path(folder), quantised), threads)
        config = model.config
        shape = (len(config.layer_sizes), batch, config.layer_sizes[0])
        self._token: NDArray[np.int64] = np.zeros((1, batch), np.int64)
        self._scores = np.zeros((1, batch, config.vocab_size), np.float32)
        # two sets of h and c: one is read while the other is written
        self._states = [[np.zeros(shape, np.float32) for _ in range(2)] for _ in range(2)]
        self._bindings = [self._bind(*self._states), self._bind(*reversed(self._states))]

    def _bind(self, given: list[Array], found: list[Array]) -> Any:
        """A binding of all inputs and outputs to our own memory: nothing is copied or allocated."""
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        for names, arrays, bind in (
            (self._session.get_inputs(), [self._token, *given], binding.bind_ortvalue_input),
            (self._session.get_outputs(), [self._scores, *found], binding.bind_ortvalue_output),
        ):
            for name, array in zip(names, arrays, strict=True):
                bind(name.name, OrtValue.ortvalue_from_numpy(array))
        return binding

    def restart(self) -> None:
        """Forget everything."""
        for states in self._states:
            for state in states:
                state.fill(0)

    def advance(self, tokens: Tensor) -> Tensor:
        """Scores (B, V) after tokens (B,)."""
        self._token[0] = tokens.numpy()
        self._step()
        return torch.from_numpy(self._scores[0])

    def write(self, count: int) -> Array:
        """Write `count` tokens, each the most probable; the last of them."""
        for _ in range(count):
            self._step()
            self._scores.argmax(-1, out=self._token)
        return self._token

    def _step(self) -> None:
        self._session.run_with_iobinding(self._bindings[0])
        self._bindings.reverse()


def _file(model: LanguageModel, folder: Path, quantised: bool) -> Path:
    from gatewise.export import export_onnx

    plain = folder / "plain.onnx"
    export_onnx(model, plain, check=False)
    if not quantised:
        return plain
    from onnxruntime import quantization

    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it advises a preparation that finds nothing to do here
    try:
        quantization.quantize_dynamic(
            plain, folder / "int8.onnx", weight_type=quantization.QuantType.QInt8
        )
    finally:
        logging.root.setLevel(level)
    return folder / "int8.onnx"


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # read into memory: the file is gone when the session runs
    return onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
