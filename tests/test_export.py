"""ONNX files: real operators, free batch and time, equal results in onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.errors import EngineError, FailedError
from gatewise.export import compare, export_onnx
from gatewise.mappings import LanguageModel, LanguageModelConfig

onnx = pytest.importorskip("onnx", reason="the extra gatewise[onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")

CASES: dict[str, dict[str, Any]] = {
    "rnn_tanh": {"cell": "rnn_tanh", "num_layers": 2},
    "rnn_relu": {"cell": "rnn_relu"},
    "lstm": {"cell": "lstm", "num_layers": 2},
    "gru": {"cell": "gru", "num_layers": 2},
    "gru_paper": {"cell": "gru_paper"},
    "tied": {"tied": True, "embedding_size": 7},
    "tied, projected": {"tied": True, "embedding_size": 5},
    "tanh decoder": {"decoder": "tanh"},
    "adaptive": {"softmax": "adaptive", "cutoffs": (4, 9), "hidden_size": 33},
    "layers of different sizes": {"hidden_sizes": (7, 6, 5)},
    "learned state": {"learned_state": True},
}


def model_of(**options: Any) -> LanguageModel:
    sizes = {"vocab_size": 17, "embedding_size": 6, "hidden_size": 7, **options}
    return LanguageModel(LanguageModelConfig(**sizes))


@pytest.fixture(params=CASES, ids=list(CASES))
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return model_of(**CASES[request.param])


def test_the_runtime_agrees(model: LanguageModel, tmp_path: Path) -> None:
    report = export_onnx(model, tmp_path / "model.onnx")
    assert report.error is not None
    assert report.error < 1e-5
    assert report.size == (tmp_path / "model.onnx").stat().st_size
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_the_operators_are_recurrent_and_shapes_are_free(tmp_path: Path) -> None:
    export_onnx(model_of(cell="gru", num_layers=3), tmp_path / "m.onnx", tokenizer_json='{"a": 1}')
    proto = onnx.load(tmp_path / "m.onnx")
    assert [n.op_type for n in proto.graph.node].count("GRU") == 3
    dims = [d.dim_param for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["T", "B"]
    metadata = {p.key: p.value for p in proto.metadata_props}
    assert metadata["gatewise.tokenizer"] == '{"a": 1}'
    assert json.loads(metadata["gatewise.config"])["cell"] == "gru"


@pytest.mark.parametrize(
    "options",
    [{"cell": "lstm_layer_norm"}, {"cell": "mogrifier"}, {"proj_size": 3}, {"zoneout": 0.1}],
    ids=str,
)
def test_what_onnx_cannot_say_is_an_error(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="ONNX"):
        export_onnx(model_of(**options), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_comparison_that_fails_leaves_the_models_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of().train()
    export_onnx(model, tmp_path / "m.onnx")
    assert model.training

    def broken(*args: Any, **settings: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(MemoryError):
        compare(model, tmp_path / "m.onnx")
    assert all(part.training for part in model.modules())


def test_a_difference_is_found(tmp_path: Path) -> None:
    model = model_of()
    export_onnx(model, tmp_path / "m.onnx")
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    with pytest.raises(FailedError, match="differs"):
        compare(model, tmp_path / "m.onnx")
