"""`gatewise inspect batches`: the lecture's picture, of any text."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.options import Json
from gatewise.errors import OptionError

if TYPE_CHECKING:  # only the name: the page of help must not wait for numpy and torch
    from gatewise.text.batches import Stream


def inspect_batches(
    file: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="A text; - for standard input. Without one: the alphabet.",
        ),
    ] = None,
    /,
    *,
    batch_size: Annotated[int, Parameter(help="Columns.")] = 4,
    bptt: Annotated[int, Parameter(help="Rows of a window.")] = 3,
    json: Json = False,
) -> int:
    """A text as columns and windows; `gatewise inspect batches --help` says more."""
    from gatewise.text.batches import picture

    for flag, value in (("--batch-size", batch_size), ("--bptt", bptt)):
        if value < 1:
            raise OptionError(f"{flag}: expected a whole number from 1, found {value}")
    text = string.ascii_lowercase if file is None else _read(file)
    if not json:
        screen.out(screen.visible(picture(text, batch_size, bptt)))
        return 0
    stream = _stream(text, batch_size)
    windows = [
        {"start": start, "x": _letters(x.tolist()), "y": _letters(y.tolist())}
        for start, x, y in stream.windows(bptt)
    ]
    trimmed = text[stream.rows * batch_size :]
    screen.out_json({"rows": stream.rows, "trimmed": trimmed, "windows": windows})
    return 0


def _read(file: str) -> str:
    from gatewise.text.reading import read_texts

    return "".join(text for _, text in read_texts([file], "replace"))


def _stream(text: str, batch_size: int) -> Stream:
    import numpy as np

    from gatewise.text.batches import Stream

    return Stream(np.array([ord(each) for each in text], np.int64), batch_size)


def _letters(rows: list[list[int]]) -> list[str]:
    return ["".join(chr(code) for code in row) for row in rows]
