"""Runs that were trained on a GPU, or whose weights are halves, served on a CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.checkpoint import export_checkpoint, load_checkpoint
from gatewise.complete import Request
from gatewise.generate import SamplingOptions
from gatewise.serve.runs import Source


@pytest.fixture(scope="module")
def elsewhere(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a run on a GPU leaves it, with all weights in halves."""
    found = load_checkpoint(trained)
    config: dict[str, Any] = copy.deepcopy(found.config)
    config["training"]["device"] = "cuda:0"
    halves = {name: tensor.to(torch.bfloat16) for name, tensor in found.tensors.items()}
    folder = tmp_path_factory.mktemp("elsewhere") / "run"
    return export_checkpoint(replace(found, config=config, tensors=halves), folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4", None])
def test_every_kind_of_weights(elsewhere: Path, trained: Path, dtype: str | None) -> None:
    def written(path: Path) -> str:
        loaded = Source("run", path, dtype=dtype).open()
        assert loaded.dtype == (dtype or "int8")
        request = Request("gate memory ", SamplingOptions(max_tokens=12, temperature=0))
        answer = loaded.batcher.submit(request).result(20)
        loaded.close()
        return answer.completions[0].text

    # halves are what it was trained to, but for the last bits: the same words are the most probable
    assert written(elsewhere) == written(trained)


def test_as_a_command(start: Callable[..., Any], elsewhere: Path) -> None:
    server = start(elsewhere)
    status, found = server.post("/v1/completions", {"prompt": "gate ", "max_tokens": 8})
    assert status == 200
    assert found["usage"]["completion_tokens"] == 8
