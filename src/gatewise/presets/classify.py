"""Classifiers."""

from __future__ import annotations

from gatewise.presets.base import preset

PRESETS = (
    preset(
        "names",
        "characters of names and other short texts, in both directions",
        "measured here on names by language: benchmarks/classify.py",
        mapping="classify",
        tokenizer="char",
        bidirectional=True,
        readout="last",
        embedding_size=64,
        hidden_size=128,
        num_layers=2,
        dropout=0.3,
        batch_size=64,
        lr=4e-3,
        schedule="cosine",
        warmup=50,
        weight_decay=0.1,
        unknown_rate=0.1,
        epochs=20.0,
    ),
    preset(
        "series",
        "short series, few examples: two directions, mean of the steps, noise",
        "measured here on series of the UEA and UCR archives: benchmarks/classify.py",
        mapping="classify",
        bidirectional=True,
        readout="mean",
        hidden_size=64,
        dropout=0.3,
        jitter=0.1,
        batch_size=16,
        lr=4e-3,
        schedule="cosine",
        warmup=50,
        weight_decay=0.01,
        steps=600,
    ),
    preset(
        "waves",
        "what runs without data: seconds on two CPU cores",
        "a small network of this project",
        mapping="classify",
        cell="gru",
        readout="mean",
        hidden_size=32,
        batch_size=32,
        lr=1e-2,
        schedule="cosine",
        warmup=20,
        epochs=12.0,
    ),
)
