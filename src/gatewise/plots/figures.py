"""What every picture shares: a figure without a window, colours, and its way into a file."""

from __future__ import annotations

import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

from gatewise.errors import FailedError, OptionError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
"""Told apart with any colour vision (Okabe & Ito 2008)."""
DASHES = ("-", "--", "-.", ":")
FORMATS = (".png", ".svg", ".pdf")
_DOTS = 144


def need() -> None:
    """Raise FailedError unless matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise FailedError(
            "drawing needs matplotlib, which is not installed: run pip install 'gatewise[plot]'"
        )


def new(width: float, height: float) -> Any:
    """An empty figure of so many inches, at most 40 a side."""
    need()
    from matplotlib.figure import Figure  # without pyplot: no window, no state

    return Figure(figsize=(min(width, 40), min(height, 40)), layout="constrained")


def plain(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.strip().replace("$", r"\$") or text


def save(figure: Any, path: Path) -> None:
    """Write a figure into a new file; its ending says the format. Signs that no font has are drawn as boxes.

    Raises:
        OptionError: the ending is none of `FORMATS`.
        FailedError: it cannot be written, or is there.
    """
    import matplotlib

    if path.suffix.lower() not in FORMATS:
        raise OptionError(f"expected a file of {', '.join(FORMATS)}, found {path}")
    kind = path.suffix.lower()[1:]
    dated = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    drawn = io.BytesIO()
    # the same names each time
    with matplotlib.rc_context({"svg.hashsalt": "gatewise"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        figure.savefig(drawn, format=kind, dpi=_DOTS, metadata=dated[kind])
    data = drawn.getvalue()
    if kind == "svg":  # text that tools look at line by line
        data = b"".join(line.rstrip() + b"\n" for line in data.splitlines())
    try:
        with open(path, "xb") as file:
            file.write(data)
    except OSError as error:
        raise FailedError(f"{path}: cannot write it: {error.strerror}") from None
