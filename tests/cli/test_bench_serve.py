"""`gatewise bench serve`: tiny loads, what counts, wrong use."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gatewise.bench.serving import Load, Served, best_rate

SMALL = ("--hidden-size", "8", "--num-layers", "1", "--characters", "20")


def test_a_small_load(gatewise: Any, tmp_path: Path) -> None:
    picture = tmp_path / "p99.svg"
    words = ("bench", "serve", *SMALL, "--seconds", "0.5", "--rates", "20,40", "--plot", picture)
    called = gatewise(*words, "--dtype", "float32", "--json")
    assert called.status == 0, called.err
    rows = json.loads(called.out)["rows"]
    names = ("gatewise", "whole requests", "whole requests, cached", "nn.LSTM loop")
    assert [(row["server"], row["rate"]) for row in rows] == [
        (name, rate) for name in names for rate in (20, 40)
    ]
    assert all(row["writers"] == row["rate"] / 5 and row["answers"] > 2 for row in rows)
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows)
    assert picture.exists()
    text = gatewise(*words[:-2], "--servers", "gatewise", "--bound", "1000").out
    assert "gatewise: 40.0 keys/s with p99 <= 1000 ms" in text


def test_the_shortest_texts_are_typed(gatewise: Any) -> None:
    words = ("bench", "serve", *SMALL[:-1], "1", "--text", "a b", "--rates", "20")
    called = gatewise(*words, "--seconds", "0.5", "--dtype", "float32", "--json")
    assert called.status == 0, called.err
    rows = json.loads(called.out)["rows"]
    assert len(rows) == 4
    assert all(math.isfinite(row["p99_ms"]) for row in rows)


def test_rates_and_percentiles() -> None:
    def row(rate: float, *latencies: float) -> Served:
        return Served("a", Load(1, rate, 1.0), np.array(latencies), 0, 0.0)

    rows = [row(1, 0.1, 0.2), row(2, 0.1, 0.3), row(3, 0.1, math.inf)]
    assert [one.percentile(0.99) for one in rows] == [0.2, 0.3, math.inf]
    assert best_rate(rows, 0.25) == 1
    assert best_rate(rows, 0.05) == 0
    assert math.isnan(row(1).percentile(0.5))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--characters", "0"), "--characters"),
        (("--bound", "0"), "--bound"),
        (("--text", ""), "--text"),
        (("--seconds", "nan"), "--seconds"),
        (("--rates", "1,0"), "--rates"),
        (("--servers", "nginx"), "unknown server"),
        (("--dtype", "int2"), "dtype"),
        (("--plot", "a.txt"), "--plot"),
    ],
)
def test_wrong_use(gatewise: Any, words: tuple[str, ...], says: str) -> None:
    called = gatewise("bench", "serve", *SMALL, *words)
    assert called.status == 2
    assert says in called.line


def test_keys_come_at_their_rate() -> None:
    load = Load(10, 200.0, 30.0)
    due, who = load.keys()
    assert len(due) == pytest.approx(6000, rel=0.03)
    assert (np.diff(due) >= 0).all()
    assert set(who) == set(range(40))
    gaps = np.diff(due[who == 3])
    assert gaps.mean() == pytest.approx(0.2, rel=0.2)
    again = load.keys()
    assert (again[0] == due).all()


def test_the_same_load_over_http(gatewise: Any) -> None:
    words = ("bench", "serve", *SMALL, "--seconds", "0.5", "--rates", "30", "--http", "--json")
    called = gatewise(*words, "--servers", "gatewise", "--servers", "nn.LSTM loop")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    assert found["http"]
    assert [row["server"] for row in found["rows"]] == ["gatewise", "nn.LSTM loop"]
    assert all(row["answers"] > 2 and math.isfinite(row["p99_ms"]) for row in found["rows"])
