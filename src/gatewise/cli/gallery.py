"""A page of images with their captions, sorted by score, or in groups of the lecture's four levels.

One file that needs nothing else: small copies of the images are in it.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatewise.cli.saving import check_new, new_text
from gatewise.metrics.ratings import LEVELS

_PIXELS = 240
_STYLE = """\
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid #8884; border-radius: 6px; overflow: hidden; }
img { display: block; width: 100%; } figcaption { padding: .5rem .7rem; }
small { color: #777; display: block; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd; } }
"""


@dataclass(frozen=True)
class Card:
    """One image of a gallery.

    Args:
        name: as it was given.
        captions: (text, logprob) of each, the best first.
        score: what is sorted by.
        image: (H, W, 3) uint8, or None of a vector.
        level: what people said of the best caption on average, or None.
    """

    name: str
    captions: Sequence[tuple[str, float]]
    score: float
    image: Any = None
    level: float | None = None


def check(path: Path) -> None:
    """Refuse what cannot be written, before anything is computed."""
    check_new(path, "--html")


def write(path: Path, title: str, cards: Sequence[Card]) -> None:
    """Write the gallery.

    Raises:
        FailedError: if it cannot be written.
    """
    page = page_of(title, cards)
    with new_text(path) as file:
        file.write(page)


def page_of(title: str, cards: Sequence[Card]) -> str:
    """The page: the best score first, and if people rated, in groups by the nearest level."""
    ordered = sorted(cards, key=lambda card: -card.score)
    groups: Mapping[str, list[Card]] = {"": ordered}
    if any(card.level is not None for card in cards):
        groups = {meaning: [c for c in ordered if _group(c) == k] for k, meaning in LEVELS.items()}
        groups["not rated"] = [card for card in ordered if card.level is None]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    for name, each in groups.items():
        if name and each:
            parts.append(f"<h2>{html.escape(name)} ({len(each):,})</h2>")
        if each:
            parts.append(f'<div class="cards">{"".join(map(_card, each))}</div>')
    return "\n".join([*parts, "</body></html>\n"])


def _group(card: Card) -> int:
    return 0 if card.level is None else min(4, max(1, math.floor(card.level + 0.5)))


def _card(card: Card) -> str:
    image = "" if card.image is None else f'<img alt="" src="{_picture(card.image)}">'
    (first, logprob), *others = card.captions
    lines = [f"{html.escape(first)}<small>{_probability(logprob)}, score {card.score:.3f}"]
    if card.level is not None:
        lines.append(f", rated {card.level:.2f}")
    lines.append("</small>")
    for text, each in others:
        lines.append(f"<small>{_probability(each)}: {html.escape(text)}</small>")
    lines.append(f"<small>{html.escape(card.name)}</small>")
    return f"<figure>{image}<figcaption>{''.join(lines)}</figcaption></figure>"


def _probability(logprob: float) -> str:
    from gatewise.cli import screen

    return screen.percent(math.exp(logprob))


def _picture(image: Any) -> str:
    import PIL.Image

    drawn = PIL.Image.fromarray(image)
    scale = _PIXELS // max(drawn.size)
    if scale > 1:  # whole pixels, larger
        size = (drawn.width * scale, drawn.height * scale)
        drawn = drawn.resize(size, PIL.Image.Resampling.NEAREST)
    data = io.BytesIO()
    drawn.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
