"""Draws docs/architecture.svg from the order of the modules and the source tree.

    python scripts/architecture.py          draw it anew
    python scripts/architecture.py --check  fail if the drawing is not that of this tree

The order is the rule of tests/test_layers.py: a module imports only from those before it.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "gatewise"
PICTURE = ROOT / "docs" / "architecture.svg"

# (stage, what it answers, its modules), top to bottom; within a stage left to right.
STAGES = (
    ("ground", "what everything may use", ("errors", "types", "modes", "folders")),
    ("", "", ("display",)),
    ("one step", "what a cell computes, and what is read and set in it", ("cells",)),
    ("", "", ("places", "probe", "card", "noise")),
    ("engine", "how a plan is computed", ("engine",)),
    ("time", "the one entry point, layers, drop-ins", ("unrolling", "stack", "nn", "attention")),
    ("data", "text and tasks as streams and batches", ("text", "tasks")),
    ("cost", "what is minimised, how, how it is measured", ("losses", "optim", "metrics")),
    ("mappings", "models: sequences and vectors to sequences and vectors", ("mappings",)),
    ("a run", "learning that can be stopped and taken up", ("checkpoint", "gradients")),
    ("", "", ("presets", "train", "sklearn")),
    ("use", "what a trained model is for", ("step", "generate", "novelty", "stream")),
    ("", "", ("complete", "run", "export")),
    ("insight", "what is seen, measured and set in a trained model", ("insight", "plots")),
    ("faces", "where people and programs come in", ("serve", "studio", "bench", "cli")),
)
ORDER = tuple(name for _, _, names in STAGES for name in names)

WIDTH, ROW, LEFT, BOX, GAP = 890, 46, 352, 108, 10


def present() -> set[str]:
    """The modules and packages in the tree, below gatewise."""
    files = {p.stem for p in PACKAGE.glob("*.py") if not p.stem.startswith("__")}
    return files | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}


def draw() -> str:
    """The picture as SVG text; what is not in the tree yet has a dashed edge."""
    built = present()
    height = ROW * len(STAGES) + 60
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="14">',
        "<title>The modules of gatewise, in the order of their imports</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fcfcfa"/>',
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="4" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#777"/></marker></defs>',
        f'<path d="M {WIDTH - 24},{height - 44} V 20" stroke="#777" marker-end="url(#tip)"/>',
        f'<text x="{WIDTH - 32}" y="{height // 2}" fill="#777" text-anchor="middle" '
        f'transform="rotate(-90 {WIDTH - 32} {height // 2})">imports</text>',
    ]
    for row, (stage, question, names) in enumerate(STAGES):
        y = 14 + row * ROW
        if stage:
            lines.append(
                f'<line x1="16" y1="{y - 4}" x2="{WIDTH - 48}" y2="{y - 4}" stroke="#ddd"/>'
            )
            lines.append(f'<text x="16" y="{y + 17}" font-weight="bold">{stage}</text>')
            lines.append(f'<text x="16" y="{y + 33}" font-size="11" fill="#555">{question}</text>')
        for column, name in enumerate(names):
            x = LEFT + column * (BOX + GAP)
            dash = "" if name in built else ' stroke-dasharray="4 3"'
            fill = "#e4eef8" if name in built else "none"
            lines.append(
                f'<rect x="{x}" y="{y + 2}" width="{BOX}" height="{ROW - 14}" rx="5" '
                f'fill="{fill}" stroke="#36648b"{dash}/>'
            )
            lines.append(
                f'<text x="{x + BOX // 2}" y="{y + 23}" text-anchor="middle" '
                f'class="module">{name}</text>'
            )
    lines.append(
        f'<text x="16" y="{height - 16}" font-size="11" fill="#555">'
        "A module imports only from those above it or to its left. Dashed: not built yet.</text>"
    )
    return "\n".join([*lines, "</svg>", ""])


def main() -> int:
    picture = draw()
    if "--check" not in sys.argv:
        PICTURE.write_text(picture, encoding="utf-8")
        return 0
    if PICTURE.read_text(encoding="utf-8") == picture:
        return 0
    print("docs/architecture.svg is not of this tree: run python scripts/architecture.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
