"""Memory tasks."""

from __future__ import annotations

from gatewise.presets.base import preset

PRESETS = (
    preset(
        "memory",
        "a memory task, up to 100,000 sequences",
        "a small network of this project; sizes and rule as in the memory experiments of the 2010s",
        mapping="task",
        hidden_size=64,
        batch_size=64,
        sequences=3200,
        optimizer="adam",
        lr=3e-3,
        clip_norm=1.0,
        steps=1600,
        log_every=50,
    ),
)
