"""Taggers."""

from __future__ import annotations

from gatewise.presets.base import preset

PRESETS = (
    preset(
        "tag",
        "words and their characters, both directions; five minutes at most",
        "a network of the sizes of Lample et al. 2016 (arXiv 1603.01360), trained by adamw",
        mapping="tag",
        hidden_size=100,
        dropout=0.4,
        word_dropout=0.1,
        batch_size=16,
        lr=3e-3,
        schedule="cosine",
        warmup=100,
        epochs=30.0,
        minutes=5.0,
    ),
    preset(
        "notices",
        "the embedded sentences, what runs without data: half a minute on a CPU core",
        "a small network of this project",
        mapping="tag",
        embedding_size=32,
        character_size=16,
        character_hidden=16,
        hidden_size=48,
        dropout=0.2,
        word_dropout=0.2,
        batch_size=32,
        lr=5e-3,
        schedule="cosine",
        warmup=50,
        epochs=6.0,
    ),
    preset(
        "python",
        "the roles of words in Python's own library: a minute on a CPU core",
        "a small network of this project",
        mapping="tag",
        embedded="python",
        embedding_size=64,
        hidden_size=100,
        dropout=0.3,
        word_dropout=0.1,
        batch_size=64,
        lr=5e-3,
        schedule="cosine",
        warmup=50,
        epochs=3.0,
    ),
)
