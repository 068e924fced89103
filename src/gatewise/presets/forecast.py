"""Forecasters."""

from __future__ import annotations

from typing import Any

from gatewise.presets.base import preset

_FORECAST: dict[str, Any] = {
    "hidden_size": 32,
    "batch_size": 32,
    "lr": 5e-3,
    "schedule": "cosine",
    "warmup": 20,
}

PRESETS = (
    preset(
        "forecast",
        "one series or several, five minutes at most",
        "measured here on generated series: dev/LOG.md",
        mapping="forecast",
        **_FORECAST,
        epochs=200.0,
        minutes=5.0,
        patience=30,
    ),
    preset(
        "seasonal",
        "the embedded series, what runs without data: seconds on a CPU core",
        "measured here: dev/LOG.md",
        mapping="forecast",
        **_FORECAST,
        season=24,
        differences=True,
        weight_decay=0.1,
        steps=1500,
        eval_every=100,
    ),
    preset(
        "library",
        "how the lines of Python's own library are indented: a minute on a CPU core",
        "measured here: dev/LOG.md",
        mapping="forecast",
        **{**_FORECAST, "hidden_size": 64},
        embedded="library",
        scaling="all",
        output="student",
        steps=1500,
        eval_every=100,
    ),
)
