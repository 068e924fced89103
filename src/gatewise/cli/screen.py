"""What goes to the terminal: standard output for results, standard error for everything else.

Text from a model or from the command line may hold anything; here it is made harmless: what an
encoding cannot write becomes an escape, and on a terminal control characters are shown, not obeyed.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO


def make_streams_safe() -> None:
    """Let both streams write any string: what cannot be encoded becomes a backslash escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out(text: str = "", *, end: str = "\n") -> None:
    """Write a result."""
    sys.stdout.write(text + end)


def say(text: str = "", *, end: str = "\n") -> None:
    """Write a remark: progress, a hint, anything that is not the result."""
    sys.stderr.write(text + end)
    sys.stderr.flush()


def is_terminal(stream: TextIO | None = None) -> bool:
    """Whether `stream` (default: standard output) is a terminal."""
    return bool((stream or sys.stdout).isatty())


def is_interactive() -> bool:
    """Whether somebody can be asked: input and output are both a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and is_terminal()


def visible(text: str) -> str:
    """`text` with every control character but newline and tab shown as an escape."""
    if text.isprintable():
        return text
    return "".join(
        mark if mark.isprintable() or mark in "\n\t" else mark.encode("unicode_escape").decode()
        for mark in text
    )


def shown(text: str, *, limit: int = 200) -> str:
    """`text` on one line: newlines and tabs as escapes too, cut at `limit` characters."""
    line = visible(text).replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= limit else line[: limit - 3] + "..."


def token(text: str, *, limit: int = 20) -> str:
    """A token in a table: as `shown`, spaces that stand alone as dots, as pictures have them."""
    line = shown(text, limit=limit)
    return line if line.strip(" ") else line.replace(" ", "\u00b7")


def result(text: str, *, end: str = "\n") -> None:
    """Write text of a model: as it is into a file or pipe, harmless on a terminal."""
    out(visible(text) if is_terminal() else text, end=end)


def out_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write the one JSON document of `--json`. Numbers that JSON cannot say become null."""
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    out(
        json.dumps(
            _plain(document), indent=2, allow_nan=False, ensure_ascii=not encoding.startswith("utf")
        )
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "tolist"):  # tensors, arrays and their scalars
        return _plain(value.tolist())
    return str(value)


def percent(probability: float) -> str:
    """A probability as people read it: 12.3 %, 0.45 %, 3e-07."""
    if probability >= 0.01:
        return f"{probability:.1%}".replace("%", " %")
    return f"{probability:.2%}".replace("%", " %") if probability >= 1e-4 else f"{probability:.0e}"


def table(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> str:
    """Rows as aligned columns; the last column is free."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append((indent + "  ".join([*cells, row[-1]])).rstrip())
    return "\n".join(lines)


def folded(rows: Sequence[Sequence[str]], *, labels: int = 1) -> str:
    """Rows as aligned columns; those that do not fit on a terminal stand below the others, with the labels again.

    Args:
        rows: of one length each, the head first.
        labels: columns that say what a row is.
    """
    if not is_terminal() or not rows:
        return table(rows, indent="")
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    room = shutil.get_terminal_size().columns + 2 - sum(widths[:labels])
    parts: list[list[int]] = []
    left = 0
    for k in range(labels, len(widths)):
        if not parts or widths[k] > left:
            parts.append([])
            left = room
        parts[-1].append(k)
        left -= widths[k]
    chosen = [[*range(labels), *part] for part in parts] or [list(range(labels))]
    return "\n\n".join(table([[row[k] for k in one] for row in rows], indent="") for one in chosen)


def indented(text: str, indent: str = "  | ") -> str:
    """A text of a model as a block, harmless on a terminal."""
    return "\n".join(indent + line for line in visible(text).split("\n"))


def dim(text: str) -> str:
    """`text` in a fainter tone, where standard output is a terminal that has one."""
    plain = not is_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\x1b[2m{text}\x1b[0m"
