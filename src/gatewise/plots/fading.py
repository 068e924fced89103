"""One input fading in an unrolled net, or kept by its gates (after Graves 2012, figures 4.1 and 4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gatewise.plots.figures import new, plain

if TYPE_CHECKING:
    from gatewise.insight import Fading

_ROWS = {"said": 2.0, "kept": 1.0, "input": 0.0}
_NODE, _GATE = 0.23, 0.11
_GATES = {"input": (0.0, -0.42), "forget": (-0.5, 0.0), "output": (0.0, 0.42)}
_FAINTEST = 0.003
"""Of the darkest: what is fainter is white."""


def fading(*several: Fading, key: bool = False) -> Any:
    """Nodes from left to right in time, a panel each: the input below, the unit's memory, what it says above.

    The darker a node, the more it depends on the input that is followed (log scale, from the panel's largest
    down to 0.3 % of it). A gate is a ring that is as high as it is open: a circle open, a line closed; below the
    memory its input gate, left of it forget, above output.

    Args:
        several: a panel each.
        key: say below what greys and rings are, for a picture that stands alone.
    Returns:
        A matplotlib Figure.
    """
    longest = max(len(one.tokens) for one in several)
    figure = new(1.8 + 0.55 * longest, 2.1 * len(several) + (0.6 if key else 0.3))
    panels = figure.subplots(len(several), 1, squeeze=False)[:, 0].tolist()
    for axes, one in zip(panels, several, strict=True):
        _panel(axes, one)
    if key:
        said = f"the darker a node, the more it depends on that input (white: {_FAINTEST:.1%} of the most, or less)"
        if any(one.gates for one in several):
            said += "\nring: a gate, as high as it is open; input below, forget left, output above"
        figure.supxlabel(said, fontsize=8)
    return figure


def _panel(axes: Any, one: Fading) -> None:
    rows = _ROWS if one.memory != "h" else {"kept": 1.0, "input": 0.0}
    largest = max(float(one.kept.max()), 1e-300)
    largest_said = max(float(one.said.max()), 1e-300)
    for t, token in enumerate(one.tokens):
        shades = {
            "input": 1.0 if t == one.since else 0.0,
            "kept": _shade(float(one.kept[t]) / largest),
            "said": _shade(float(one.said[t]) / largest_said),
        }
        for row, y in rows.items():
            _node(axes, t, y, shades[row])
        for gate, values in one.gates.items():
            dx, dy = _GATES[gate]
            _gate(axes, t + dx, 1.0 + dy, float(values[t]))
        shown = plain(token) if token.strip() else "\u00b7"
        axes.text(t, -0.5, shown, ha="center", va="center", fontsize=9, family="monospace")
    held = "h" if one.memory == "h" else f"{one.memory}: what it holds"
    names = {"said": "h: what it says", "kept": held, "input": "input"}
    axes.set_yticks([rows[row] for row in rows], [names[row] for row in rows])
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_xlim(-0.8, len(one.tokens) - 0.3)
    axes.set_ylim(-0.75, max(rows.values()) + 0.45)
    axes.set_aspect("equal")
    for side in axes.spines.values():
        side.set_visible(False)
    title = f"layer {one.layer}, unit {one.unit}: how the input at step {one.since} fades"
    axes.set_title(f"{one.name}, {title}" if one.name else title, fontsize=10, loc="left")


def _shade(share: float) -> float:
    """1 for the largest, 0 for what is below the faintest, even steps on a log scale between."""
    import math

    if share <= _FAINTEST:
        return 0.0
    return 1.0 - math.log(share) / math.log(_FAINTEST)


def _node(axes: Any, x: float, y: float, shade: float) -> None:
    from matplotlib.patches import Circle

    grey = str(round(1.0 - 0.95 * shade, 3))
    axes.add_patch(Circle((x, y), _NODE, facecolor=grey, edgecolor="black", linewidth=0.8))


def _gate(axes: Any, x: float, y: float, value: float) -> None:
    """A ring as high as the gate is open."""
    from matplotlib.patches import Ellipse

    height = 2 * _GATE * min(max(value, 0.0), 1.0)
    ring = Ellipse((x, y), 2 * _GATE, height, facecolor="none", edgecolor="#d55e00", linewidth=1.4)
    axes.add_patch(ring)
