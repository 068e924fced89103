"""Rows of numbers as small line charts: SVG inside the HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gatewise.display.markup import Markup, escape

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Told apart with any colour vision (Okabe & Ito 2008)."""
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_WIDTH, _HEIGHT, _LEFT, _BELOW = 420, 150, 62, 34
_POINTS = 240


def line_chart(
    lines: Mapping[str, Sequence[float]],
    across: str,
    up: str,
    *,
    logarithmic: bool = False,
    start: int = 0,
) -> Markup:
    """Lines over their places, up to four; of more than 240 points every n-th.

    Args:
        lines: name -> values; what is no number, or on a logarithmic axis not above 0, is left out.
        across, up: what the axes say, units included.
        logarithmic: the axis up.
        start: the place of the first value.
    """
    shown = dict(list(lines.items())[: len(_COLOURS)])
    points = {name: _points(values, logarithmic) for name, values in shown.items()}
    heights = [y for found in points.values() for _, y in found]
    if not heights:
        return Markup("<p>nothing to draw</p>")
    last = max((len(values) for values in shown.values()), default=1) - 1
    frame = _Frame(last, min(heights), max(heights), 13 * len(points) if len(points) > 1 else 0)
    parts = [frame.axes(across, up, start, logarithmic)]
    for place, (name, found) in enumerate(points.items()):
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in found)
        colour, dash = _COLOURS[place], _DASHES[place]
        look = f'fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="{dash}"'
        parts.append(f'<polyline {look} points="{path}"/>')
        if len(points) > 1:
            at = 9 + 13 * place
            parts.append(f'<path d="M {_LEFT},{at} h 26" {look}/>')
            parts.append(f'<text x="{_LEFT + 32}" y="{at + 4}">{escape(name)}</text>')
    return frame.drawn(parts)


class _Frame(NamedTuple):
    """Where places and values are drawn; above them is room for the names of the lines."""

    last: int
    low: float
    high: float
    room: int

    @property
    def bottom(self) -> int:
        return _HEIGHT - _BELOW + self.room

    def x(self, place: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 8) * place / max(self.last, 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return 10 + self.room + (_HEIGHT - _BELOW - 14) * (1 - share)

    def axes(self, across: str, up: str, start: int, logarithmic: bool) -> str:
        """Both axes, what they are of, and their ends."""
        left, bottom = _LEFT - 4, self.bottom
        middle = (10 + self.room + bottom) // 2
        parts = [
            f'<path d="M {left},{self.room + 6} V {bottom} H {_WIDTH - 6}" fill="none" stroke="#666"/>',
            f'<text x="{(_WIDTH + _LEFT) // 2}" y="{bottom + 28}" text-anchor="middle">{escape(across)}</text>',
            f'<text x="12" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 12 {middle})">{escape(up)}</text>',
            f'<text x="{_LEFT}" y="{bottom + 13}">{start:,}</text>',
            f'<text x="{_WIDTH - 8}" y="{bottom + 13}" text-anchor="end">{start + self.last:,}</text>',
        ]
        for value in dict.fromkeys((self.low, self.high)):
            written = f"{10**value:.0e}" if logarithmic else f"{value:.3g}"
            at = f'x="{left - 4}" y="{self.y(value) + 4:.1f}" text-anchor="end"'
            parts.append(f"<text {at}>{written}</text>")
        return "".join(parts)

    def drawn(self, parts: list[str]) -> Markup:
        """The whole picture, on white."""
        size = f'width="{_WIDTH}" height="{_HEIGHT + self.room}"'
        head = f'viewBox="0 0 {_WIDTH} {_HEIGHT + self.room}" {size} role="img"'
        style = 'font-family="sans-serif" font-size="11"'
        ground = f'<rect {size} fill="#fff"/>'
        return Markup(
            f'<svg xmlns="http://www.w3.org/2000/svg" {head} {style}>{ground}{"".join(parts)}</svg>'
        )


def _points(values: Sequence[float], logarithmic: bool) -> list[tuple[int, float]]:
    step = math.ceil(len(values) / _POINTS) or 1
    found = []
    for place in range(0, len(values), step):
        value = float(values[place])
        if math.isfinite(value) and (value > 0 or not logarithmic):
            found.append((place, math.log10(value) if logarithmic else value))
    return found
