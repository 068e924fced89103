"""`gatewise inspect patch`: states of one text put into another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.inspecting import check_least, numbers, say_unknown, whole_paths
from gatewise.cli.options import Json, with_flag_names
from gatewise.cli.runs import Opening, OpeningFlags, RunPath, open_run, prompt_text
from gatewise.cli.saving import check_new, new_text
from gatewise.errors import OptionError

if TYPE_CHECKING:
    from gatewise.insight import Patched


def inspect_patch(
    run: RunPath,
    prompt: Annotated[
        str,
        Parameter(allow_leading_hyphen=True, help="What is continued; - reads standard input."),
    ],
    other: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="The text whose states are put in.")
    ],
    /,
    *,
    name: Annotated[
        str | None,
        Parameter(
            help="States or gates with commas: c, in every layer, or layers.0.c,layers.1.h. Default: every state."
        ),
    ] = None,
    at: Annotated[
        int | None, Parameter(help="The token of PROMPT at which, from 0. Default: its last.")
    ] = None,
    taken: Annotated[
        int | None, Parameter(help="The token of OTHER after which. Default: its last.")
    ] = None,
    units: Annotated[
        str | None, Parameter(help="Which units, with commas: 3,17. Default: all.")
    ] = None,
    max_tokens: Annotated[int, Parameter(help="Length of what is written.")] = 40,
    save: Annotated[
        Path | None,
        Parameter(help="Write the last patch as a control, for --control of other verbs."),
    ] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """Whose continuation is written; `gatewise inspect patch --help` says more."""
    check_new(save, "--save")
    check_least(**{"max-tokens": (max_tokens, 1)})
    if name is not None and not all(one.strip() for one in name.split(",")):
        raise OptionError(f"--name: expected paths with commas between, found {name!r}")
    chosen = None if units is None else numbers("--units", units)
    opened = open_run(run, opening, "generate")
    from gatewise.insight import patch

    text, source = prompt_text(prompt) or "", prompt_text(other) or ""
    try:
        rows = patch(
            opened,
            text,
            source,
            paths=None if name is None else whole_paths(opened, name),
            at=at,
            taken=taken,
            units=chosen,
            max_tokens=max_tokens,
            engine=opening.engine,
        )
    except OptionError as error:
        raise with_flag_names(error, ("at", "taken", "units")) from None
    say_unknown(opened, text + source)
    if save is not None and rows[-1].control is not None:
        with new_text(save) as file:
            file.write(rows[-1].control.to_json() + "\n")
    if json:
        fields = ("name", "text", "own", "other", "moved")
        screen.out_json(
            {
                "run": str(opened.path),
                "prompt": text,
                "rows": [{field: getattr(row, field) for field in fields} for row in rows],
            }
        )
    else:
        screen.out(_table(rows))
    return 0


def _table(rows: list[Patched]) -> str:
    """The costs of both continuations, and what is written."""
    lines = [["patched", "own", "other's", "", "written"]]
    for row in rows:
        side = "other's" if row.moved else "own"
        costs = [f"{row.own:.3f}", f"{row.other:.3f}"]
        lines.append([row.name, *costs, side, screen.shown(row.text, limit=60)])
    return (
        screen.table(lines, indent="")
        + "\nown, other's: nats per token of what each text is continued with by itself"
    )
