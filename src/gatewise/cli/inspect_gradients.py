"""`gatewise inspect gradients`: how far back language models look, and how their states move."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.inspecting import given_text, say_unknown
from gatewise.cli.options import Json, with_flag_names
from gatewise.cli.runs import Opening, OpeningFlags, open_any
from gatewise.cli.saving import check_new, save_arrays
from gatewise.errors import OptionError

if TYPE_CHECKING:
    from gatewise.insight import Sensitivity

_SHOWN = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SHARE = 0.01
_FLAGS = ("lags", "windows", "layer", "wrt", "exponents", "spectrum")


def inspect_gradients(
    runs: Annotated[list[Path], Parameter(help="Run folders, or checkpoints of them.")],
    /,
    *,
    text: Annotated[
        str | None,
        Parameter(
            help="Of language models: a file, the text itself, or -: standard input. Of memory tasks: none, their test sequences are read.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    lags: Annotated[int, Parameter(help="How many steps back.")] = 200,
    windows: Annotated[
        int, Parameter(help="Places of the text, or sequences, that are looked at.")
    ] = 16,
    layer: Annotated[
        int, Parameter(help="Whose state; -1: the last.", allow_leading_hyphen=True)
    ] = -1,
    wrt: Annotated[
        str,
        Parameter(
            help="By which state: h, c, ... of the cell, or state: all. By h alone an LSTM looks as if it forgot."
        ),
    ] = "state",
    before: Annotated[
        bool, Parameter(negative="", help="Beside each, the same net before training.")
    ] = False,
    exponents: Annotated[
        int, Parameter(help="So many Lyapunov exponents along the text; 0: none.")
    ] = 0,
    spectrum: Annotated[
        int, Parameter(help="Singular values of the Jacobians of so many steps; 0: none.")
    ] = 0,
    plot: Annotated[Path | None, Parameter(help="Draw the profiles (.png, .svg, .pdf).")] = None,
    out: Annotated[Path | None, Parameter(help="Save all values as a NumPy .npz file.")] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """Gradients through time; `gatewise inspect gradients --help` says more."""
    if plot is not None:
        plots.check(plot)
    check_new(out, endings=(".npz",))
    if opening.engine not in ("auto", "reference"):
        raise OptionError(
            "--engine: gradients by a state are those of the reference engine; leave it out"
        )
    given = None if text is None else given_text(text)
    found: dict[str, Sensitivity] = {}
    options = (lags, windows, layer, wrt, exponents, spectrum)
    for path in runs:
        name = path.name or path.resolve().name
        if name in found:  # another folder of that name
            name = str(path)
        if name in found:
            raise OptionError(f"RUNS: expected each once, found {path} twice")
        found |= _measured(
            name, path, opening, given, dict(zip(_FLAGS, options, strict=True)), before
        )
    if out is not None:
        _save(found, out)
    if json:
        screen.out_json({"runs": {name: _document(one) for name, one in found.items()}})
    else:
        screen.out(_table(found))
    if plot is not None:
        from gatewise.plots import profiles, save

        lines = {name: one.profile for name, one in found.items()}
        save(profiles(lines, unit=_units(found)), plot)
        screen.say(f"drawn: {plot}")
    return 0


def _measured(
    name: str,
    path: Path,
    opening: Opening,
    text: str | None,
    options: Mapping[str, Any],
    before: bool,
) -> dict[str, Sensitivity]:
    """A run, and if asked for the same before training."""
    from gatewise.insight import sensitivity, task_sensitivity, untrained
    from gatewise.run import LanguageRun, TaskRun

    opened = open_any(path, opening, "read")

    def one(model: Any = None) -> Sensitivity:
        if isinstance(opened, TaskRun):
            return task_sensitivity(opened, model=model, **options)
        assert isinstance(opened, LanguageRun)
        return sensitivity(opened, text or "", model=model, **options)

    if isinstance(opened, LanguageRun):
        if text is None:
            raise OptionError(f"--text: expected a text to read with {path}, found none")
        say_unknown(opened, text)
    elif isinstance(opened, TaskRun):
        if text is not None:
            screen.say(f"note: {name} reads the test sequences of its task, not --text")
    else:
        raise OptionError(
            f"{path}: expected a run of mapping 'lm' or 'task', found {opened.mapping!r}: "
            "gatewise.gradients takes any net"
        )
    try:
        found = {name: one()}
        if before:
            found[f"{name}, untrained"] = one(untrained(opened))
    except OptionError as error:
        raise with_flag_names(error, _FLAGS) from None
    return found


def _table(found: Mapping[str, Sensitivity]) -> str:
    first = next(iter(found.values())).profile
    longest = max(len(one.profile.norms) for one in found.values())
    lags = [lag for lag in _SHOWN if lag < longest]
    rows = [["", *found]]
    rows.append(["cost", *(f"{one.nats:.3f}" for one in found.values())])
    for lag in lags:
        rows.append([f"lag {lag}", *(_norm(one, lag) for one in found.values())])
    rows.append(["nats/step", *(_signed(one.profile.decay()) for one in found.values())])
    rows.append(
        [f"reach ({_SHARE:.0%})", *(str(one.profile.reach(_SHARE)) for one in found.values())]
    )
    rows.append(["mean lag", *(f"{one.profile.mean_lag:.1f}" for one in found.values())])
    rows += _dynamics(found)
    what = "the whole state" if first.wrt == "state" else first.wrt
    layers = _several(one.profile.layer for one in found.values())
    counts = _several(one.windows for one in found.values())
    head = f"|d cost[t] / d {what}[t - lag]| of layer {layers}, in {_units(found)}, mean of {counts} places"
    return f"{head}\n{screen.folded(rows)}"


def _units(found: Mapping[str, Sensitivity]) -> str:
    return " or ".join(dict.fromkeys(one.unit for one in found.values()))


def _several(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _dynamics(found: Mapping[str, Sensitivity]) -> list[list[str]]:
    rows = []
    several = list(found.values())
    exponents = [one.exponents for one in several]
    if all(one is not None for one in exponents):
        largest = [one.values[0] for one in exponents if one is not None]
        for k in range(min(len(values) for values in largest)):
            rows.append([f"exponent {k + 1}", *(_signed(float(values[k])) for values in largest)])
    spectra = [one.spectrum for one in several]
    if all(one is not None for one in spectra):
        top = [float(one.singular[:, 0, 0].mean()) for one in spectra if one is not None]
        radius = [float(one.radius.mean()) for one in spectra if one is not None]
        rows.append(["singular value, largest", *(f"{value:.3f}" for value in top)])
        rows.append(["spectral radius", *(f"{value:.3f}" for value in radius)])
    return rows


def _norm(one: Sensitivity, lag: int) -> str:
    norms = one.profile.norms
    return f"{float(norms[lag]):.2e}" if lag < len(norms) else "-"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.4f}"


def _document(one: Sensitivity) -> dict[str, Any]:
    """As JSON values."""
    profile = one.profile
    found: dict[str, Any] = {
        "wrt": profile.wrt,
        "layer": profile.layer,
        "windows": one.windows,
        "nats_per_token" if one.unit == "nats" else "squared_error": one.nats,
        "norms": profile.norms,
        "nats_per_step": profile.decay(),
        "reach": profile.reach(_SHARE),
        "mean_lag": profile.mean_lag,
    }
    if one.exponents is not None:
        found["exponents"] = one.exponents.values[0]
    if one.spectrum is not None:
        found["singular"] = one.spectrum.singular[:, 0]
        found["radius"] = one.spectrum.radius[:, 0]
    return found


def _save(found: Mapping[str, Sensitivity], out: Path) -> None:
    arrays: dict[str, Any] = {}
    for name, one in found.items():
        for key in ("norms", "exponents", "singular", "radius"):
            if key in (document := _document(one)):
                arrays[f"{name}/{key}"] = document[key].cpu().numpy()
    save_arrays(out, arrays)
