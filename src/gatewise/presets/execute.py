"""Settings of learning to execute."""

from __future__ import annotations

from typing import Any

from gatewise.presets.base import preset

_EXECUTE: dict[str, Any] = {
    "form": "pairs",
    "attention": "dot",
    "bidirectional": True,
    "embedding_size": 32,
    "batch_size": 128,
    "bucket": 32,
    "beta2": 0.99,
    "schedule": "cosine",
    "warmup": 100,
    "dtype": "auto",
}

EXECUTION = (
    preset(
        "execute",
        "generated programs, six minutes on one CPU core",
        "a small network of this project; measured for four minutes: docs/execute.md",
        mapping="execute",
        **_EXECUTE,
        task="programs",
        curriculum="mix",
        hidden_size=256,
        lr=3e-3,
        minutes=6.0,
    ),
    preset(
        "execute-paper",
        "generated programs in one stream, two layers of 400; meant for a GPU",
        "Zaremba & Sutskever 2014 (arXiv 1410.4615), section 5; initial weights are torch's",
        mapping="execute",
        task="programs",
        form="stream",
        length=4,
        nesting=3,
        curriculum="combined",
        settle=0.8,
        embedding_size=400,
        hidden_size=400,
        num_layers=2,
        batch_size=100,
        bptt=50,
        optimizer="sgd",
        lr=0.5,
        schedule="constant",
        clip_norm=5.0,
        epochs=1000.0,
    ),
    preset(
        "addition",
        "sums of two numbers, three minutes on one CPU core",
        "measured here: docs/execute.md, dev/LOG.md",
        mapping="execute",
        **_EXECUTE,
        task="addition",
        curriculum="mix",
        hidden_size=128,
        lr=4e-3,
        minutes=3.0,
    ),
    preset(
        "memorise",
        "rows of digits, two minutes on one CPU core",
        "measured here: docs/execute.md, dev/LOG.md",
        mapping="execute",
        **_EXECUTE,
        task="memorise",
        digits=10,
        curriculum="mix",
        hidden_size=128,
        lr=4e-3,
        minutes=2.0,
    ),
)
"""The presets of the mapping."""
