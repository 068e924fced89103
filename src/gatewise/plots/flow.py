"""Pictures of gradients through time: profiles by lag, the whole matrix, singular values of the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gatewise.errors import OptionError
from gatewise.plots.figures import COLOURS, DASHES, new

if TYPE_CHECKING:
    from torch import Tensor

    from gatewise.gradients import Profile, Spectrum


def profiles(lines: Mapping[str, Profile], title: str = "", unit: str = "nats") -> Any:
    """Sensitivity by lag, a line each, on a logarithmic axis.

    Args:
        lines: name -> profile; names that begin alike up to a comma share a colour.
        title: above it.
        unit: of the costs.
    Returns:
        A matplotlib Figure.
    Raises:
        OptionError: there is none.
    """
    if not lines:
        raise OptionError("profiles: expected at least one, found none")
    figure = new(7.5, 4)
    axes = figure.add_subplot()
    groups = list(dict.fromkeys(name.partition(",")[0] for name in lines))
    for name, profile in lines.items():
        group = name.partition(",")[0]
        within = [other for other in lines if other.partition(",")[0] == group]
        values = profile.norms.double().cpu().numpy()
        axes.plot(
            range(len(values)),
            [value if value > 0 else float("nan") for value in values],
            color=COLOURS[groups.index(group) % len(COLOURS)],
            linestyle=DASHES[within.index(name) % len(DASHES)],
            linewidth=1.4,
            label=name,
        )
    axes.set_yscale("log")
    first = next(iter(lines.values()))
    what = "whole state" if first.wrt == "state" else first.wrt
    axes.set(xlabel="lag n, steps", ylabel=f"|d cost[t] / d {what}[t - n]|, {unit}", title=title)
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=8)
    return figure


def matrix(flow: Tensor, wrt: str = "h") -> Any:
    """The matrix of `gatewise.gradients.flow` as a picture, colours by its logarithm."""
    figure = new(5.6, 4.8)
    from matplotlib.colors import LogNorm

    values = flow.double().cpu().numpy()
    peak = float(values[values < math.inf].max(initial=0.0)) or 1.0
    axes = figure.add_subplot()
    norm = LogNorm(vmin=peak * 1e-6, vmax=peak, clip=True)
    shown = axes.imshow(values, cmap="viridis", norm=norm, interpolation="nearest")
    axes.set(xlabel="step k of the state", ylabel="step t of the cost")
    figure.colorbar(shown, ax=axes, label=f"|d cost[t] / d {wrt}[k]|")
    return figure


def spectrum(found: Spectrum, tokens: list[str] | None = None) -> Any:
    """Singular values and spectral radius of the steps of column 0, along the sequence."""
    figure = new(8, 3.6)
    axes = figure.add_subplot()
    times = found.times.tolist()
    values = found.singular[:, 0].double().cpu().numpy()
    axes.fill_between(
        times, values[:, values.shape[1] // 2], values[:, 0], color="#cdd8e2", linewidth=0
    )
    axes.plot(times, values[:, 0], color=COLOURS[0], linewidth=1.2, label="largest singular value")
    middle = values[:, values.shape[1] // 2]
    axes.plot(times, middle, color=COLOURS[5], linewidth=1, label="median singular value")
    radius = found.radius[:, 0].double().cpu().numpy()
    axes.plot(
        times, radius, color=COLOURS[1], linewidth=1.2, linestyle="--", label="spectral radius"
    )
    axes.axhline(1, color="#999999", linewidth=0.7)
    axes.set(xlabel="step", ylabel="of d state[t] / d state[t-1]")
    if tokens and len(tokens) <= 100:
        axes.set_xticks(times, [tokens[time] for time in times], fontsize=7)
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=8)
    return figure
