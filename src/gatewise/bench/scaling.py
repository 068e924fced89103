"""How the time of training grows with T, B and H: one of them changes, the others stay.

The exponent of each line is the slope of log time over log size: 1 where twice as much takes twice as long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gatewise.bench.report import Table
from gatewise.bench.sizes import Size
from gatewise.errors import FailedError, OptionError

CENTRE = Size(64, 32, 256, 1)
AXES: Mapping[str, tuple[str, Sequence[int]]] = {
    "T": ("steps", (16, 32, 64, 128, 256)),
    "B": ("batch", (1, 4, 16, 32, 64, 128)),
    "H": ("hidden", (64, 128, 256, 512, 1024)),
}
NAMES = (
    "torch",
    "torch-bf16",
    "gatewise",
    "gatewise-gates",
    "gatewise-bf16",
    "gatewise-bf16-gates",
)


def sizes(axis: str) -> list[Size]:
    """The sizes along an axis."""
    field, values = AXES[axis]
    return [replace(CENTRE, **{field: value}) for value in values]


def all_sizes() -> list[Size]:
    """Those of every axis, each once."""
    return list(dict.fromkeys(size for axis in AXES for size in sizes(axis)))


def lines(tables: Sequence[Table]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Axis -> contestant -> (size, seconds), of the tables of `suites.train` over `all_sizes`."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    centre = {"T": CENTRE.steps, "B": CENTRE.batch, "H": CENTRE.hidden}
    for axis in AXES:
        others = {k: v for k, v in centre.items() if k != axis}
        along = [t for t in tables if all(t.size[k] == v for k, v in others.items())]
        for table in sorted(along, key=lambda t: t.size[axis]):
            for row in table.rows:
                points = found.setdefault(axis, {}).setdefault(row.name, [])
                points.append((table.size[axis], row.seconds.median))
    return found


def exponent(points: Sequence[tuple[int, float]]) -> float | None:
    """The slope of log seconds over log size by least squares; None for fewer than two points.

    >>> round(exponent([(1, 1.0), (2, 4.0), (4, 16.0)]), 6)
    2.0
    """
    if len(points) < 2:
        return None
    logs = [(math.log(size), math.log(seconds)) for size, seconds in points]
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    above = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    return float(above / sum((x - mean_x) ** 2 for x, _ in logs))


def document(tables: Sequence[Table]) -> dict[str, Any]:
    """Axis -> contestant -> its points and exponent, for JSON."""
    return {
        axis: {
            name: {"points": [list(p) for p in points], "exponent": exponent(points)}
            for name, points in contestants.items()
        }
        for axis, contestants in lines(tables).items()
    }


def check_plot(path: Path) -> None:
    """Raise what `plot` would raise after minutes of measuring.

    Raises:
        OptionError: if the name does not end as a picture's.
        FailedError: if matplotlib is not installed.
    """
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise OptionError(f"--out: expected a name ending in .png, .svg or .pdf, found {path}")
    if not path.parent.is_dir():
        raise OptionError(f"--out: expected a folder that is there, found {path.parent}")
    if find_spec("matplotlib") is None:
        raise FailedError(
            "a plot needs matplotlib, which is not installed: run pip install 'gatewise[plot]'"
        )


def plot(tables: Sequence[Table], path: Path) -> None:
    """Draw the lines into a file; its kind follows from the name.

    Raises:
        FailedError: if the file cannot be written.
    """
    from matplotlib.figure import Figure

    labels = {row.name: f"{row.label}, {row.dtype}" for t in tables for row in t.rows}
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    for place, (axis, contestants) in enumerate(lines(tables).items()):
        panel = figure.add_subplot(1, len(AXES), place + 1)
        for name, points in contestants.items():
            dash = "-" if name.startswith("gatewise") else "--"
            slope = exponent(points)
            mark = "" if slope is None else f" ({slope:.2f})"
            seconds = [1e3 * s for _, s in points]
            panel.loglog(
                [n for n, _ in points], seconds, dash, marker=".", label=labels[name] + mark
            )
        # only the sizes that were measured: marks of a power of ten's parts lie over one another
        measured = sorted({n for points in contestants.values() for n, _ in points})
        panel.set_xticks(measured, [str(n) for n in measured])
        panel.set_xticks([], minor=True)
        panel.set_xlabel(axis)
        panel.set_ylabel("forward and backward, ms" if not place else "")
        panel.set_title(", ".join(f"{k} {v}" for k, v in _others(axis).items()), fontsize=9)
        panel.legend(fontsize=7, title="exponent in brackets", title_fontsize=7)
        panel.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise FailedError(f"cannot write the plot {path}: {error}") from None


def _others(axis: str) -> dict[str, int]:
    centre = {"T": CENTRE.steps, "B": CENTRE.batch, "H": CENTRE.hidden, "L": CENTRE.layers}
    return {k: v for k, v in centre.items() if k != axis}
