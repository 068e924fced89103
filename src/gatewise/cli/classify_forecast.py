"""How series go on by a forecaster, for `gatewise classify`: numbers with their quantiles, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.evaluate_forecasts import series_of
from gatewise.cli.runs import say_notes
from gatewise.errors import DataError, OptionError, unknown

if TYPE_CHECKING:  # only these names: the page of help must not wait for torch
    from gatewise.probe import Control
    from gatewise.run import Forecast, ForecastRun
    from gatewise.tasks.histories import History

_SHOWN = (0.1, 0.5, 0.9)
_STEPS = 24
_SEVERAL = 8
"""Series whose numbers are shown at once."""


@dataclass(frozen=True, kw_only=True)
class Future:
    """How far, and how; of a run of `forecast`."""

    steps: int | None = None
    """Steps to forecast. Default: those whose covariates are known, one season, or 24."""

    samples: int = 200
    """Paths that are drawn."""

    series: str | None = None
    """Of several series the one of this name; default: all of them."""

    seed: int = 0
    """Draw the same paths each time."""


FutureFlags = Annotated[Future, Parameter(name="*", group="Forecasts")]


def classify_forecast(
    opened: ForecastRun,
    data: Sequence[str],
    future: Future,
    *,
    plot: Path | None = None,
    control: Control | None = None,
    engine: str = "auto",
    json: bool = False,
) -> int:
    """Forecast the series in tables; without any those that an embedded run was trained on.

    Args:
        opened: the run.
        data: files with the columns that it was trained on.
        future: how far, and how.
        plot: of one series, a new file of .png, .svg or .pdf.
        control: what to set in the gates.
        engine: of the recurrent layers.
        json: one document, with all quantiles.
    """
    if plot is not None:
        from gatewise.cli import plots

        plots.check(plot)
    chosen = _chosen(series_of(opened, data), future.series)
    if plot is not None and len(chosen) != 1:
        names = ", ".join(one.name for one in chosen[:_SEVERAL])
        raise OptionError(
            f"--plot: expected one series, found {len(chosen):,} ({names}): name one by --series"
        )
    documents = []
    for one in chosen:
        steps = _steps(opened, one, future.steps)
        found = opened.forecast(
            one, steps, samples=future.samples, seed=future.seed, control=control, engine=engine
        )
        if plot is not None:
            from gatewise.cli.plots_forecast import forecast

            forecast(plot, one, found)
            screen.say(f"drawn: {plot}")
        if json:
            documents.append(_document(one, found))
        else:
            say_notes(found.notes)
            _show(one, found, several=len(chosen) > 1)
    if json:
        screen.out_json({"run": str(opened.path), "forecasts": documents})
    return 0


def _chosen(series: list[History], name: str | None) -> list[History]:
    if name is None:
        return series
    found = [one for one in series if one.name == name]
    if not found:
        raise unknown("series", name, [one.name for one in series])
    return found


def _steps(opened: ForecastRun, one: History, asked: int | None) -> int:
    if not opened.config.get("covariates"):
        season = opened.model.config.season
        return asked if asked is not None else season if season > 1 else _STEPS
    if not one.ahead or (asked or 0) > one.ahead:
        raise DataError(
            f"series {one.name}: expected covariates of {asked or 'the'} steps to come, found those of "
            f"{one.ahead}: give rows behind the last value, with the covariates alone"
        )
    return asked if asked is not None else one.ahead


def _coming(one: History, steps: int) -> list[str]:
    """The times of the steps to come, as the file has them; else their numbers."""
    size = len(one.values)
    known = one.times[size : size + steps]
    return known if len(known) == steps else [f"+{k}" for k in range(1, steps + 1)]


def _show(one: History, found: Forecast, *, several: bool) -> None:
    levels = [level for level in _SHOWN if level in found.quantiles]
    head = [one.name, *(["forecast"] if not levels else []), *(f"{level:.0%}" for level in levels)]
    rows = [head]
    for k, time in enumerate(_coming(one, len(found.points))):
        values = [found.quantiles[level][k] for level in levels] or [found.points[k]]
        rows.append([time, *(f"{value:,.4g}" for value in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        screen.out("  ".join([screen.visible(row[0]).ljust(widths[0]), *cells]).rstrip())
    if several:
        screen.out()


def _document(one: History, found: Forecast) -> dict[str, Any]:
    return {
        "series": one.name,
        "times": _coming(one, len(found.points)),
        "points": found.points,
        "quantiles": {str(level): values for level, values in found.quantiles.items()},
        "notes": found.notes,
    }
