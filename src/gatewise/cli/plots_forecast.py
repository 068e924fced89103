"""A forecast as a picture: the end of its history, the forecast, and bands of how sure it is (the extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gatewise.plots.figures import new as _figure
from gatewise.plots.figures import plain as _plain
from gatewise.plots.figures import save as _save

if TYPE_CHECKING:
    from gatewise.run import Forecast
    from gatewise.tasks.histories import History

_BEFORE = 4
"""How many times the forecast's length of the history is drawn."""

_BANDS = ((0.05, 0.95), (0.25, 0.75))
_SHADES = ("#cdd8e2", "#a7b9cc")
"""Of the bands, so that the legend shows each as it is drawn."""


def forecast(path: Path, history: History, found: Forecast) -> None:
    """Draw a forecast behind its history.

    Args:
        path: of the picture.
        history: of the series.
        found: how it goes on.
    """
    steps, size = len(found.points), len(history.values)
    begin = max(0, size - _BEFORE * steps)
    figure = _figure(9, 3.6)
    axes = figure.add_subplot()
    axes.plot(
        range(begin, size), history.values[begin:], color="#444444", linewidth=1, label="history"
    )
    coming = range(size, size + steps)
    for (low, high), shade in zip(_BANDS, _SHADES, strict=True):
        if low in found.quantiles and high in found.quantiles:
            label = f"{high - low:.0%} of the paths"
            band = (found.quantiles[low], found.quantiles[high])
            axes.fill_between(coming, *band, color=shade, linewidth=0, label=label)
    axes.plot(coming, found.points, color="#36648b", linewidth=1.5, label="forecast")
    axes.axvline(size - 0.5, color="#bbbbbb", linewidth=0.8)
    axes.set_ylabel(_plain(history.name))
    axes.set_xlabel("step")
    axes.margins(x=0.01)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=8, frameon=False)
    _save(figure, path)
