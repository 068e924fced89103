"""A trained run as one object: its model, its tokenizer, and what can be done with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from gatewise.checkpoint import Checkpoint, load_checkpoint
from gatewise.errors import CheckpointError
from gatewise.run import language
from gatewise.run.base import Run, place
from gatewise.run.language import LanguageRun, Reading

__all__ = ["MAPPINGS", "LanguageRun", "Reading", "Run", "load"]

MAPPINGS: dict[str, Callable[[Checkpoint], tuple[type[Run], nn.Module]]] = {
    "lm": language.build,
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
        dtype: convert the weights; default: as they were saved.

    Raises:
        CheckpointError: if there is no run, or it is damaged, foreign or of another format.
        OptionError: if there is no such device or dtype.
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
    return kind(checkpoint, place(model, device, dtype))
