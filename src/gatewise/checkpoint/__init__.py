"""A run folder that describes itself: written so that a kill cannot break it, verified when read.

    RUN/log.jsonl                      one JSON object per line
    RUN/checkpoints/<step>/            complete in itself, readable on its own
        config.json                    format number, package version, step, and the run's settings
        model.safetensors              the weights
        tokenizer.json                 where the mapping has one
        training/state.safetensors     what an exact resume needs: optimizer slots, random states, ...
        training/state.json            ... and the position in the data
        manifest.json                  size and SHA-256 of each file above
    RUN/latest, RUN/best               one line each: the name of a checkpoint

A checkpoint is written under a temporary name, synced, renamed, its folder synced, and only then
pointed to. Sums are verified at load, limits are checked before anything is allocated, and nothing
is ever unpickled. This package knows tensors, JSON and files; it does not know models, optimizers
or tokenizers.
"""

from __future__ import annotations

from gatewise.checkpoint.catalogue import verify_run
from gatewise.checkpoint.contents import FORMAT, Checkpoint, TrainingState
from gatewise.checkpoint.folder import RunFolder, load_checkpoint
from gatewise.checkpoint.log import RunLog
from gatewise.checkpoint.writing import export_checkpoint

__all__ = [
    "FORMAT",
    "Checkpoint",
    "RunFolder",
    "RunLog",
    "TrainingState",
    "export_checkpoint",
    "load_checkpoint",
    "verify_run",
]
