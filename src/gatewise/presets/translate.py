"""Translation."""

from __future__ import annotations

from typing import Any

from gatewise.presets.base import preset

_TRANSLATE: dict[str, Any] = {
    "tokenizer": "bpe",
    "attention": "dot",
    "bidirectional": True,
    "embedding_size": 300,
    "hidden_size": 512,
    "dropout": 0.4,
    "smoothing": 0.1,
    "batch_size": 128,
    "lr": 4e-3,
    "schedule": "cosine",
    "warmup": 100,
    "min_lr": 1e-4,
    "dtype": "auto",
}

PRESETS = (
    preset(
        "translate",
        "pieces, dot attention, 15 minutes on two CPU cores",
        "measured here on Multi30k, German to English: dev/LOG.md",
        mapping="translate",
        **_TRANSLATE,
        minutes=15.0,
    ),
    preset(
        "multi30k",
        "the same for an hour, with more dropout",
        "measured here on Multi30k, German to English: dev/LOG.md",
        mapping="translate",
        **_TRANSLATE | {"dropout": 0.5},
        minutes=60.0,
    ),
    preset(
        "numbers",
        "characters, what runs without data: a minute on two CPU cores",
        "a small network of this project",
        mapping="translate",
        tokenizer="char",
        attention="general",
        bidirectional=True,
        embedding_size=64,
        hidden_size=128,
        dropout=0.1,
        batch_size=128,
        lr=4e-3,
        schedule="cosine",
        warmup=50,
        minutes=1.0,
    ),
)
