"""Forecasters and taggers as ONNX files: run by onnxruntime beside the model, whole and step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gatewise.errors import EngineError, OptionError
from gatewise.mappings.forecaster import Forecaster, ForecasterConfig, ForecasterOptions
from gatewise.mappings.tagger import Tagger, TaggerConfig, TaggerOptions

onnx = pytest.importorskip("onnx", reason="the extra gatewise[onnx] is not installed")
runtime = pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")

from gatewise.export.forecaster import export_forecaster_onnx  # noqa: E402
from gatewise.export.tagger import export_tagger_onnx  # noqa: E402

FORECASTERS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "student": {"output": "student", "cell": "gru"},
    "quantile": {"output": "quantile", "num_layers": 2, "season": 4},
    "point": {"output": "point", "cell": "rnn_tanh"},
}
TAGGERS: dict[str, dict[str, Any]] = {
    "both": {},
    "forwards": {"bidirectional": False, "num_layers": 2},
    "words alone": {"character_size": 0, "cell": "gru"},
    "characters alone": {"embedding_size": 0},
}


def forecaster(**options: Any) -> Forecaster:
    chosen = ForecasterOptions(**{"hidden_size": 6, **options})
    return Forecaster(ForecasterConfig.from_options(chosen, covariates=2))


def tagger(**options: Any) -> Tagger:
    sizes = {"embedding_size": 5, "character_size": 4, "character_hidden": 3, "hidden_size": 6}
    return Tagger(TaggerConfig.from_options(TaggerOptions(**{**sizes, **options}), 9, 8, 4))


@pytest.mark.parametrize("form", FORECASTERS)
def test_a_forecaster_agrees(form: str, tmp_path: Path) -> None:
    model, path = forecaster(**FORECASTERS[form]), tmp_path / "m.onnx"
    report = export_forecaster_onnx(model, path, scaling={"whole": [0, 1, None]})
    assert report.error is not None
    assert report.error < 1e-5
    assert report.inputs[0] == "x"
    assert report.outputs[-1] == "numbers"
    properties = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(properties["gatewise.config"]) == model.config.to_dict()
    assert json.loads(properties["gatewise.scaling"]) == {"whole": [0, 1, None]}
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_forecaster_goes_on_from_its_states(tmp_path: Path) -> None:
    model, path = forecaster(num_layers=2), tmp_path / "m.onnx"
    export_forecaster_onnx(model, path, check=False)
    session = runtime.InferenceSession(str(path))
    x = np.random.default_rng(0).standard_normal((5, 2, model.config.inputs)).astype(np.float32)
    with torch.no_grad():
        expected = model.head.described(model.eval()(torch.from_numpy(x)).numbers)
    states = {f"{n}_in": np.zeros((2, 2, 6), np.float32) for n in ("h", "c")}
    found = []
    for t in range(5):
        h, c, numbers = session.run(["h_out", "c_out", "numbers"], {"x": x[t : t + 1]} | states)
        states = {"h_in": h, "c_in": c}
        found.append(numbers)
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-5)


@pytest.mark.parametrize("form", TAGGERS)
def test_a_tagger_agrees(form: str, tmp_path: Path) -> None:
    model, path = tagger(**TAGGERS[form]), tmp_path / "m.onnx"
    report = export_tagger_onnx(model, path, tokenizer_json="{}")
    assert report.error is not None
    assert report.error < 1e-5
    assert report.outputs[-1] == "scores"
    assert ("lengths" in report.inputs) == model.config.bidirectional
    assert ("h_in" in report.inputs) != model.config.bidirectional
    properties = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert properties["gatewise.tokenizer"] == "{}"


def test_what_onnx_has_no_operator_for(tmp_path: Path) -> None:
    for model in (forecaster(cell="lstm_layer_norm"), forecaster(zoneout=0.1)):
        with pytest.raises(EngineError, match="ONNX"):
            export_forecaster_onnx(model, tmp_path / "m.onnx")
    with pytest.raises(EngineError, match="ONNX"):
        export_tagger_onnx(tagger(zoneout=0.1), tmp_path / "m.onnx")
    with pytest.raises(OptionError, match="float32"):
        export_tagger_onnx(tagger().double(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
