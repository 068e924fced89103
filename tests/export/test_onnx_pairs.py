"""Encoder and decoder as ONNX files: run by onnxruntime, token by token and whole targets at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.errors import EngineError, FailedError
from gatewise.mappings.seq_to_vec_to_seq import (
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderDecoderOptions,
)

onnx = pytest.importorskip("onnx", reason="the extra gatewise[onnx] is not installed")
runtime = pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")

from gatewise.export.pairs import compare_pair, export_pair_onnx  # noqa: E402
from gatewise.export.two_files import paths_of  # noqa: E402

FORMS: dict[str, dict[str, Any]] = {
    "vector": {},
    "fed vector": {"feed_vector": True, "bridge": "linear"},
    "two directions": {"bidirectional": True, "num_layers": 2, "reverse_source": True},
    "dot": {"attention": "dot", "bidirectional": True, "reverse_source": True},
    "general": {"attention": "general", "cell": "gru", "bridge": "linear"},
    "additive": {"attention": "additive", "tied": True, "cell": "rnn_tanh"},
    "input feeding": {"attention": "dot", "input_feeding": True, "tied": True},
}


def build(**options: Any) -> EncoderDecoder:
    chosen = EncoderDecoderOptions(**{"embedding_size": 6, "hidden_size": 8, **options})
    return EncoderDecoder(EncoderDecoderConfig.from_options(chosen, 11, 7))


@pytest.mark.parametrize("form", FORMS)
def test_both_files_agree_with_the_model(form: str, tmp_path: Path) -> None:
    model = build(**FORMS[form])
    reports = export_pair_onnx(model, tmp_path / "m.onnx", tokenizer_json="{}")
    assert [report.path.name for report in reports] == ["m.encoder.onnx", "m.decoder.onnx"]
    for report in reports:
        assert report.error is not None
        assert report.error < 1e-5
        properties = {p.key: p.value for p in onnx.load(report.path).metadata_props}
        assert json.loads(properties["gatewise.config"]) == model.config.to_dict()
        assert properties["gatewise.tokenizer"] == "{}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.decoder.onnx", "m.encoder.onnx"]


def test_whole_targets_at_once(tmp_path: Path) -> None:
    model = build(attention="general", bidirectional=True).eval()
    export_pair_onnx(model, tmp_path / "m.onnx", check=False)
    encoder, decoder = (runtime.InferenceSession(str(p)) for p in paths_of(tmp_path / "m.onnx"))
    source, lengths = torch.randint(11, (5, 2)), torch.tensor([5, 3])
    tokens = torch.randint(7, (4, 2))
    names = [one.name for one in encoder.get_outputs()]
    read = encoder.run(None, {"tokens": source.numpy(), "lengths": lengths.int().numpy()})
    known = dict(zip(names, read, strict=True))
    feed = {
        one.name: known[one.name.removesuffix("_in")]
        for one in decoder.get_inputs()
        if one.name != "tokens"
    }
    (logits,) = decoder.run(["logits"], feed | {"tokens": tokens.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(source, tokens, lengths).logits)


def test_a_file_that_differs_is_refused(tmp_path: Path) -> None:
    model = build(attention="dot")
    export_pair_onnx(model, tmp_path / "m.onnx")
    with torch.no_grad():
        model.decoder.decoder_weights()[0].add_(1.0)
    with pytest.raises(FailedError, match="differs"):
        compare_pair(model, *paths_of(tmp_path / "m.onnx"))


def test_a_cell_without_an_operator(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no operator for the cell mingru"):
        export_pair_onnx(build(cell="mingru"), tmp_path / "m.onnx")
