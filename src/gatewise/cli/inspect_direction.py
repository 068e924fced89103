"""`gatewise inspect direction`: a steering vector from two sets of texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.inspecting import check_least, check_times, decimals, indices, say_unknown
from gatewise.cli.options import Json
from gatewise.cli.runs import Opening, OpeningFlags, RunPath, open_run, prompt_text
from gatewise.cli.saving import check_new, new_text
from gatewise.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatewise.insight import Direction
    from gatewise.probe import Control
    from gatewise.run import LanguageRun


def inspect_direction(
    run: RunPath,
    /,
    *,
    toward: Annotated[Path, Parameter(help="A file of a text a line: where the vector points to.")],
    away: Annotated[Path, Parameter(help="A file of a text a line: where it comes from.")],
    name: Annotated[str, Parameter(help="The state or gate, as a whole path.")] = "layers.0.h",
    where: Annotated[
        Literal["mean", "last"],
        Parameter(help="The mean over a text's tokens, or the state after its last."),
    ] = "mean",
    strengths: Annotated[
        str,
        Parameter(
            help="With commas; 1: as far as the sets lie apart, negative: the other way.",
            allow_leading_hyphen=True,
        ),
    ] = "0.25,0.5,1",
    time: Annotated[
        str | None,
        Parameter(
            help="At which tokens it is added: 5 or 10:20. Default: all. In a memory such as c it piles up."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        Parameter(help="Continue this with each strength.", allow_leading_hyphen=True),
    ] = None,
    max_tokens: Annotated[int, Parameter(help="Length of what is written.")] = 60,
    save: Annotated[
        Path | None, Parameter(help="Write the control of the last strength as JSON.")
    ] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """A direction and what it does; `gatewise inspect direction --help` says more."""
    check_new(save, "--save")
    check_least(**{"max-tokens": (max_tokens, 1)})
    values = decimals("--strengths", strengths)
    places = indices("--time", time)
    ones, others = _lines(toward, "--toward"), _lines(away, "--away")
    opened = open_run(run, opening, "generate")
    from gatewise.insight import direction

    found = direction(opened, ones, others, name, where=where, engine=opening.engine)
    written = None if prompt is None else prompt_text(prompt) or ""
    longest = max(len(opened.tokenizer.encode(one)) for one in (*ones, *others))
    if written is not None:
        longest = max(longest, len(opened.tokenizer.encode(written)) + max_tokens)
    check_times(found.control(time=places), longest)
    say_unknown(opened, "".join((*ones, *others, written or "")))
    rows = [
        _row(opened, found, strength, places, (ones, others), written, max_tokens, opening)
        for strength in (0.0, *(one for one in values if one))
    ]
    if save is not None:
        with new_text(save) as file:
            file.write(found.control(values[-1], time=places).to_json() + "\n")
    if json:
        screen.out_json(
            {
                "run": str(opened.path),
                "path": found.path,
                "vector": found.vector,
                "told_apart": found.told_apart,
                "held_out": list(found.held),
                "rows": rows,
            }
        )
    else:
        _show(found, rows)
    return 0


def _lines(path: Path, flag: str) -> list[str]:
    r"""The texts of a file; \n in one is a new line."""
    from gatewise.tasks.tables import read_text

    lines = [line.replace("\\n", "\n") for line in read_text(path).splitlines() if line.strip()]
    if len(lines) < 4:
        raise DataError(f"{flag} {path}: expected at least 4 texts, one a line, found {len(lines)}")
    return lines


def _row(
    run: LanguageRun,
    found: Direction,
    strength: float,
    places: Any,
    texts: tuple[Sequence[str], Sequence[str]],
    prompt: str | None,
    max_tokens: int,
    opening: Opening,
) -> dict[str, Any]:
    """What texts that the vector was not made from cost with it, and what is written."""
    from gatewise.insight.directions import cost, held_out

    control = found.control(strength, time=places) if strength else None
    costs = [cost(run, held_out(side), control, engine=opening.engine) for side in texts]
    text = None if prompt is None else _written(run, prompt, control, max_tokens, opening)
    return {"strength": strength, "toward": costs[0], "away": costs[1], "text": text}


def _written(
    run: LanguageRun, prompt: str, control: Control | None, max_tokens: int, opening: Opening
) -> str:
    continuation = run.generate(
        prompt, control=control, engine=opening.engine, max_tokens=max_tokens, temperature=0.0
    )
    return prompt + continuation.run()[0].text


def _show(found: Direction, rows: Sequence[dict[str, Any]]) -> None:
    screen.out(
        f"{found.path}: {100 * found.told_apart:.1f} % of {sum(found.held)} texts that it was not made from "
        f"stand on the right side; length {float(found.vector.norm()):.3f}"
    )
    lines = [["strength", "toward", "away", "apart", ""]]
    for row in rows:
        costs = (row["toward"], row["away"], row["away"] - row["toward"])
        lines.append([f"{row['strength']:g}", *(f"{one:.4f}" for one in costs), ""])
    screen.out(screen.table(lines, indent=""))
    screen.out("toward, away: nats per token of those texts; apart: how much more the second cost")
    for row in rows:
        if row["text"] is not None:
            screen.out(f"--- {row['strength']:g}")
            screen.result(row["text"])
