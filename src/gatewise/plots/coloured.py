"""A text with each token on the colour of one unit's value (after Karpathy, Johnson & Fei-Fei 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gatewise.errors import DataError
from gatewise.plots.figures import new

WIDEST, MOST_ROWS = 90, 60
"""Characters of a row, after which it is folded; rows."""
_LETTER = 0.09
"""Inches of a letter of a label."""


def coloured(pieces: Sequence[str], values: Sequence[float], label: str) -> Any:
    """The text in rows, orange where the unit is below 0, purple above it.

    Args:
        pieces: the text of each token.
        values: of each.
        label: what the colours are: layers.0.c, unit 17.
    Returns:
        A matplotlib Figure.
    Raises:
        DataError: the text is empty, or has more rows than `MOST_ROWS`.
    """
    rows = _rows(pieces, values)
    if not 1 <= len(rows) <= MOST_ROWS:
        raise DataError(f"expected a text of 1 to {MOST_ROWS} rows to colour, found {len(rows)}")
    wide = max(len(row) for row in rows)
    edge = max((abs(value) for row in rows for _, value in row), default=0.0) or 1.0
    height = 0.7 + 0.2 * len(rows)
    beside = _LETTER * len(label) <= height  # else the name of the colours stands above
    figure = new(1.2 + 0.095 * max(wide, 20), height if beside else height + 0.3)
    axes = figure.subplots()
    grid = [[value for _, value in row] + [float("nan")] * (wide - len(row)) for row in rows]
    shown = axes.imshow(grid, cmap="PuOr", vmin=-edge, vmax=edge, aspect="auto")
    for y, row in enumerate(rows):
        for x, (char, value) in enumerate(row):
            dark = value > 0.6 * edge or value < -0.8 * edge  # purple is the darker of the two
            axes.text(
                x,
                y,
                char.replace("$", r"\$"),
                ha="center",
                va="center",
                fontsize=8,
                family="monospace",
                color="white" if dark else "black",
            )
    axes.set_axis_off()
    figure.colorbar(shown, ax=axes, pad=0.01, label=label if beside else "")
    if not beside:
        axes.set_title(label, fontsize=10, loc="left")
    return figure


def _rows(pieces: Sequence[str], values: Sequence[float]) -> list[list[tuple[str, float]]]:
    """Each character with its token's value, in rows; a new line is shown as its sign."""
    rows: list[list[tuple[str, float]]] = [[]]
    for piece, value in zip(pieces, values, strict=True):
        for char in piece:
            if len(rows[-1]) == WIDEST:
                rows.append([])
            rows[-1].append(("\u21b5" if char == "\n" else char, value))
            if char == "\n":
                rows.append([])
    return [row for row in rows if row]
