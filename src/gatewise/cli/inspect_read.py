"""`gatewise inspect read`: gates over a text."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.options import Json
from gatewise.cli.runs import (
    ControlFile,
    Opening,
    OpeningFlags,
    RunPath,
    open_run,
    prompt_text,
    read_control,
    say_notes,
)
from gatewise.cli.saving import check_new, new_text, save_arrays
from gatewise.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from gatewise.run import LanguageRun, Reading


def inspect_read(
    run: RunPath,
    /,
    text: Annotated[
        str,
        Parameter(allow_leading_hyphen=True, help="The text; - reads it from standard input."),
    ],
    *,
    record: Annotated[
        str, Parameter(help="What to read: gates and states by name, with commas between them.")
    ] = "",
    out: Annotated[
        Path | None, Parameter(help="Save tokens, costs and every value as a NumPy .npz file.")
    ] = None,
    unit: Annotated[
        str | None,
        Parameter(help="Colour the text by a unit: layers.0.c:17. On a terminal, and with --html."),
    ] = None,
    plot: Annotated[
        Path | None,
        Parameter(
            help="Draw what was recorded, units by time, with the tokens (.png, .svg, .pdf)."
        ),
    ] = None,
    html: Annotated[
        Path | None, Parameter(help="Write the text coloured by --unit as a page.")
    ] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    control: ControlFile = None,
    json: Json = False,
) -> int:
    """A text through the model; `gatewise inspect read --help` says more."""
    from gatewise.probe import Record

    check_new(out)
    names = [name.strip() for name in record.split(",") if name.strip()]
    _check_pictures(names, unit, plot, html)
    place = None if unit is None else _place(unit)
    if place is not None and place[0] not in names:
        names.append(place[0])
    acting = read_control(control)
    opened = open_run(run, opening, "read")
    reading = opened.read(
        prompt_text(text) or "",
        record=Record(*names) if names else None,
        control=acting,
        engine=opening.engine,
    )
    say_notes(reading.notes)
    if out is not None:
        _save(reading, out)
    if json:
        screen.out_json(_document(reading))
    else:
        screen.out(_table(reading))
    if place is not None:
        _colour(opened, reading, place, html, on_screen=not json)
    if plot is not None:
        from gatewise.plots import gates, save

        recorded = {path: values[:, 0].float() for path, values in (reading.record or {}).items()}
        save(gates(reading.tokens, recorded), plot)
        screen.say(f"drawn: {plot}")
    return 0


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


def _colour(
    opened: LanguageRun,
    reading: Reading,
    place: tuple[str, int],
    html: Path | None,
    on_screen: bool,
) -> None:
    """The text coloured by a unit: on a terminal, into a page."""
    from gatewise.insight.colours import page, terminal

    path, number = place
    record: dict[str, Tensor] = reading.record or {}
    if path not in record:
        raise OptionError(
            f"--unit: expected a whole path, one of {', '.join(record)}, found {path!r}"
        )
    units = record[path].shape[-1]
    if number >= units:
        raise OptionError(
            f"--unit: expected a unit from 0 to {units - 1} of {path}, found {number}"
        )
    values = record[path][:, 0, number].float().tolist()
    tokens = [opened.tokenizer.decode([one]) for one in reading.ids.tolist()]
    if on_screen and screen.is_terminal() and not os.environ.get("NO_COLOR"):
        screen.out(terminal([screen.visible(token) for token in tokens], values))
    if html is not None:
        with new_text(html) as file:
            file.write(page(tokens, values, f"{path}, unit {number}"))
        screen.say(f"written: {html}")


def _means(reading: Reading) -> dict[str, list[float]]:
    """Path -> the mean over the units at each time."""
    record: dict[str, Tensor] = reading.record or {}
    return {path: values[:, 0].float().mean(-1).tolist() for path, values in record.items()}


def _table(reading: Reading) -> str:
    means = _means(reading)
    rows = [["", "token", "nats", *means]]
    for time, (token, nats) in enumerate(zip(reading.tokens, reading.nats.tolist(), strict=True)):
        cost = "-" if math.isnan(nats) else f"{nats:.3f}"
        shown = [f"{values[time]:.3f}" for values in means.values()]
        rows.append([str(time), screen.shown(token, limit=20), cost, *shown])
    lines = screen.table([[*row, ""] for row in rows], indent="")
    mean = reading.nats_per_token
    return lines if math.isnan(mean) else f"{lines}\nmean: {mean:.4f} nats/token"


def _document(reading: Reading) -> dict[str, Any]:
    return {
        "text": reading.text,
        "ids": reading.ids,
        "tokens": reading.tokens,
        "nats": reading.nats,
        "record": {path: values[:, 0] for path, values in (reading.record or {}).items()},
        "notes": reading.notes,
    }


def _save(reading: Reading, out: Path) -> None:
    import numpy as np

    arrays: dict[str, Any] = {
        path: v[:, 0].float().cpu().numpy() for path, v in (reading.record or {}).items()
    }
    head = {"ids": reading.ids, "tokens": np.array(reading.tokens), "nats": reading.nats.numpy()}
    save_arrays(out, head | arrays)
