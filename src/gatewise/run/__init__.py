"""A trained run as one object: its model, its tokenizer, and what can be done with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from gatewise.checkpoint import Checkpoint, load_checkpoint
from gatewise.errors import CheckpointError, OptionError
from gatewise.run import caption, classify, execute, forecast, language, tag, task, translate
from gatewise.run.base import Run, place
from gatewise.run.caption import Caption, CaptionReading, CaptionRun
from gatewise.run.classify import ClassifyRun, Prediction, VectorReading
from gatewise.run.execute import ExecuteRun, Execution
from gatewise.run.forecast import Forecast, ForecastReading, ForecastRun
from gatewise.run.language import LanguageRun, Reading
from gatewise.run.packing import WHOLE
from gatewise.run.tag import Tagging, TagReading, TagRun
from gatewise.run.task import TaskRun
from gatewise.run.translate import PairReading, TranslateRun, Translation

__all__ = [
    "MAPPINGS",
    "Caption",
    "CaptionReading",
    "CaptionRun",
    "ClassifyRun",
    "ExecuteRun",
    "Execution",
    "Forecast",
    "ForecastReading",
    "ForecastRun",
    "LanguageRun",
    "PairReading",
    "Prediction",
    "Reading",
    "Run",
    "TagReading",
    "TagRun",
    "Tagging",
    "TaskRun",
    "TranslateRun",
    "Translation",
    "VectorReading",
    "load",
]

MAPPINGS: dict[str, Callable[[Checkpoint], tuple[type[Run], nn.Module]]] = {
    "lm": language.build,
    "classify": classify.build,
    "translate": translate.build,
    "execute": execute.build,
    "tag": tag.build,
    "forecast": forecast.build,
    "caption": caption.build,
    "task": task.build,
}
"""Mapping, as a checkpoint names it -> what makes its kind of run and its model."""


def load(
    path: str | os.PathLike[str],
    which: Literal["best", "latest"] = "best",
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Run:
    """The run in a folder.

    Args:
        path: a run folder, or the folder of one checkpoint.
        which: of a run folder, the "best" checkpoint or the "latest".
        device: where to; default: the CPU. "auto": a CUDA device where there is one.
        dtype: convert the weights; default: as they were saved. "int8" and "int4": the step engine
            answers with weights of so many bits, while `model` stays float32.

    Raises:
        CheckpointError: if there is no run, or it is damaged, foreign or of another format.
        OptionError: if there is no such device or dtype.
        EngineError: if the step engine cannot run the model with weights of 8 or 4 bits.
    """
    checkpoint = load_checkpoint(os.fspath(path), which)
    mapping = checkpoint.config.get("mapping")
    build = MAPPINGS.get(mapping) if isinstance(mapping, str) else None
    if build is None:
        raise CheckpointError(
            f"{checkpoint.path}: expected a mapping of {', '.join(MAPPINGS)}, found {mapping!r}: "
            "was it written by a later version?"
        )
    kind, model = build(checkpoint)
    if not isinstance(dtype, str) or dtype not in WHOLE:
        return kind(checkpoint, place(model, device, dtype))
    run = kind(checkpoint, place(model, device, "float32"))
    if not isinstance(run, LanguageRun):
        raise OptionError(
            f"dtype: expected float32, bfloat16, float16 or float64 for a run of mapping "
            f"{run.mapping!r}, found {dtype!r}: weights of 8 and 4 bits are for language models"
        )
    run.pack(dtype)
    return run
