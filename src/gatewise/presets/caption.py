"""Captioners."""

from __future__ import annotations

from typing import Any

from gatewise.presets.base import preset

_CAPTION: dict[str, Any] = {
    "tokenizer": "word",
    "lowercase": True,
    "embedding_size": 256,
    "hidden_size": 512,
    "batch_size": 64,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup": 50,
    "dtype": "auto",
}

PRESETS = (
    preset(
        "caption",
        "words from photographs or vectors, our own net; eight minutes on a CPU core",
        "a small network of this project: docs/caption.md",
        mapping="caption",
        **_CAPTION
        | {
            "min_count": 3,
            "hidden_size": 256,
            "image_size": 64,
            "image_channels": 24,
            "image_blocks": 1,
            "mirror": True,
            "dropout": 0.5,
            "smoothing": 0.1,
            "lr": 3e-3,
            "minutes": 8.0,
        },
    ),
    preset(
        "scenes",
        "rendered scenes, what runs without data: seven minutes on one CPU core",
        "a small network of this project: docs/caption.md",
        mapping="caption",
        **_CAPTION
        | {
            "embedding_size": 64,
            "hidden_size": 128,
            "attention": "additive",
            "image_size": 64,
            "image_channels": 16,
            "image_blocks": 2,
            "lr": 3e-3,
            "minutes": 7.0,
        },
    ),
)
