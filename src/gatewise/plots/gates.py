"""Gates and states along a text, as heat maps of time by units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gatewise.errors import ShapeError
from gatewise.plots.figures import new, plain

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 150
"""Tokens up to which each is written below the map."""


def gates(*parts: tuple[Sequence[str], Mapping[str, Tensor]]) -> Any:
    """A map for each gate or state: units down, time across, the tokens below.

    Gates (0 to 1) go from white, closed, to blue, open; states from orange, below 0, to purple, above it.

    Args:
        parts: one or several sequences, such as a source and its translation: the tokens as they are shown, T,
            and path -> (T, units).
    Returns:
        A matplotlib Figure.
    Raises:
        ShapeError: there is nothing to draw, or something is not (T, units).
    """
    drawn = [(tokens, path, values) for tokens, record in parts for path, values in record.items()]
    if not drawn or not all(tokens for tokens, _ in parts):
        raise ShapeError("expected tokens, and gates or states along them, found none")
    for tokens, path, values in drawn:
        if values.ndim != 2 or len(values) != len(tokens):
            raise ShapeError(
                f"{path}: expected (T, units) of {len(tokens)} tokens, found {tuple(values.shape)}"
            )
    heights = [max(1.6, min(6.0, values.shape[1] * 0.045)) for _, _, values in drawn]
    longest = max(len(tokens) for tokens, _ in parts)
    figure = new(max(5.0, min(24.0, 2.0 + 0.14 * longest)), len(parts) + sum(heights))
    panels = figure.subplots(len(drawn), 1, squeeze=False, height_ratios=heights)[:, 0].tolist()
    for k, (axes, (tokens, path, values)) in enumerate(zip(panels, drawn, strict=True)):
        _panel(figure, axes, path, values)
        if k + 1 == len(drawn) or drawn[k + 1][0] is not tokens:
            _tokens_below(axes, tokens)
        else:
            axes.set_xticks([])
    return figure


def _tokens_below(axes: Any, tokens: Sequence[str]) -> None:
    """Each token under its column, or, of many, only what the axis counts."""
    if len(tokens) > _MOST:
        axes.set_xlabel("time, tokens")
        return
    shown = [plain(token) if token.strip() else "\u00b7" for token in tokens]
    long = max(map(len, shown)) > 2
    axes.set_xticks(range(len(tokens)), shown, fontsize=7, family="monospace", rotation=90 * long)
    axes.tick_params(axis="x", length=0)


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
