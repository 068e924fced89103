"""Learners of memory tasks from options."""

from __future__ import annotations

import pytest
import torch

import gatewise.train.tasks as building
from gatewise.errors import OptionError
from gatewise.mappings.memory import MemoryBatchOptions, MemoryNetOptions
from gatewise.train import TrainOptions


@pytest.mark.parametrize(
    ("eval_batch_size", "dtype"), [(500, "float32"), (64, "float64")], ids=["judging", "learning"]
)
def test_what_cannot_fit_into_memory_is_refused_before_it_is_tried(
    monkeypatch: pytest.MonkeyPatch, eval_batch_size: int, dtype: str
) -> None:
    """500 sequences of 5,020 steps took 2.0 GB to judge, measured, with a net that takes none itself."""

    def too_small(device: torch.device) -> int:
        return 2_000_000_000 if dtype == "float32" else 250_000_000

    monkeypatch.setattr(building, "memory_size", too_small)
    with pytest.raises(OptionError, match=r"about [2-9].* smaller .*--eval-batch-size"):
        building.task_learner(
            building.TaskOptions(task="copy", length="5000"),
            MemoryNetOptions(hidden_size=4),
            MemoryBatchOptions(batch_size=64, eval_batch_size=eval_batch_size),
            TrainOptions(steps=1, dtype=dtype),
        )
