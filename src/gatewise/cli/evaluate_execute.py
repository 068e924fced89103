"""`gatewise eval` of a run of execute: tables of length by nesting, and a heat map of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.options import with_flag_names
from gatewise.errors import DataError, OptionError

if TYPE_CHECKING:
    from gatewise.run.execute import Cell, ExecuteRun


@dataclass(frozen=True, kw_only=True)
class ExecuteData:
    """Which generated examples; of a run of `execute`."""

    lengths: str | None = None
    """Lengths of the table: 1..4, or 1,2,4. Default: up to that of the training."""

    nestings: str | None = None
    """Nestings of the table, as --lengths. Default: up to that of the training."""

    examples: int = 1000
    """Examples of each length and nesting."""


ExecuteFlags = Annotated[ExecuteData, Parameter(name="*", group="Programs")]


def evaluate_execute(
    opened: ExecuteRun,
    data: Sequence[str],
    part: str,
    options: ExecuteData,
    plot: Path | None,
    engine: str,
    *,
    json: bool,
) -> int:
    """Figures of generated examples as tables or a document, or of given lines."""
    if data:
        return _given(opened, data, engine, json=json)
    if plot is not None:
        plots.check(plot)
    part = "test" if part == "all" else part
    try:
        cells = opened.table(
            numbers(options.lengths, "--lengths"),
            numbers(options.nestings, "--nestings"),
            examples=options.examples,
            part=part,
            engine=engine,
        )
    except OptionError as error:
        raise with_flag_names(error, ("part", "examples", "nestings")) from None
    if json:
        documents = [dataclasses.asdict(cell) for cell in cells]
        document = {"run": str(opened.path), "step": opened.step, "task": opened.course.task}
        screen.out_json(document | {"part": part, "cells": documents})
    else:
        screen.out(tables(cells, opened.course.task == "programs"))
    if plot is not None:
        plots.heat(plot, heat_panels(cells), "length", "nesting")
        screen.say(f"drawn: {plot}")
    return 0


def numbers(text: str | None, flag: str) -> list[int]:
    """1..4 or 1,2,4 as numbers; none where nothing is given.

    Raises:
        OptionError: if it is neither.
    """
    if text is None:
        return []
    try:
        first, dots, last = text.partition("..")
        found = (
            list(range(int(first), int(last) + 1)) if dots else [int(n) for n in text.split(",")]
        )
    except ValueError:
        found = []
    if not found or min(found) < 1 or len(found) > 100:
        raise OptionError(f"{flag}: expected numbers from 1 as 1..4 or 1,2,4, found {text!r}")
    return found


_TABLES = (
    ("exact", "whole answers right, free running"),
    ("character_accuracy", "characters right, given those before"),
)


def tables(cells: Sequence[Cell], programs: bool) -> str:
    """A row for each nesting, a column for each length."""
    lengths = list(dict.fromkeys(cell.length for cell in cells))
    parts = []
    for name, words in _TABLES:
        rows = [["length" if programs else "digits", *map(str, lengths)]]
        for nesting in dict.fromkeys(cell.nesting for cell in cells):
            own = [cell for cell in cells if cell.nesting == nesting]
            head = f"nesting {nesting}" if programs else ""
            rows.append([head, *(f"{getattr(cell, name):.3f}" for cell in own)])
        parts.append(f"{words}\n{screen.table(rows)}")
    counts = {cell.answers for cell in cells}
    each = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
    return "\n".join([*parts, f"{each} examples each, none of them seen in training"])


def heat_panels(cells: Sequence[Cell]) -> list[tuple[str, list[int], list[int], list[list[float]]]]:
    """(title, lengths, nestings, shares) of each table."""
    lengths = list(dict.fromkeys(cell.length for cell in cells))
    nestings = list(dict.fromkeys(cell.nesting for cell in cells))
    panels = []
    for name, words in _TABLES:
        shares = [[getattr(c, name) for c in cells if c.nesting == n] for n in nestings]
        panels.append((words, lengths, nestings, shares))
    return panels


def _given(opened: ExecuteRun, data: Sequence[str], engine: str, *, json: bool) -> int:
    """Figures of lines INPUT@TARGET. in files; lines that are none are left out and listed."""
    from gatewise.tasks.execute import TASKS
    from gatewise.tasks.programs import normal, parse_line
    from gatewise.tasks.tables import read_text

    examples, left = [], 0
    shown = opened.course.examples_of("test", opened.seed).shown
    for name in data:
        for number, line in enumerate(read_text(Path(name)).splitlines(), 1):
            if not line.strip():
                continue
            try:
                source, target = parse_line(line.strip())
                if TASKS[opened.course.task].runs:
                    source = normal(source)
                examples.append((shown(source), target))
            except DataError as error:
                left += 1
                screen.say(f"note: {name}: line {number:,} left out: {error}")
    if not examples:
        raise DataError(f"{data[0]}: expected lines INPUT@TARGET. as in print(2)@2., found none")
    tally, exact = opened.evaluate(examples, engine=engine)
    figures = tally.summary() | {"exact": exact, "left_out": left}
    if json:
        screen.out_json({"run": str(opened.path), "step": opened.step, "parts": {"lines": figures}})
        return 0
    rows = [["examples", f"{tally.answers:,}"], ["left out", f"{left:,}"]]
    rows.append(["nats/character", f"{tally.cost:.4f}" if math.isfinite(tally.cost) else "-"])
    rows.append(["characters right, given those before", f"{tally.character_accuracy:.4f}"])
    rows.append(["whole answers right, free running", f"{exact:.4f}"])
    screen.out(screen.table(rows, indent=""))
    return 0
