"""`gatewise inspect fading`: how one token fades in a unit, and the gates that keep it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.inspecting import is_folder, say_unknown
from gatewise.cli.options import Json, with_flag_names
from gatewise.cli.runs import Opening, OpeningFlags, open_run, prompt_text

if TYPE_CHECKING:
    from gatewise.insight import Fading


def inspect_fading(
    text: Annotated[
        str,
        Parameter(allow_leading_hyphen=True, help="What is read; - reads standard input."),
    ],
    /,
    *runs: Annotated[Path, Parameter(help="Runs, or checkpoints; a picture beside another.")],
    since: Annotated[int, Parameter(help="The token that is followed, from 0.")] = 0,
    layer: Annotated[int, Parameter(help="Whose unit; -1: the last layer.")] = -1,
    unit: Annotated[
        int | None,
        Parameter(
            help="Which. Default: the one that depends on the token most, at once and at the end."
        ),
    ] = None,
    before: Annotated[
        bool, Parameter(negative="", help="Each beside the same net before training.")
    ] = False,
    plot: Annotated[
        Path | None, Parameter(help="Draw it (.png, .svg, .pdf); needs gatewise[plot].")
    ] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """How a token fades; `gatewise inspect fading --help` says more."""
    from gatewise.errors import OptionError

    if not runs:
        raise OptionError("expected a text and one run or more, found no run")
    if plot is not None:
        plots.check(plot)
    if opening.engine not in ("auto", "reference"):
        raise OptionError(
            "--engine: gradients by an input are those of the reference engine; leave it out"
        )
    if is_folder(text) and not runs[-1].exists():  # as other verbs have it
        raise OptionError(f"expected the text before the runs, found the folder {text} first")
    read = prompt_text(text) or ""
    named = {"since": since, "layer": layer, "unit": unit}
    found: list[Fading] = []
    for path in runs:
        try:
            found += _measured(path, opening, read, named, before)
        except OptionError as error:
            raise with_flag_names(error, named) from None
    if plot is not None:
        from gatewise.plots import fading, save

        save(fading(*found, key=True), plot)
        screen.say(f"drawn: {plot}")
    if json:
        screen.out_json({"text": read, "runs": [vars(one) for one in found]})
    else:
        screen.out("\n\n".join(_table(one) for one in found))
    return 0


def _measured(
    path: Path, opening: Opening, text: str, options: Mapping[str, Any], before: bool
) -> list[Fading]:
    """A run, and if asked for the same before training."""
    from gatewise import insight

    opened = open_run(path, opening, "read")
    name = path.name or path.resolve().name
    found = [insight.fading(opened, text, name=name, **options)]
    if before:
        model = insight.untrained(opened)
        former = insight.fading(opened, text, model=model, name=f"{name}, untrained", **options)
        found.insert(0, former)
    say_unknown(opened, text)
    return found


def _table(one: Fading) -> str:
    """A line a step: what depends on the token, as shares of the largest, and the gates."""
    followed = {one.memory: one.kept, "h": one.said}
    largest = {name: max(float(values.max()), 1e-300) for name, values in followed.items()}
    rows = [["", "read", *followed, *one.gates, ""]]
    for t, token in enumerate(one.tokens):
        shares = [f"{float(values[t]) / largest[name]:.1%}" for name, values in followed.items()]
        gates = [f"{float(values[t]):.2f}" for values in one.gates.values()]
        rows.append([str(t), screen.token(token, limit=12), *shares, *gates, ""])
    most = ", ".join(f"{name} {value:.3g}" for name, value in largest.items())
    return (
        f"{one.name}, layer {one.layer}, unit {one.unit}: how much it depends on the token at {one.since}, of the most "
        f"({most})\n{screen.table(rows, indent='')}"
    )
