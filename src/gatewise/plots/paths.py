"""Paths of states in the plane or space in which they differ most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gatewise.errors import OptionError, ShapeError
from gatewise.plots.figures import COLOURS, DASHES, new

if TYPE_CHECKING:
    from torch import Tensor

    from gatewise.insight import Plane, SlowPoints


def paths(
    plane: Plane,
    states: Tensor,
    classes: Sequence[str] | None = None,
    slow: SlowPoints | None = None,
) -> Any:
    """States over time on the first two or three axes of a plane, a line a sequence.

    Args:
        plane: of two or three dimensions.
        states: (T, B, S).
        classes: of each sequence: its colour. Default: colours say the time, from dark to light.
        slow: points to mark: filled where they attract, hollow where a direction grows.
    Returns:
        A matplotlib Figure.
    Raises:
        OptionError: the plane has another number of dimensions.
        ShapeError: states are not (T, B, S), or there is not a class for each sequence.
    """
    dimensions = len(plane.axes)
    if dimensions not in (2, 3):
        raise OptionError(f"paths: expected a plane of 2 or 3 dimensions, found {dimensions}")
    if states.ndim != 3:
        raise ShapeError(f"paths: expected states (T, B, S), found {tuple(states.shape)}")
    if classes is not None and len(classes) != states.shape[1]:
        raise ShapeError(
            f"paths: expected a class for each of {states.shape[1]} sequences, found {len(classes)}"
        )
    figure = new(6, 5)
    axes = figure.add_subplot(projection="3d") if dimensions == 3 else figure.add_subplot()
    points = plane.project(states.double().cpu().to(plane.mean)).double().cpu().numpy()
    if classes is None:
        for column in range(points.shape[1]):
            axes.plot(*points[:, column].T, color="#bbbbbb", linewidth=0.5, zorder=1)
        times = [t for t in range(len(points)) for _ in range(points.shape[1])]
        flat = points.reshape(-1, dimensions)
        shown = axes.scatter(*flat.T, c=times, cmap="viridis", s=6, zorder=2)
        figure.colorbar(shown, ax=axes, label="time, steps", shrink=0.7)
    else:
        names = sorted(set(classes))
        for number, name in enumerate(names):
            again, colour = divmod(number, len(COLOURS))  # a colour again with other dashes
            look: dict[str, Any] = {
                "color": COLOURS[colour],
                "linestyle": DASHES[again % len(DASHES)],
            }
            for column in [k for k, one in enumerate(classes) if one == name]:
                axes.plot(*points[:, column].T, linewidth=0.8, alpha=0.7, **look)
            axes.plot([], [], label=name, **look)
    if slow is not None and len(slow):
        _mark(axes, plane, slow)
    handles, labels = axes.get_legend_handles_labels()
    if labels:  # above, where no path is
        figure.legend(
            handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=8
        )
    of = " of the variance" if dimensions == 2 else ""  # in space there is less room
    for k, (which, share) in enumerate(zip("xyz", plane.shares.tolist(), strict=False)):
        axes.set(**{f"{which}label": f"component {k + 1}, {share:.0%}{of}"})
    return figure


def _mark(axes: Any, plane: Plane, slow: SlowPoints) -> None:
    """Points at which the net rests, filled where they attract, and what they are in the legend."""
    places = plane.project(slow.states.to(plane.mean)).double().cpu().numpy()
    growing = slow.unstable.cpu().numpy() > 0
    for chosen, face, name in (
        (~growing, "#000000", "rests, attracts"),
        (growing, "none", "rests, a direction leaves"),
    ):
        if chosen.any():
            how: dict[str, Any] = {"facecolors": face, "edgecolors": "#000000", "label": name}
            if places.shape[1] == 3:
                how["depthshade"] = False  # black is black wherever it stands
            axes.scatter(*places[chosen].T, s=60, marker="o", zorder=3, **how)
