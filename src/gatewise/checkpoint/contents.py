"""What a checkpoint holds, and the names and limits of its files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gatewise.errors import CheckpointError

FORMAT = 1
CONFIG, MODEL, TOKENIZER, MANIFEST = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "manifest.json",
)
TRAINING = "training"
STATE_TENSORS, STATE_META = "training/state.safetensors", "training/state.json"
KNOWN = (CONFIG, MODEL, TOKENIZER, STATE_TENSORS, STATE_META)

MAX_CONFIG = MAX_MANIFEST = 1 << 20  # bytes
MAX_META = 16 << 20
MAX_TEXT = 256 << 20  # a tokenizer of a million words takes some 30 MB
MAX_FILES = 64

CHECKPOINTS, LATEST, BEST, LOG, LOCK = (
    "checkpoints",
    "latest",
    "best",
    "log.jsonl",
    ".gatewise.lock",
)
NAME = re.compile(r"\d{10}")
EXTRA = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(json|txt)")


def step_name(step: int) -> str:
    """The name of the checkpoint of `step`; names sort as steps do."""
    return f"{step:010d}"


@dataclass
class TrainingState:
    """What an exact resume needs.

    Args:
        tensors: by name: optimizer slots, averaged weights, carried state, generator states, ...
        meta: anything JSON can hold (and NaN and infinities): counters, position in the data. It
            and `tensors` should be equal for equal runs, bit for bit.
        clock: what may differ between equal runs (seconds spent, speeds); stored apart, so that
            the files of the state stay comparable.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    clock: dict[str, Any] = field(default_factory=dict)


@dataclass
class Checkpoint:
    """A checkpoint in memory, every file of it verified against its sum.

    Args:
        path: its folder.
        step: the step it was written at.
        version: of the package that wrote it.
        config: the settings it was saved with.
        tensors: the weights, on the CPU.
        tokenizer_json: the text of tokenizer.json, or None.
        extra: the texts of other files, by name.
        is_best: whether it was the best so far when it was written.
        log: bytes and SHA-256 of the run's log at that moment, or None.
        notes: what a user should be told, each once: damage found and what was used instead.
    """

    path: Path
    step: int
    version: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    tokenizer_json: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
    is_best: bool = False
    log: tuple[int, str] | None = None
    notes: list[str] = field(default_factory=list)
    load_training: Callable[[], TrainingState] | None = field(default=None, repr=False)

    @property
    def has_training(self) -> bool:
        """Whether training can be resumed from here."""
        return self.load_training is not None

    def training(self) -> TrainingState:
        """The training state, read and verified now.

        Raises:
            CheckpointError: the checkpoint was exported without one, or it is damaged.
        """
        if self.load_training is None:
            raise CheckpointError(
                f"{self.path}: expected a training state, found none (an exported checkpoint): "
                "resume from the run folder itself"
            )
        return self.load_training()
