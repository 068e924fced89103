"""Tables and blocks of HTML that stand by themselves: no script, no style sheet, all text escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

_ROWS = 100
_CHARACTERS = 400

_CELL = "padding:.15em .8em .15em 0;text-align:left;vertical-align:top"
_HEAD = f"{_CELL};border-bottom:1px solid #8888;font-weight:600"


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content: TypeAlias = "str | int | float | None"


def escape(content: Content) -> Markup:
    """A cell's content as HTML: text escaped and cut at 400 characters, numbers written out, None empty."""
    if isinstance(content, Markup):
        return content
    if content is None:
        return Markup()
    text = content if isinstance(content, str) else number(content)
    if len(text) > _CHARACTERS:
        text = f"{text[:_CHARACTERS]} \u2026"
    return Markup(html.escape(text))


def number(value: float) -> str:
    """`1,234`, `0.1235`, `1.2e-05`: whole numbers in full, others with four digits."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isfinite(value) and value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def table(head: Sequence[Content], rows: Iterable[Sequence[Content]], more: int = 0) -> Markup:
    """A table of at most 100 rows; what is beyond is counted, not written.

    Args:
        head: what stands above the columns; empty: nothing.
        rows: the cells.
        more: rows that there are and that are not given.

    >>> table(["name"], [["<b>"]]).count("&lt;b&gt;")
    1
    """
    every = [list(row) for row in rows]
    lines = [_row(head, "th", _HEAD)] if head else []
    lines += [_row(row, "td", _CELL) for row in every[:_ROWS]]
    left = max(0, len(every) - _ROWS) + more
    if left:
        lines.append(_row([f"\u2026 {left:,} more"], "td", _CELL))
    return Markup(f'<table style="border-collapse:collapse">{"".join(lines)}</table>')


def _row(cells: Sequence[Content], kind: str, style: str) -> str:
    written = (f'<{kind} style="{style}">{escape(cell)}</{kind}>' for cell in cells)
    return f"<tr>{''.join(written)}</tr>"


def block(title: Content, *parts: Markup | str) -> Markup:
    """A titled block; parts that are plain text become paragraphs."""
    body = "".join(
        part if isinstance(part, Markup) else f"<p>{escape(part)}</p>" for part in parts if part
    )
    return Markup(f'<div class="gatewise"><p><strong>{escape(title)}</strong></p>{body}</div>')


def places(found: Sequence[int], most: int = 8) -> str:
    """Places as text: `0, 1, 2`, `3 to 9`, or the first few and how many there are."""
    every = list(found)
    if len(every) > 2 and every == list(range(every[0], every[0] + len(every))):
        return f"{every[0]:,} to {every[-1]:,}"
    if len(every) > most:
        return f"{', '.join(map(str, every[:most]))}, \u2026 ({len(every):,})"
    return ", ".join(map(str, every)) or "none"
