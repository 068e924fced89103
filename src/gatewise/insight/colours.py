"""A text coloured by one unit: for a terminal, and as a page."""

from __future__ import annotations

import html
from collections.abc import Sequence

_BELOW, _ABOVE = (230, 97, 1), (0, 114, 178)
"""Orange and blue: told apart with any colour vision."""

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.6 ui-monospace, monospace; margin: 2rem auto; max-width: 110ch; padding: 0 1rem; color: #111; background: #fff; }}
h1 {{ font: 600 1.1rem system-ui, sans-serif; }} pre {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
p {{ font: 14px system-ui, sans-serif; }} .key {{ padding: 0 .6em; }}
</style></head>
<body><h1>{title}</h1>
<p><span class="key" style="background:{low}">{least:+.3f}</span> to
<span class="key" style="background:{high}">{most:+.3f}</span>; 0 is white. Point at a token for its value.</p>
<pre>{text}</pre></body></html>
"""


def shade(value: float, edge: float) -> tuple[int, int, int]:
    """The colour of a value: white at 0, orange at -edge, blue at edge and beyond."""
    share = min(1.0, abs(value) / edge) if edge > 0 else 0.0
    colour = _BELOW if value < 0 else _ABOVE
    red, green, blue = (round(255 + (one - 255) * 0.75 * share) for one in colour)
    return red, green, blue


def terminal(tokens: Sequence[str], values: Sequence[float]) -> str:
    """The text with its tokens on coloured grounds, in 24-bit escapes.

    Args:
        tokens: as written; line feeds stay.
        values: of one unit, one each.
    """
    edge = max((abs(value) for value in values), default=0.0)
    parts = []
    for token, value in zip(tokens, values, strict=True):
        red, green, blue = shade(value, edge)
        paint = f"\x1b[38;2;0;0;0;48;2;{red};{green};{blue}m"
        # a ground that runs over an end of line colours the rest of the line
        parts.append(
            "\n".join(f"{paint}{line}\x1b[0m" if line else "" for line in token.split("\n"))
        )
    return "".join(parts)


def page(tokens: Sequence[str], values: Sequence[float], title: str) -> str:
    """The same as one page of HTML that needs nothing else."""
    edge = max((abs(value) for value in values), default=0.0)
    spans = [
        f'<span style="background:{_css(value, edge)}" title="{value:+.4f}">{html.escape(token)}</span>'
        for token, value in zip(tokens, values, strict=True)
    ]
    least, most = min(values, default=0.0), max(values, default=0.0)
    return _PAGE.format(
        title=html.escape(title),
        low=_css(least, edge),
        high=_css(most, edge),
        least=least,
        most=most,
        text="".join(spans),
    )


def _css(value: float, edge: float) -> str:
    return "#{:02x}{:02x}{:02x}".format(*shade(value, edge))
