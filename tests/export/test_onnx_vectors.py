"""Classifiers and regressors as ONNX: every readout, both kinds of input, run and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("onnx", reason="the extra gatewise[onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")

from gatewise.errors import EngineError
from gatewise.export.vectors import export_vector_onnx
from gatewise.mappings.readout import READOUTS
from gatewise.mappings.seq_to_vec import SequenceToVector, VectorConfig, VectorOptions

TEXT = {"vocab_size": 9, "outputs": 4}
SERIES = {"channels": 2, "marks": 1, "outputs": 1, "target": "number"}


def made(options: dict[str, Any], sizes: dict[str, Any]) -> SequenceToVector:
    torch.manual_seed(0)
    small = VectorOptions(**{"hidden_size": 6, "embedding_size": 5, **options})
    model = SequenceToVector(VectorConfig.from_options(small, **sizes))
    if model.config.channels:
        model.shift.fill_(3.0)
        model.scale.fill_(2.0)
        model.target_scale.fill_(10.0)
    return model


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("sizes", [TEXT, SERIES], ids=["text", "series"])
def test_the_file_gives_what_the_model_gives(
    tmp_path: Path, readout: str, bidirectional: bool, sizes: dict[str, Any]
) -> None:
    options = {"readout": readout, "bidirectional": bidirectional, "num_layers": 2}
    report = export_vector_onnx(made(options, sizes), tmp_path / "m.onnx", metadata={"a": 1})
    assert report.error is not None
    assert report.error < 1e-5
    assert report.outputs == ("scores",)


@pytest.mark.parametrize("cell", ["gru", "gru_paper", "rnn_tanh"])
def test_other_cells(tmp_path: Path, cell: str) -> None:
    report = export_vector_onnx(made({"cell": cell}, TEXT), tmp_path / "m.onnx")
    assert report.error is not None
    assert report.error < 1e-5


def test_what_has_no_operator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="lstm_layer_norm"):
        export_vector_onnx(made({"cell": "lstm_layer_norm"}, TEXT), tmp_path / "m.onnx")
