"""`gatewise inspect read`: gates over a text, a series, an image's caption."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.inspecting import check_times
from gatewise.cli.options import Json
from gatewise.cli.runs import (
    ControlFile,
    Opening,
    OpeningFlags,
    RunPath,
    open_any,
    read_control,
    say_notes,
)
from gatewise.cli.saving import check_new, new_text, save_arrays, save_table
from gatewise.errors import OptionError

if TYPE_CHECKING:
    from gatewise.cli.sequences import Looked, Part
    from gatewise.run import Run

ENDINGS = (".npz", ".parquet")


def inspect_read(
    run: RunPath,
    /,
    text: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,
            help="What is read: a text, or - for standard input; of other runs a series, a table, an image, a "
            "sentence, or the number of a task's test sequence.",
        ),
    ],
    *,
    record: Annotated[
        str, Parameter(help="What to read: gates and states by name, with commas between them.")
    ] = "",
    number: Annotated[int, Parameter(help="Which, where a file has several: from 1.")] = 1,
    out: Annotated[
        Path | None,
        Parameter(help="Save tokens, costs and every value: .npz, or .parquet (a row a step)."),
    ] = None,
    unit: Annotated[
        str | None,
        Parameter(help="Colour the text by a unit: layers.0.c:17. On a terminal, and with --html."),
    ] = None,
    plot: Annotated[
        Path | None,
        Parameter(
            help="Draw what was recorded, units by time, with the tokens; with --unit alone the coloured text "
            "(.png, .svg, .pdf)."
        ),
    ] = None,
    html: Annotated[
        Path | None, Parameter(help="Write the text coloured by --unit as a page.")
    ] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    control: ControlFile = None,
    json: Json = False,
) -> int:
    """A sequence through the model; `gatewise inspect read --help` says more."""
    from gatewise.cli.sequences import Asked, look
    from gatewise.probe import Record

    check_new(out, endings=ENDINGS)
    names = [name.strip() for name in record.split(",") if name.strip()]
    _check_pictures(names, unit, plot, html)
    place = None if unit is None else _place(unit)
    if place is not None and place[0] not in names:
        names.append(place[0])
    acting = read_control(control)
    opened = open_any(run, opening, "read")
    wanted = Record(*names) if names else None
    looked = look(opened, Asked(text, number, wanted, acting, opening.engine))
    say_notes(looked.notes)
    check_times(acting, max(len(part.tokens) for part in looked.parts))
    coloured = None if place is None else _coloured(looked, place)
    alone = None if record.strip() else place
    if out is not None:
        _save(looked, out)
    if json:
        screen.out_json(_document(opened, looked))
    else:
        screen.out("\n".join(_table(part, alone) for part in looked.parts))
    if coloured is not None:
        _colour(*coloured, html, on_screen=not json)
    if plot is not None:
        _draw(looked, alone, plot)
    return 0


def _draw(looked: Looked, place: tuple[str, int] | None, plot: Path) -> None:
    """The text coloured by one unit, or all that was recorded."""
    from gatewise.plots import coloured, gates, save

    if place is None:
        figure = gates(*((part.tokens, part.record) for part in looked.parts if part.record))
    else:
        path, number = place
        (part,) = (one for one in looked.parts if path in one.record)
        values = part.record[path][:, number].tolist()
        figure = coloured(part.pieces, values, f"{path}, unit {number}")
    save(figure, plot)
    screen.say(f"drawn: {plot}")


def _check_pictures(
    names: list[str], unit: str | None, plot: Path | None, html: Path | None
) -> None:
    """Refuse what cannot be drawn, before anything is read."""
    if plot is not None:
        plots.check(plot)
        if not names and unit is None:
            raise OptionError("--plot: expected --record to say what to draw, found none")
    if html is not None:
        from gatewise.cli import gallery

        gallery.check(html)
        if unit is None:
            raise OptionError("--html: expected --unit to say what colours the text, found none")


def _place(unit: str) -> tuple[str, int]:
    """layers.0.c:17 as its path and number."""
    path, colon, number = unit.rpartition(":")
    if not colon or not path or not number.isdecimal():
        raise OptionError(f"--unit: expected a path and a number as layers.0.c:17, found {unit!r}")
    return path, int(number)


def _coloured(looked: Looked, place: tuple[str, int]) -> tuple[Part, list[float], str]:
    """What is coloured, the unit's values along it, and its name; OptionError if there is no such unit."""
    path, number = place
    part = next((one for one in looked.parts if path in one.record), None)
    if part is None:
        known = ", ".join(known for one in looked.parts for known in one.record)
        raise OptionError(f"--unit: expected a whole path, one of {known}, found {path!r}")
    units = part.record[path].shape[-1]
    if number >= units:
        raise OptionError(
            f"--unit: expected a unit from 0 to {units - 1} of {path}, found {number}"
        )
    return part, part.record[path][:, number].tolist(), f"{path}, unit {number}"


def _colour(
    part: Part, values: list[float], title: str, html: Path | None, on_screen: bool
) -> None:
    """The text coloured by a unit: on a terminal, into a page."""
    from gatewise.insight.colours import page, terminal

    if on_screen and screen.is_terminal() and not os.environ.get("NO_COLOR"):
        screen.out(terminal([screen.visible(piece) for piece in part.pieces], values))
    if html is not None:
        with new_text(html) as file:
            file.write(page(part.pieces, values, title))


def _table(part: Part, place: tuple[str, int] | None) -> str:
    """A line for each step: what was read, its cost, what the model says, the mean of each gate, or one unit."""
    means = {f"{path} (mean)": values.mean(-1).tolist() for path, values in part.record.items()}
    if place is not None and place[0] in part.record:
        path, number = place
        means = {f"{path}:{number}": part.record[path][:, number].tolist()}
    head = [*([part.cost] if part.nats is not None else []), *(["says"] if part.said else [])]
    rows = [[part.name, "token", *head, *means]]
    costs = None if part.nats is None else [float(one) for one in part.nats]
    for time, token in enumerate(part.tokens):
        row = [str(time), screen.token(token)]
        if costs is not None:
            row.append("-" if math.isnan(costs[time]) else f"{costs[time]:.3f}")
        if part.said:
            row.append(screen.shown(part.said[time], limit=40))
        rows.append([*row, *(f"{values[time]:.3f}" for values in means.values())])
    lines = screen.folded(rows, labels=2)
    asked = [] if costs is None else [one for one in costs if not math.isnan(one)]
    unit = " nats/token" if part.cost == "nats" else ""
    return f"{lines}\nmean: {sum(asked) / len(asked):.4f}{unit}" if asked else lines


def _document(run: Run, looked: Looked) -> dict[str, Any]:
    """One part's keys beside those of the whole; several under their names."""
    parts = [
        {
            "ids": part.ids,
            "tokens": part.tokens,
            part.cost: part.nats,
            "said": part.said or None,
            "record": part.record,
        }
        for part in looked.parts
    ]
    head = {"run": str(run.path), "mapping": run.mapping, "text": looked.text}
    if len(parts) == 1:
        found = {name: one for name, one in parts[0].items() if one is not None}
        return {**head, **found, "notes": looked.notes}
    named = {part.name: one for part, one in zip(looked.parts, parts, strict=True)}
    return {**head, "parts": named, "notes": looked.notes}


def _save(looked: Looked, out: Path) -> None:
    """All values: as arrays by path, or a row a step with a column a unit."""
    import numpy as np

    if out.suffix.lower() == ".npz":
        arrays: dict[str, Any] = {}
        for part in looked.parts:
            begin = f"{part.name}/" if part.name else ""
            head = {"ids": part.ids, "tokens": np.array(part.tokens), part.cost: part.nats}
            arrays |= {
                f"{begin}{name}": np.asarray(one) for name, one in head.items() if one is not None
            }
            arrays |= {path: values.cpu().numpy() for path, values in part.record.items()}
        save_arrays(out, arrays)
        return
    cost = looked.parts[-1].cost
    columns: dict[str, list[Any]] = {"part": [], "time": [], "token": [], cost: []}
    paths = [(path, values) for part in looked.parts for path, values in part.record.items()]
    columns |= {f"{path}.{k}": [] for path, values in paths for k in range(values.shape[1])}
    for part in looked.parts:
        steps = len(part.tokens)
        known: dict[str, list[Any]] = {
            "part": [part.name] * steps,
            "time": list(range(steps)),
            "token": part.tokens,
            cost: [None] * steps if part.nats is None else [float(one) for one in part.nats],
        }
        for path, values in part.record.items():
            known |= {f"{path}.{k}": row for k, row in enumerate(values.T.tolist())}
        for name, column in columns.items():
            column.extend(known.get(name, [None] * steps))
    save_table(out, columns)
