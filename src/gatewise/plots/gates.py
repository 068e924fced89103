"""Gates and states along a text, as heat maps of time by units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gatewise.plots.figures import new, plain

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 150
"""Tokens up to which each is written below the map."""


def gates(tokens: Sequence[str], record: Mapping[str, Tensor]) -> Any:
    """A map for each gate or state: units down, time across, the tokens below.

    Gates (0 to 1) go from white, closed, to blue, open; states from orange, below 0, to purple, above it.

    Args:
        tokens: as they are shown, T.
        record: path -> (T, units).
    Returns:
        A matplotlib Figure.
    """
    height = sum(max(1.6, min(6.0, values.shape[1] * 0.045)) for values in record.values())
    figure = new(max(5.0, min(24.0, 2.0 + 0.14 * len(tokens))), 1.0 + height)
    panels = figure.subplots(len(record), 1, sharex=True, squeeze=False)[:, 0].tolist()
    for axes, (path, values) in zip(panels, record.items(), strict=True):
        _panel(figure, axes, path, values)
    last = panels[-1]
    if len(tokens) <= _MOST:
        shown = [plain(token) if token.strip() else "\u00b7" for token in tokens]
        last.set_xticks(range(len(tokens)), shown, fontsize=7, family="monospace")
        last.tick_params(axis="x", length=0)
    else:
        last.set_xlabel("time, tokens")
    return figure


def _panel(figure: Any, axes: Any, path: str, values: Tensor) -> None:
    numbers = values.double().cpu().numpy().T
    low, high = float(numbers.min()), float(numbers.max())
    if low >= 0 and high <= 1:
        look = {"cmap": "Blues", "vmin": 0.0, "vmax": 1.0}
    else:
        # the few largest would leave the rest white
        edge = float(sorted(abs(numbers).ravel().tolist())[int(0.98 * (numbers.size - 1))]) or 1.0
        look = {"cmap": "PuOr", "vmin": -edge, "vmax": edge}
    shown = axes.imshow(numbers, aspect="auto", interpolation="nearest", **look)
    axes.set_ylabel(f"{path}, unit")
    figure.colorbar(shown, ax=axes, pad=0.01, label=path.rpartition(".")[2])
