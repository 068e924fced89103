"""A captioner as ONNX files: run by onnxruntime and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.errors import EngineError, FailedError
from gatewise.mappings.image_encoder import ImageOptions
from gatewise.mappings.vec_to_seq import CaptionConfig, CaptionOptions, VectorToSequence

onnx = pytest.importorskip("onnx", reason="the extra gatewise[onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")

from gatewise.export.captions import compare_captioner, export_caption_onnx  # noqa: E402
from gatewise.export.two_files import paths_of  # noqa: E402

SMALL = ImageOptions(image_size=16, image_channels=8, image_blocks=2)
FORMS: dict[str, dict[str, Any]] = {
    "vector as a state": {"num_layers": 2},
    "vector as an input": {"vector_to": "input", "num_layers": 2, "tied": True},
    "image": {"images": True, "cell": "gru"},
    "image as an input": {"images": True, "vector_to": "input", "cell": "rnn_tanh"},
    "regions, additive": {"images": True, "attention": "additive"},
    "regions, general, fed": {"images": True, "attention": "general", "input_feeding": True},
    "regions, dot": {"images": True, "attention": "dot", "hidden_size": 32},
}


def build(**options: Any) -> VectorToSequence:
    torch.manual_seed(0)
    images = SMALL if options.pop("images", False) else None
    chosen = CaptionOptions(**{"embedding_size": 6, "hidden_size": 8, **options})
    config = CaptionConfig.from_options(chosen, images, 11, 0 if images else 5)
    model = VectorToSequence(config)
    for weight in model.parameters():  # also the norms that begin as nothing
        torch.nn.init.normal_(weight, std=0.3)
    if images is None:
        model.standardise(torch.randn(9, 5) * 3 + 1)
    return model


@pytest.mark.parametrize("form", FORMS)
def test_both_files_agree_with_the_model(form: str, tmp_path: Path) -> None:
    reports = export_caption_onnx(build(**FORMS[form]), tmp_path / "m.onnx", tokenizer_json="{}")
    assert [report.path.name for report in reports] == ["m.encoder.onnx", "m.decoder.onnx"]
    for report in reports:
        assert report.error is not None
        assert report.error < 1e-4
    assert reports[0].inputs == ("images",) if FORMS[form].get("images") else ("vectors",)


def test_a_file_that_differs_is_refused(tmp_path: Path) -> None:
    model = build(images=True)
    export_caption_onnx(model, tmp_path / "m.onnx")
    with torch.no_grad():
        model.decoder.decoder_weights()[0].add_(1.0)
    with pytest.raises(FailedError, match="differs"):
        compare_captioner(model, *paths_of(tmp_path / "m.onnx"))


def test_a_cell_without_an_operator(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no operator for the cell mingru"):
        export_caption_onnx(build(cell="mingru"), tmp_path / "m.onnx")
