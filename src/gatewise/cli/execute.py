"""`gatewise execute`: what a model says that a program prints, how sure it is, and what it really prints."""

from __future__ import annotations

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
    open_as,
    prompt_text,
    read_control,
    say_notes,
)
from gatewise.errors import DataError, OptionError

if TYPE_CHECKING:  # only the name: the page of help must not wait for torch
    from gatewise.run import Execution


def execute(
    run: RunPath,
    /,
    program: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="A file with a program, or the program itself ('#' for a new line); - or nothing reads "
            "standard input. Of the other tasks: the sum, or the digits.",
        ),
    ] = None,
    *,
    opening: OpeningFlags = Opening(),  # noqa: B008
    control: ControlFile = None,
    json: Json = False,
) -> int:
    """Answer with a trained model what a program prints.

    Below the answer stands how sure the model is of each character, and the true answer, by an
    interpreter of this small language: nothing is run as Python.
    """
    from gatewise.run import ExecuteRun

    acting = read_control(control)
    text, where = _program(program)
    opened = open_as(ExecuteRun, run, opening, "execute")
    try:
        found = opened.execute(text, control=acting, engine=opening.engine)
    except DataError as error:
        raise DataError(f"{where}{error}") from None
    if json:
        screen.out_json(_document(found))
    else:
        say_notes(found.notes)
        screen.out(_text(found))
    return 0


def _program(given: str | None) -> tuple[str, str]:
    """The program, and what an error says before its place."""
    if given is not None and given != "-":
        path = Path(given)
        if len(given) < 1000 and "\n" not in given and path.is_file():
            from gatewise.tasks.tables import read_text

            return read_text(path), f"{path}: "
        if path.suffix in (".txt", ".py") and "(" not in given:
            raise DataError(f"{given}: expected a file with a program, found none")
        return given, ""
    text = prompt_text(given)
    if text is None:
        raise OptionError("expected PROGRAM: a file, a text, or - and a pipe")
    return text, ""


_ACROSS = 16
"""Characters of an answer beside each other."""


def _text(found: Execution) -> str:
    """The answer, a character a column with its certainty below, and the truth."""
    shown = [*found.answer, *(["."] if found.ended else [])]
    rows = []
    for at in range(0, len(shown), _ACROSS):
        part = shown[at : at + _ACROSS]
        sure = [f"{100 * one:.0f}" for one in found.certainty[at : at + _ACROSS]]
        width = max(3, *map(len, sure))
        rows.append(["" if at else "answer", "".join(one.rjust(width + 1) for one in part)])
        rows.append(["" if at else "certain, %", "".join(one.rjust(width + 1) for one in sure)])
    truth = screen.visible(" ".join(found.truth.split("\n")))
    rows.append(["true", f" {truth} ({'right' if found.right else 'wrong'})"])
    return screen.table(rows, indent="")


def _document(found: Execution) -> dict[str, Any]:
    return {
        "program": found.program,
        "answer": found.answer,
        "certainty": found.certainty,
        "probability": found.probability,
        "ended": found.ended,
        "true": found.truth,
        "right": found.right,
        "notes": found.notes,
    }
