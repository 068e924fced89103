"""`gatewise eval` of a forecaster: one step ahead and running freely, beside naive forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.errors import DataError, OptionError, unknown

if TYPE_CHECKING:  # only these names: the page of help must not wait for torch
    from gatewise.run import ForecastRun
    from gatewise.tasks.histories import Histories, History

_HORIZON = 24
_ROWS = {
    "mae": "MAE",
    "rmse": "RMSE",
    "mase": "MASE",
    "smape": "sMAPE, %",
    "pinball": "pinball",
    "crps": "CRPS",
}
_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How far free runs go; of a run of `forecast`."""

    horizon: int | None = None
    """Steps of a free run. Default: one season, or 24."""

    origins: int | None = None
    """Steps from the beginning of one free run to that of the next; default: one more than half of --horizon,
    so that they begin in all phases of a season."""

    samples: int = 200
    """Paths that are drawn in a free run."""


MeasuringFlags = Annotated[Measuring, Parameter(name="*", group="Forecasts")]


def evaluate_forecasts(
    opened: ForecastRun,
    data: Sequence[str],
    part: str,
    fractions: Sequence[float],
    measuring: Measuring,
    engine: str,
    *,
    json: bool,
) -> int:
    """Figures of each part, as a table or a document.

    Args:
        opened: the run.
        data: files with the columns that it was trained on; none: the embedded series, cut as for training.
        part: "all", "train", "valid" or "test".
        fractions: shares of train, valid and test, in the order of time; (1,): all as one.
        measuring: how far.
        engine: of the recurrent layers.
        json: one document, with the figures of every step ahead.
    """
    from gatewise.run.forecast_measures import Horizon, measure

    season = opened.model.config.season
    steps = season if season > 1 else _HORIZON
    if measuring.horizon is not None:
        steps = measuring.horizon
    _check(measuring)
    horizon = Horizon(steps, measuring.origins, measuring.samples)
    found = _histories(opened, data)
    cut = tuple(fractions) if data else opened.windows.fractions
    if not data and part == "all":
        part = "test"
    figures = measure(opened, found, cut, horizon, engine=engine)
    if len(cut) == 1 and all(one.part is None for one in found.series):
        figures = {"series": figures["train"]}
    if part != "all":
        if part not in figures:
            raise unknown("part", part, figures)
        figures = {part: figures[part]}
    if json:
        screen.out_json({"run": str(opened.path), "step": opened.step, "parts": figures})
    else:
        for name, each in figures.items():
            _show(name, each)
    return 0


def _check(measuring: Measuring) -> None:
    for name, value in vars(measuring).items():
        if value is not None and value < 1:
            raise OptionError(f"--{name}: expected a whole number from 1, found {value}")


def series_of(opened: ForecastRun, data: Sequence[str]) -> list[History]:
    """The series in files, by the columns that the run was trained on; without any the embedded ones."""
    return _histories(opened, data).series


def _histories(opened: ForecastRun, data: Sequence[str]) -> Histories:
    from gatewise.cli.train_forecast import SeriesOptions, read_series
    from gatewise.tasks.known_series import embedded_series
    from gatewise.train import with_values

    files = opened.config.get("files")
    options = with_values(SeriesOptions(), files if isinstance(files, dict) else {})
    if not data:
        if not opened.config.get("embedded"):
            raise DataError(
                f"{opened.path}: expected DATA, found none: name a table with the columns of the training"
            )
        return embedded_series(options.embedded)
    found = read_series(list(data), options)
    for note in found.notes:
        screen.say(f"note: {note}")
    return found


def _show(name: str, figures: Mapping[str, Any]) -> None:
    steps, names = figures["horizon"], list(figures["free"])
    screen.out(
        f"{name}: {figures['values']:,} values; {figures['origins']:,} free runs of {steps} steps"
    )
    for words, which in (("one step ahead", "one_step"), (f"{steps} steps, free", "free")):
        each = figures[which]
        rows = [[words, *names]]
        for key, label in _ROWS.items():
            if any(each[n].get(key) is not None for n in names):
                rows.append([label, *(_number(each[n].get(key)) for n in names)])
        shares = each["model"].get("intervals") or {}
        rows += [[f"in the {float(s):.0%} interval", _number(v)] for s, v in shares.items()]
        _table(rows)
    _table(_by_step(figures["free"], names, steps))


def _by_step(free: Mapping[str, Any], names: Sequence[str], steps: int) -> list[list[str]]:
    """The absolute error at some steps ahead."""
    shown = [k for k in (1, 2, 3, 6, 12, 24, 48, 96, 192) if k < steps] + [steps]
    rows = [["MAE by step ahead", *names]]
    for k in shown:
        rows.append([str(k), *(_number(free[n]["steps"][k - 1]["mae"]) for n in names)])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)]
        screen.out("  ".join([row[0].ljust(max(22, widths[0])), *cells]))
    screen.out()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.{_DIGITS}f}"
