"""`gatewise inspect ablate`: what each unit is worth."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.inspecting import Text, check_least, given_text, marked, say_unknown, whole_paths
from gatewise.cli.options import Json, with_flag_names
from gatewise.cli.runs import Opening, OpeningFlags, RunPath, open_run
from gatewise.cli.saving import check_new, new_text, save_arrays
from gatewise.errors import OptionError

if TYPE_CHECKING:
    from gatewise.insight import Ablation
    from gatewise.run import LanguageRun

_ENDS = (".csv", ".npz")


def inspect_ablate(
    run: RunPath,
    text: Text,
    /,
    *,
    record: Annotated[
        str,
        Parameter(
            help="Gates and states with commas: c, in every layer, or layers.0.c,layers.1.f. Default: h."
        ),
    ] = "",
    follow: Annotated[
        str | None,
        Parameter(
            help="See apart what it costs behind brackets, quotes, ... or a /regular expression/, as `inspect units` does."
        ),
    ] = None,
    value: Annotated[
        float, Parameter(help="What the units are held at; 0: off.", allow_leading_hyphen=True)
    ] = 0.0,
    characters: Annotated[int, Parameter(help="Read at most so much of the text.")] = 2000,
    top: Annotated[int, Parameter(help="How many units to show.")] = 20,
    out: Annotated[Path | None, Parameter(help="Save all units as .csv or .npz.")] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """What each unit is worth; `gatewise inspect ablate --help` says more."""
    check_new(out, endings=_ENDS)
    check_least(top=(top, 1), characters=(characters, 2))
    opened = open_run(run, opening, "read")
    given = given_text(text, characters)
    say_unknown(opened, given)
    paths = whole_paths(opened, record) or whole_paths(opened, "h")
    found = _ablated(opened, given, paths, follow, value, opening.engine)
    if out is not None:
        _save(found, out)
    if json:
        screen.out_json({"run": str(opened.path), "gates": [_document(one) for one in found]})
    else:
        screen.out(_table(found, top, follow))
    return 0


def _ablated(
    run: LanguageRun,
    text: str,
    paths: Sequence[str],
    follow: str | None,
    value: float,
    engine: str,
) -> list[Ablation]:
    from gatewise.insight import ablate

    where = None if follow is None else marked(run, run.tokenizer.encode(text), follow)
    found = []
    try:
        for path in paths:
            told = _Told(path)
            found.append(
                ablate(run, text, path, value=value, where=where, engine=engine, told=told)
            )
            told.end()
    except OptionError as error:
        raise with_flag_names(error, ("value",)) from None
    return found


class _Told:
    """How far it is, on a terminal."""

    def __init__(self, path: str) -> None:
        self._path, self._shown = path, screen.is_terminal(sys.stderr)

    def __call__(self, done: int) -> None:
        if self._shown:
            screen.say(f"\r{self._path}: {done:,} units", end="")

    def end(self) -> None:
        """Leave the line."""
        if self._shown:
            screen.say("\r" + " " * 40 + "\r", end="")


def _table(found: Sequence[Ablation], top: int, follow: str | None) -> str:
    every = [(one, k) for one in found for k in range(len(one.units))]
    key = "change" if follow is None else "inside"
    every.sort(key=lambda item: -float(getattr(item[0], key)[item[1]]))
    rows = [
        ["", "unit", "nats/token", *([] if follow is None else [f"behind {follow}", "elsewhere"])]
    ]
    for one, k in every[:top]:
        sides = []
        if one.inside is not None and one.outside is not None:
            sides = [f"{one.inside[k]:+.4f}", f"{one.outside[k]:+.4f}"]
        rows.append([one.path, str(one.units[k]), f"{one.change[k]:+.4f}", *sides])
    total = sum(len(one.units) for one in found)
    none = sum(int((abs(one.change) < 1e-3).sum()) for one in found)
    return (
        f"{screen.table(rows, indent='')}\n{total:,} units, each held alone; {none:,} of them change the cost by less "
        f"than 0.001 nats; with all of them it is {found[0].before:.4f} nats/token"
    )


def _document(one: Ablation) -> dict[str, Any]:
    return {
        "path": one.path,
        "units": one.units,
        "change": one.change,
        "inside": one.inside,
        "outside": one.outside,
        "nats_per_token": one.before,
    }


def _save(found: Sequence[Ablation], out: Path) -> None:
    if out.suffix.lower() == ".npz":
        names = ("units", "change", "inside", "outside")
        arrays = {f"{one.path}/{name}": getattr(one, name) for one in found for name in names}
        save_arrays(out, {name: one for name, one in arrays.items() if one is not None})
        return
    with new_text(out, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "unit", "change", "inside", "outside"])
        for one in found:
            for k, unit in enumerate(one.units.tolist()):
                sides = [None if s is None else float(s[k]) for s in (one.inside, one.outside)]
                writer.writerow([one.path, unit, float(one.change[k]), *sides])
