"""`gatewise inspect vectors`: the vectors of phrases as a map."""

from __future__ import annotations

import csv
import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.options import Json
from gatewise.cli.runs import Opening, OpeningFlags, RunPath, open_as, say_notes
from gatewise.cli.saving import check_new, new_text, save_arrays
from gatewise.errors import DataError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from gatewise.run.maps import Map

_MOST = 20_000
_ENDS = (".csv", ".json", ".npz")

Region = tuple[float, float, float, float]


def inspect_vectors(
    run: RunPath,
    /,
    data: Annotated[
        list[str],
        Parameter(
            allow_leading_hyphen=True,
            help="Phrases, or files with one in each line (.gz too); - reads standard input.",
        ),
    ],
    *,
    region: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="Look at a part of the map: x0,x1,y0,y1. The axes stay those of all phrases.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, Parameter(help="Draw the map with the phrases on it (.png, .svg, .pdf).")
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(help="Save it as data: .csv or .json (the map), .npz (the whole vectors too)."),
    ] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """The vectors of phrases; `gatewise inspect vectors --help` says more."""
    from gatewise.run import TranslateRun
    from gatewise.run.maps import principal_map

    area = None if region is None else _region(region)
    if plot is not None:
        plots.check(plot)
    check_new(out, endings=_ENDS)
    phrases = _phrases(data)
    opened = open_as(TranslateRun, run, opening, "vectors")
    say_notes(_notes(opened, phrases))
    vectors = opened.vectors(phrases, engine=opening.engine)
    found = principal_map(vectors)
    rows = list(range(len(phrases))) if area is None else found.inside(area)
    if not rows:
        raise DataError(f"--region: expected phrases in {region}, found none of {len(phrases):,}")
    if plot is not None:
        chosen = [phrases[k] for k in rows]
        plots.scatter(plot, found.points[rows], chosen, found.shares, area)
        screen.say(f"drawn: {plot}")
    document = _document(phrases, found, rows)
    if out is not None:
        _save(out, document, vectors[rows])
        screen.say(f"saved: {out}")
    if json:
        screen.out_json(document)
    elif plot is None and out is None:
        screen.out(_table(document))
    return 0


def _region(text: str) -> Region:
    try:
        x0, x1, y0, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--region: expected four numbers x0,x1,y0,y1, found {text!r}") from None
    if not (x0 < x1 and y0 < y1):
        raise OptionError(f"--region: expected x0 < x1 and y0 < y1, found {text!r}")
    return x0, x1, y0, y1


def _phrases(data: Sequence[str]) -> list[str]:
    """The different phrases, in order."""
    from gatewise.cli.translate import lines_of

    found: dict[str, None] = {}
    for one in data:
        found |= dict.fromkeys(line.strip() for line in lines_of(one, "DATA") if line.strip())
    if len(found) < 2:
        raise DataError(f"expected at least 2 different phrases for a map, found {len(found)}")
    if len(found) > _MOST:
        raise DataError(f"expected at most {_MOST:,} phrases, found {len(found):,}: choose some")
    return list(found)


def _notes(opened: Any, phrases: Sequence[str]) -> list[str]:
    unknown = [p for p in phrases if opened.sides.source.unknowns(p)]
    if not unknown:
        return []
    named = "; ".join(unknown[:3]) + ("; ..." if len(unknown) > 3 else "")
    return [f"{len(unknown):,} phrases have words that the model does not know: {named}"]


def _document(phrases: Sequence[str], found: Map, rows: Sequence[int]) -> dict[str, Any]:
    points = found.points.tolist()
    return {
        "shares": list(found.shares),
        "phrases": [{"phrase": phrases[k], "x": points[k][0], "y": points[k][1]} for k in rows],
    }


def _table(document: dict[str, Any]) -> str:
    rows = [["x", "y", "phrase"]]
    for one in document["phrases"]:
        rows.append([f"{one['x']:.3f}", f"{one['y']:.3f}", screen.shown(one["phrase"])])
    first, second = document["shares"]
    return f"{screen.table(rows, indent='')}\nvariance: x {first:.1%}, y {second:.1%}"


def _save(out: Path, document: dict[str, Any], vectors: Tensor) -> None:
    kind = out.suffix.lower()
    if kind == ".npz":
        _save_arrays(out, document, vectors)
        return
    with new_text(out, newline="") as file:
        if kind == ".json":
            json_module.dump(document, file, ensure_ascii=False, indent=1)
            return
        writer = csv.writer(file)
        writer.writerow(("phrase", "x", "y"))
        writer.writerows((one["phrase"], one["x"], one["y"]) for one in document["phrases"])


def _save_arrays(out: Path, document: dict[str, Any], vectors: Tensor) -> None:
    import numpy as np

    points = np.array([(one["x"], one["y"]) for one in document["phrases"]])
    names = np.array([one["phrase"] for one in document["phrases"]])
    save_arrays(out, {"phrases": names, "points": points, "vectors": vectors.numpy()})
