"""Exported weights of 16, 8 and 4 bits: stored, loaded, measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import RunFolder, export_checkpoint, load_checkpoint
from gatewise.errors import CheckpointError, EngineError, UnknownNameError
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.run import LanguageRun
from gatewise.run.export import rounded
from gatewise.run.stored import as_dense, matrices, quantised, stored_weights
from gatewise.step.model import StepModel
from gatewise.text.tokenizers import build_tokenizer

# torch notes once which functions a device context acts on: before they are wrapped (conftest.py)
with torch.device("meta"):
    torch.zeros(0)

TEXT = "the quick brown fox jumps over the lazy dog\n" * 20
CHARS = build_tokenizer("char", [TEXT])


def _run(folder: Path, **options: Any) -> LanguageRun:
    sizes = {"embedding_size": 33, "hidden_size": 70, "num_layers": 2}
    config = LanguageModelConfig(vocab_size=CHARS.vocab_size, **{**sizes, **options})
    with RunFolder.create(folder) as run:
        run.save(
            1,
            config={"mapping": "lm", "model": config.to_dict()},
            tensors=LanguageModel(config).state_dict(),
            tokenizer_json=CHARS.to_json(),
            best=True,
        )
    found = gw.load(folder)
    assert isinstance(found, LanguageRun)
    return found


@pytest.fixture(params=[{}, {"tied": True}, {"cell": "gru", "num_layers": 1}], ids=str)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> LanguageRun:
    return _run(tmp_path / "run", **request.param)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
def test_an_export_is_loaded_with_the_same_numbers(
    run: LanguageRun, dtype: str, tmp_path: Path
) -> None:
    found, _ = rounded(run, dtype)
    path = export_checkpoint(found, tmp_path / "out")
    loaded = gw.load(path)
    assert isinstance(loaded, LanguageRun)
    assert loaded.dtype == dtype
    assert next(loaded.model.parameters()).dtype == torch.float32
    if dtype != "bfloat16":
        whole = quantised(run.model, dtype)
        assert set(whole) == set(matrices(run.model))
        weights = dict(loaded.model.named_parameters())
        for name, q in whole.items():
            assert torch.equal(weights[name], q.dense()), name
    options: dict[str, Any] = {"n": 1, "max_tokens": 30, "seed": 3}
    exported = loaded.complete("the ", **options)
    again = export_checkpoint(rounded(loaded, dtype)[0], tmp_path / "again")
    if dtype != "int4":  # of numbers that are rounded already
        assert gw.load(again).complete("the ", **options) == exported
    at_once = run.complete("the ", dtype=dtype, **options)
    assert exported[0].logprob == pytest.approx(at_once[0].logprob, abs=0.3)


def test_sizes_of_exports(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", hidden_size=256)
    sizes = {
        dtype: (export_checkpoint(rounded(run, dtype)[0], tmp_path / dtype) / "model.safetensors")
        .stat()
        .st_size
        for dtype in ("float32", "bfloat16", "int8", "int4")
    }
    assert sizes["bfloat16"] < 0.51 * sizes["float32"]
    assert sizes["int8"] < 0.28 * sizes["float32"]
    assert sizes["int4"] < 0.17 * sizes["float32"]


def test_what_it_costs_is_stored_with_it(run: LanguageRun, tmp_path: Path) -> None:
    text = tmp_path / "held-out.txt"
    text.write_text(TEXT)
    found, cost = rounded(run, "int8", [str(text)])
    assert cost is not None
    path = export_checkpoint(found, tmp_path / "out")
    config = json.loads((path / "config.json").read_text())["config"]
    assert config["weights"]["cost"] == cost
    assert cost["tokens"] == len(TEXT) - 16
    assert abs(cost["lost"]) < 0.01
    loaded = gw.load(path)
    assert loaded.evaluate(TEXT, batch_size=16).perplexity == pytest.approx(cost["perplexity"])
    exact = run.evaluate(TEXT, batch_size=16).perplexity
    assert exact == pytest.approx(cost["perplexity_float32"], rel=1e-4)


def test_figures_of_a_dtype_without_an_export(run: LanguageRun) -> None:
    exact = run.evaluate(TEXT, batch_size=4).perplexity
    assert run.evaluate(TEXT, batch_size=4, dtype="float32").perplexity == pytest.approx(
        exact, rel=1e-5
    )
    for dtype, most in (("bfloat16", 2e-3), ("int8", 5e-3), ("int4", 5e-2)):
        found = run.evaluate(TEXT, batch_size=4, dtype=dtype).perplexity
        assert dtype == "bfloat16" or found != exact  # 16 bits may lose less than is counted
        assert found == pytest.approx(exact, rel=most)


def test_loading_as_eight_bits(run: LanguageRun) -> None:
    loaded = gw.load(run.path, dtype="int8")
    assert loaded.dtype == "int8"
    options: dict[str, Any] = {"n": 2, "max_tokens": 20, "seed": 3}
    assert loaded.complete("fox", **options) == run.complete("fox", dtype="int8", **options)
    stream = loaded.stream()
    stream.push("fox")
    assert (stream.dtype, stream.ran) == ("int8", "step")


def test_what_cannot_be_had_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = _run(tmp_path / "run", cell="lstm_layer_norm")
    for call in (
        lambda: run.complete("a", dtype="int8"),
        lambda: run.complete("a", engine="step"),
        lambda: run.evaluate(TEXT, dtype="int4"),
        lambda: rounded(run, "int8"),
        lambda: gw.load(run.path, dtype="int8"),
    ):
        with pytest.raises(EngineError, match="layer_norm"):
            call()
    with pytest.raises(EngineError, match="reference"):
        run.complete("a", engine="reference", dtype="int8")
    with pytest.raises(UnknownNameError, match="int7"):
        run.complete("a", dtype="int7")
    for _ in range(2):
        assert run.complete("a", n=1, max_tokens=3)
    assert sum("not the step engine" in r.message for r in caplog.records) == 1
    half = export_checkpoint(rounded(run, "bfloat16")[0], tmp_path / "half")
    assert gw.load(half).complete("a", n=1, max_tokens=3)


@pytest.mark.parametrize(
    "weights",
    [
        "int8",
        {"dtype": "int3", "width": {}},
        {"dtype": "int8"},
        {"dtype": "int8", "width": {"stack.weight_hh_l0": 71}},
        {"dtype": "int8", "width": {"stack.weight_hh_l0": True}},
        {"dtype": "int8", "width": {"nothing": 70}},
        {"dtype": "int4", "width": {"stack.weight_hh_l0": 70}},
    ],
    ids=str,
)
def test_a_config_that_lies_about_weights_is_refused(tmp_path: Path, weights: Any) -> None:
    run = _run(tmp_path / "run", num_layers=1)
    found, _ = rounded(run, "int8")
    found.config["weights"] = weights
    path = export_checkpoint(found, tmp_path / "out")
    with pytest.raises(CheckpointError, match="expected"):
        gw.load(path)


def test_matrices_of_any_width_come_back(tmp_path: Path) -> None:
    for size in (5, 64, 65, 129):
        run = _run(tmp_path / f"run{size}", hidden_size=size, num_layers=1)
        for dtype in ("int8", "int4"):
            path = export_checkpoint(rounded(run, dtype)[0], tmp_path / f"{dtype}-{size}")
            _, stored = stored_weights(load_checkpoint(str(path)))
            expected = quantised(run.model, dtype)
            assert set(stored) == set(expected)
            for name, q in expected.items():
                assert torch.equal(stored[name].numbers, q.numbers)
                assert torch.equal(stored[name].scales, q.scales)
            tensors = as_dense(load_checkpoint(str(path))).tensors
            assert all(t.is_floating_point() for t in tensors.values())


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_weights_that_are_not_finite_are_not_rounded(dtype: str, broken: float) -> None:
    """A whole number in their place would look like a model that is well."""
    model = LanguageModel(LanguageModelConfig(vocab_size=9, embedding_size=8, hidden_size=8))
    with torch.no_grad():
        model.stack.weight_hh_l0[5, 3] = broken
    with pytest.raises(EngineError, match="expected finite weights"):
        quantised(model, dtype)
    with pytest.raises(EngineError, match="expected finite weights"):
        StepModel(model, dtype)
