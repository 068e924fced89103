"""`gatewise inspect read`: gates over a text."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
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
from gatewise.errors import FailedError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from gatewise.run import Reading


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
    opening: OpeningFlags = Opening(),  # noqa: B008
    control: ControlFile = None,
    json: Json = False,
) -> int:
    """A text through the model; `gatewise inspect read --help` says more."""
    from gatewise.probe import Record

    if out is not None and os.path.lexists(out):
        raise OptionError(f"{out} exists: expected a new file, choose another --out")
    acting = read_control(control)
    names = [name.strip() for name in record.split(",") if name.strip()]
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
    return 0


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
    tokens = np.array(reading.tokens)
    try:
        with open(out, "xb") as file:
            np.savez(file, ids=reading.ids, tokens=tokens, nats=reading.nats.numpy(), **arrays)
    except OSError as error:
        raise FailedError(f"{out}: cannot write it: {error.strerror}") from None
