"""Classes of names and series: test figures of several seeds, as a table.

    python benchmarks/classify.py names DATA/names
    python benchmarks/classify.py series DATA/timeseries/JapaneseVowels DATA/timeseries/ItalyPowerDemand

Each run is `gatewise train classify` with the preset of its kind, trained on all of the training part and
measured on its test part once. The readout of series is chosen before, for each data set, by the mean accuracy on
thirds of the training part, the others trained on; the settings of names were chosen on an eighth of it
(dev/LOG.md). Names are de-duplicated and split 80/20 by a fixed seed, all classes of a name on one side; beside them stands a
classifier of character n-grams by scikit-learn on the same split.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gatewise
from gatewise.cli import main
from gatewise.tasks.labelled import ExampleOptions, read_examples

SHARES = "0.8,0,0.2"
CANDIDATES = [["--readout", name] for name in ("mean", "last", "max", "attention")]
SPLITS = 2


def chosen(data: str, extra: list[str]) -> list[str]:
    """The candidate that is best on parts of the training part, by accuracy, then by nats."""
    best: tuple[float, float] | None = None
    found: list[str] = []
    for candidate in CANDIDATES:
        runs = [
            run(data, "series", 1, [*candidate, *extra], split=split) for split in range(SPLITS)
        ]
        accuracy = statistics.mean(one["accuracy"] for one in runs)
        nats = statistics.mean(one["nats_per_example"] for one in runs)
        print(f"{Path(data).name}: {candidate[-1]} {accuracy:.4f}, {nats:.3f} nats", flush=True)
        if best is None or (accuracy, -nats) > best:
            best, found = (accuracy, -nats), candidate
    return found


def run(
    data: str, preset: str, seed: int, extra: list[str], split: int | None = None
) -> dict[str, Any]:
    """One run: accuracy, macro-F1, calibration error and seconds.

    Args:
        data: a folder.
        preset: "names" or "series".
        seed: of weights and noise.
        extra: more flags.
        split: measure on that third of the training part instead of the test part.
    """
    shares = SHARES if split is None else "0.66,0.34,0"
    seeds = [] if split is None else ["--split-seed", str(split), "--eval-every", "1000000"]
    with tempfile.TemporaryDirectory() as place:
        out = str(Path(place) / "run")
        words = ["train", "classify", data, "--out", out, "--preset", preset]
        words += ["--fractions", shares, "--seed", str(seed), *seeds, *extra]
        began = time.perf_counter()
        if main(words) != 0:
            sys.exit(1)
        seconds = time.perf_counter() - began
        options = ExampleOptions(fractions=numbers(shares), split_seed=split or 0)
        test = read_examples([data], options).parts["test" if split is None else "valid"]
        found = gatewise.load(out).evaluate(test).summary()
    names = ("accuracy", "macro_f1", "nats_per_example", "calibration_error", "examples")
    return {name: found[name] for name in names} | {"seconds": seconds}


def numbers(shares: str) -> tuple[float, ...]:
    """0.8,0,0.2 as numbers."""
    return tuple(float(one) for one in shares.split(","))


def baseline(data: str) -> dict[str, dict[str, float]]:
    """Character n-grams of 1 to 5, by logistic regression and by a linear support vector machine."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    options = ExampleOptions(fractions=numbers(SHARES))
    parts = read_examples([data], options).parts
    train, test = parts["train"], parts["test"]
    found = {}
    for name, model in (
        ("n-grams, logistic", LogisticRegression(C=10, max_iter=300)),
        ("n-grams, SVM", LinearSVC(C=1)),
    ):
        grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True)
        said = make_pipeline(grams, model).fit(train.texts, train.labels).predict(test.texts)
        found[name] = {
            "accuracy": float(accuracy_score(test.labels, said)),
            "macro_f1": float(f1_score(test.labels, said, average="macro")),
        }
    return found


def line(name: str, runs: list[dict[str, Any]]) -> str:
    """Mean, spread and least of several seeds."""
    cells = [name]
    for figure in ("accuracy", "macro_f1"):
        values = [one[figure] for one in runs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{statistics.mean(values):.4f} +- {spread:.4f} (from {min(values):.4f})")
    cells.append(f"{runs[0]['examples']:,}")
    cells.append(f"{statistics.mean(one['seconds'] for one in runs):.0f} s")
    return " | ".join(cells)


def measure() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("names", "series"))
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every run's figures here")
    asked, extra = parser.parse_known_args()
    results: dict[str, Any] = {}
    lines = ["data | accuracy | macro-F1 | test examples | seconds a run"]
    for data in asked.data:
        best = chosen(data, extra) if asked.kind == "series" else []
        runs = [run(data, asked.kind, seed, [*best, *extra]) for seed in range(1, asked.seeds + 1)]
        name = " ".join([Path(data).name, *best[1:]])
        results[name] = runs
        lines.append(line(name, runs))
        print(lines[-1], flush=True)
    if asked.kind == "names":
        for name, figures in baseline(asked.data[0]).items():
            results[name] = figures
            lines.append(f"{name} | {figures['accuracy']:.4f} | {figures['macro_f1']:.4f}")
    print("\n".join(lines))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    measure()
