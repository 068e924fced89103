"""A report as tables for a terminal, drawn by rich. Knows how figures are read; measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from gatewise.bench.aims import short
from gatewise.bench.report import Report, Row, Table, Verdict
from gatewise.bench.timing import Spread

_BASES = {
    "torch": "x torch",
    "torch-bf16": "x bf16",
    "torch-plain": "no mkldnn",
    "onnx": "x ORT",
    "onnx-int8": "x ORT8",
    "gatewise": "x LSTM",
    "gatewise-bf16": "x LSTM bf16",
    "coupled-loop": "x loop",
    "torch-loop": "x loop",
    "loop": "x machine",
}


def render(report: Report, *, width: int = 100, colour: bool = False) -> str:
    """The whole report as text."""
    parts: list[RenderableType] = [_machine(report.machine, report.settings)]
    if report.ceilings.get("found"):
        parts += ["", ceilings(report.ceilings)]
    for table in report.tables:
        parts += ["", contest(table)]
        parts += [Text(f"  left out: {line}", style="dim") for line in left_out(table)]
        parts += [Text(f"  {note}", style="dim") for note in [*roofline(table), *table.notes]]
    if report.verdicts:
        parts += ["", aims(report.verdicts)]
    return to_text(parts, width=width, colour=colour)


def to_text(parts: Sequence[RenderableType], *, width: int, colour: bool) -> str:
    """What rich draws, without spaces at the ends of lines."""
    into = StringIO()
    console = Console(
        file=into,
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))
    return "\n".join(line.rstrip() for line in into.getvalue().splitlines())


def _grid(title: str, columns: Sequence[str], left: int = 1) -> Grid:
    """Words may be broken into lines, figures never."""
    grid = Grid(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for k, name in enumerate(columns):
        words = k < left
        grid.add_column(
            name, justify="left" if words else "right", no_wrap=not words, overflow="fold"
        )
    return grid


def _machine(machine: Mapping[str, Any], settings: Mapping[str, Any]) -> Text:
    instructions = " ".join(machine["instructions"]) or "no known instructions"
    return Text(
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, {instructions}\n"
        f"gatewise {machine['gatewise']}, torch {machine['torch']}, python {machine['python']}; "
        f"{settings['seconds']:g} s a table, at most {settings['rounds']} rounds, medians"
    )


def ceilings(found: Mapping[str, Any]) -> Grid:
    """What the machine can do at most."""
    counts = sorted({c["threads"] for c in found["found"]})
    heads = [f"{n} thread{'s' * (n > 1)}" for n in counts]
    grid = _grid("this machine at most", ["", *heads, "unit"])
    cells: dict[tuple[str, str], dict[int, float]] = {}
    for one in found["found"]:
        cells.setdefault((one["what"], one["name"]), {})[one["threads"]] = one["best"]
    for (what, name), rates in cells.items():
        unit = "GB/s" if what == "reading" else "GOP/s" if name == "int8" else "GFLOP/s"
        shown = [f"{rates[n] / 1e9:,.0f}" if n in rates else "-" for n in counts]
        grid.add_row(f"{_WHAT[what]} {name}", *shown, unit)
    return grid


_WHAT = {"instructions": "multiply-add", "matmul": "torch matmul", "reading": "read"}


def contest(table: Table) -> Grid:
    """One task: a row for each contestant."""
    bases = [b for b in _BASES if any(b in row.speeds for row in table.rows)]
    unit, factor = _unit(table.rows)
    extra = _extra(table.rows)
    columns = ["contestant", "dtype", "engine", unit, "quartiles", *(_BASES[b] for b in bases)]
    grid = _grid(table.title, [*columns, *(head for head, _ in extra)], 3)
    for row in table.rows:
        speeds = [f"{row.speeds[b]:.2f}" if b in row.speeds else "-" for b in bases]
        grid.add_row(
            row.label,
            _DTYPES.get(row.dtype, row.dtype),
            row.engine,
            _number(row.seconds.median * factor),
            _quartiles(row.seconds.scaled(factor)),
            *speeds,
            *(draw(row) for _, draw in extra),
            style="bold" if row.name.startswith(("gatewise", "coupled")) else "",
        )
    return grid


_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float64": "fp64"}


def _unit(rows: Sequence[Row]) -> tuple[str, float]:
    least = min((row.seconds.median for row in rows), default=1.0)
    return ("us", 1e6) if least < 1e-3 else ("ms", 1e3)


def _quartiles(found: Spread) -> str:
    return "-" if found.count < 2 else f"{_number(found.q1)}-{_number(found.q3)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _extra(rows: Sequence[Row]) -> list[tuple[str, Any]]:
    """The columns that some row has figures for."""
    known: list[tuple[str, Any, Any]] = [
        ("GFLOP/s", lambda r: r.rate, lambda v: f"{v / 1e9:,.0f}"),
        ("of most", lambda r: r.share, lambda v: f"{v:.0%}"),
        ("token/s", _together, lambda v: f"{v:,.0f}"),
        ("x read", lambda r: r.more.get("over_reading"), lambda v: f"{v:.1f}"),
        ("gradients", lambda r: r.more.get("to_gradients"), lambda v: f"{v * 1e3:.0f}"),
        ("MiB", lambda r: r.more.get("peak_bytes"), lambda v: f"{v / 2**20:,.0f}"),
        ("added", lambda r: r.more.get("added_bytes"), lambda v: f"{v / 2**20:,.0f}"),
        ("error", lambda r: r.error, lambda v: f"{v:.0e}"),
    ]

    def column(value: Any, show: Any) -> Any:
        return lambda row: "-" if value(row) is None else show(value(row))

    return [
        (head, column(value, show))
        for head, value, show in known
        if any(value(row) is not None for row in rows)
    ]


def _together(row: Row) -> float | None:
    """Tokens a second of several columns; of one column the time says it."""
    rate = row.more.get("tokens_per_second")
    return None if rate is None or rate * row.seconds.median < 1.5 else rate


def left_out(table: Table) -> list[str]:
    """Who was left out, those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for left in table.left:
        dtype = _DTYPES.get(left.dtype, left.dtype)
        reasons.setdefault(left.why, []).append(f"{left.label} ({dtype})")
    return [f"{', '.join(names)}: {why}" for why, names in reasons.items()]


def roofline(table: Table) -> list[str]:
    """How fast it could be: the time at the ceiling of each dtype, and how many times torch's that is."""
    lines, base = [], table.row("torch")
    for dtype, seconds in table.floors.items():
        what = "reading the weights" if table.kind == "step" else "at the ceiling"
        unit, factor = ("us", 1e6) if seconds < 1e-3 else ("ms", 1e3)
        line = f"{what} of {dtype}: {_number(seconds * factor)} {unit}"
        if base is not None:
            line += f", {base.seconds.median / seconds:.1f} x {base.label}"
        lines.append(line)
    return lines


def aims(verdicts: Sequence[Verdict]) -> Grid:
    """Each aim beside what was found."""
    grid = _grid("aims", ["", "", "found", "aim", "", "over"])
    for verdict in verdicts:
        met = {True: "met", False: "missed", None: ""}[verdict.met]
        bound = "-" if verdict.aim is None else f"{verdict.sense} {verdict.aim:g}"
        style = {True: "green", False: "red", None: ""}[verdict.met]
        sizes = verdict.over[0] if len(verdict.over) == 1 else f"{len(verdict.over)} sizes"
        grid.add_row(
            verdict.text, verdict.statistic, f"{verdict.value:.3g}", bound, Text(met, style), sizes
        )
    return grid


__all__ = ["aims", "ceilings", "contest", "render", "roofline", "short", "to_text"]
