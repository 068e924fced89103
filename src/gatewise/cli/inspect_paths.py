"""`gatewise inspect paths`: where states go, and where they come to rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.inspecting import check_least, given_text, say_unknown
from gatewise.cli.options import Json, with_flag_names
from gatewise.cli.runs import Opening, OpeningFlags, RunPath, open_any
from gatewise.cli.saving import check_new, save_arrays
from gatewise.errors import DataError, OptionError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from gatewise.insight import Plane, SlowPoints
    from gatewise.run import LanguageRun, Run, TaskRun
    from gatewise.stack import Stack

MOST = 2_000
"""Characters of a text that are read."""


class _Paths(NamedTuple):
    """What is read: a stack, its inputs (T, B, I), classes of the sequences, and inputs by name."""

    stack: Stack
    x: Tensor
    classes: list[str] | None
    known: dict[str, Tensor]


def inspect_paths(
    run: RunPath,
    /,
    *,
    text: Annotated[
        str | None,
        Parameter(
            help="Of a language model: a file, the text itself, or -: standard input. Of a memory task: none.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    sequences: Annotated[int, Parameter(help="Test sequences of a memory task.")] = 64,
    dimensions: Annotated[int, Parameter(help="2, or 3.")] = 2,
    points: Annotated[
        str | None,
        Parameter(
            help="Where the state rests while this symbol (or token) is read again and again.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    plot: Annotated[Path | None, Parameter(help="Draw it (.png, .svg, .pdf).")] = None,
    out: Annotated[
        Path | None, Parameter(help="Save coordinates, axes and points as .npz.")
    ] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """Where states go; `gatewise inspect paths --help` says more."""
    if plot is not None:
        plots.check(plot)
    check_new(out, endings=(".npz",))
    check_least(sequences=(sequences, 1))
    if dimensions not in (2, 3):
        raise OptionError(f"--dimensions: expected 2 or 3, found {dimensions}")
    opened = open_any(run, opening, "read")
    from gatewise import insight

    read = _read(opened, text, sequences)
    states = insight.states_along(read.stack, read.x, engine=opening.engine)
    try:
        plane = insight.principal_plane(states.flatten(0, 1), dimensions)
    except OptionError as error:
        raise with_flag_names(error, ("dimensions",)) from None
    slow = None if points is None else _slow(read, states, points)
    if plot is not None:
        from gatewise.plots import paths, save

        save(paths(plane, states, read.classes, slow), plot)
        screen.say(f"drawn: {plot}")
    if out is not None:
        arrays = {
            "paths": plane.project(states.to(plane.mean)),
            "axes": plane.axes,
            "mean": plane.mean,
        }
        if slow is not None:
            arrays |= {
                "points": slow.states,
                "speeds": slow.speeds,
                "eigenvalues": slow.eigenvalues,
            }
        save_arrays(out, {name: one.cpu().numpy() for name, one in arrays.items()})
    if json:
        screen.out_json(_document(opened, plane, states, read.classes, slow))
    else:
        screen.out(_table(plane, states, slow, points))
    return 0


def _read(opened: Run, text: str | None, sequences: int) -> _Paths:
    from gatewise.run import LanguageRun, TaskRun

    if isinstance(opened, TaskRun):
        if text is not None:
            raise OptionError("--text: for a run of a language model, found one of a memory task")
        return _of_task(opened, sequences)
    if isinstance(opened, LanguageRun):
        if text is None:
            raise OptionError("--text: expected a text to read, found none")
        given = given_text(text, MOST)
        say_unknown(opened, given)
        return _of_text(opened, given)
    raise OptionError(
        f"{opened.path}: expected a run of mapping 'lm' or 'task', found {opened.mapping!r}"
    )


def _of_task(opened: TaskRun, sequences: int) -> _Paths:
    import torch

    from gatewise.insight.task_sensitivity import same_length

    task = opened.task
    batch = same_length(task, sequences, opened.seed)
    weight = next(opened.model.parameters())
    classes = [task.classes[k] for k in batch.targets[-1].tolist()] if task.classes else None
    known = {}
    if not task.numeric:
        rows = torch.eye(len(task.symbols)).to(weight)
        known = dict(zip(task.symbols, rows, strict=True))
    return _Paths(opened.model.stack, batch.x.to(weight), classes, known)


def _of_text(opened: LanguageRun, text: str) -> _Paths:
    import numpy as np
    import torch

    ids = torch.from_numpy(np.asarray(opened.tokenizer.encode(text), np.int64))
    if len(ids) < 2:
        raise DataError(f"expected a text of at least two tokens, found {len(ids)}")
    x = opened.model.inputs(ids[:, None].to(opened.device)).detach()
    rows = opened.model.embedding.weight.detach()
    known = {token: rows[k] for k, token in enumerate(opened.tokenizer.tokens)}
    return _Paths(opened.model.stack, x, None, known)


def _slow(read: _Paths, states: Tensor, name: str) -> SlowPoints:
    """Slow points under one input, from states that were gone through."""
    import torch

    from gatewise import insight

    if not read.known:
        raise OptionError("--points: for symbols or tokens, found a task that reads numbers")
    if name not in read.known:
        raise unknown("symbol (--points)", name, read.known)
    flat = states.flatten(0, 1)
    chosen = torch.linspace(0, len(flat) - 1, min(64, len(flat))).long()
    return insight.slow_points(
        read.stack, read.known[name], insight.as_states(read.stack, flat[chosen.to(flat.device)])
    )


def _table(plane: Plane, states: Tensor, slow: SlowPoints | None, symbol: str | None) -> str:
    shares = " + ".join(f"{share:.1%}" for share in plane.shares.tolist())
    steps, columns, size = states.shape
    count = "1 path" if columns == 1 else f"{columns:,} paths"
    said = (
        f"{count} of {steps:,} steps in {size:,} numbers; the first {len(plane.axes)} components have {shares} "
        "of the variance"
    )
    if slow is None:
        return said
    if not len(slow):
        return f"{said}\nunder {symbol!r} again and again no state rests"
    places = plane.project(slow.states.to(plane.mean)).tolist()
    rows = [["", "speed", "growing", "largest eigenvalue", "where"]]
    for k, place in enumerate(places[:20]):
        value = complex(slow.eigenvalues[k, 0])
        shown = f"{abs(value):.3f}" + (" (turning)" if abs(value.imag) > 1e-6 else "")
        at = ", ".join(f"{one:.2f}" for one in place)
        rows.append([str(k), f"{float(slow.speeds[k]):.1e}", str(int(slow.unstable[k])), shown, at])
    more = f"\n{len(slow) - 20} more" if len(slow) > 20 else ""
    return (
        f"{said}\nunder {symbol!r} again and again the state rests at (growing: directions that leave; 0: it attracts)\n"
        f"{screen.table(rows, indent='')}{more}"
    )


def _document(
    opened: Run, plane: Plane, states: Tensor, classes: list[str] | None, slow: SlowPoints | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "run": str(opened.path),
        "shares": plane.shares,
        "paths": plane.project(states.to(plane.mean)),
        "classes": classes,
    }
    if slow is not None:
        found["points"] = {
            "speeds": slow.speeds,
            "growing": slow.unstable,
            "moduli": slow.eigenvalues.abs()[:, :3],
            "places": plane.project(slow.states.to(plane.mean)),
        }
    return found
