"""`gatewise bench memory`: the memory suite as a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.options import Json
from gatewise.errors import FailedError, OptionError

if TYPE_CHECKING:
    from gatewise.bench.memory import Row

CELLS = "rnn_tanh,rnn_relu,gru,lstm"
TASKS = "temporal-order:easy,temporal-order:normal"


def memory(
    *,
    out: Annotated[Path, Parameter(help="The rows, as JSON: a new file, or one to go on with.")],
    tasks: Annotated[
        str, Parameter(help="With commas: a task, or task:length; `gatewise tasks` lists them.")
    ] = TASKS,
    cells: Annotated[
        str,
        Parameter(
            help="With commas: a cell, or cell/initial weights: lstm/chrono, rnn_tanh/orthogonal, "
            "rnn_relu/identity, lstm/forget=1."
        ),
    ] = CELLS,
    seeds: Annotated[str, Parameter(help="With commas.")] = "1,2,3,4,5",
    hidden_size: Annotated[int, Parameter(help="Units.")] = 64,
    lr: Annotated[float, Parameter(help="Learning rate of Adam.")] = 3e-3,
    batch_size: Annotated[int, Parameter(help="Sequences of a step.")] = 64,
    clip_norm: Annotated[
        float, Parameter(help="Largest norm of the whole gradient; 0: no limit.")
    ] = 1.0,
    schedule: Annotated[
        str, Parameter(help="Of the learning rate: constant, or cosine (down to 0 at --sequences).")
    ] = "constant",
    sequences: Annotated[int, Parameter(help="At most, of a run that is not solved.")] = 102_400,
    every: Annotated[int, Parameter(help="Sequences between evaluations.")] = 3_200,
    jobs: Annotated[int, Parameter(help="Runs at a time; default: one a processor.")] = 0,
    device: Annotated[str, Parameter(help="cpu, cuda, cuda:1, ...")] = "cpu",
    table: Annotated[
        bool, Parameter(negative="", help="Train nothing, only show what stands in the file.")
    ] = False,
    json: Json = False,
) -> int:
    """Cells x tasks over seeds, each trained until it is solved: how many, and after how many sequences."""
    from gatewise.bench import memory as suite

    plan = suite.Plan(
        tasks=_names("--tasks", tasks),
        cells=_names("--cells", cells),
        seeds=_seeds(seeds),
        hidden_size=hidden_size,
        lr=lr,
        batch_size=batch_size,
        clip_norm=clip_norm,
        schedule=schedule,
        most=sequences,
        every=every,
        device=device,
    )
    plan.validate()
    if jobs < 0:
        raise OptionError(f"--jobs: expected a whole number from 1, found {jobs}")
    rows = suite.read(out)
    if not table:
        runs = out.with_name(out.name + ".runs")
        try:
            runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FailedError(f"{runs}: cannot make it: {error.strerror}") from None
        rows = suite.measure(plan, out, runs, jobs=jobs or os.cpu_count() or 1, done=_say)
    if json:
        screen.out_json({"rows": rows, "table": suite.summary(rows)})
    else:
        screen.out(suite.table(rows) if rows else f"{out}: no rows yet")
    return 0


def _names(flag: str, given: str) -> tuple[str, ...]:
    names = tuple(one.strip() for one in given.split(","))
    if not all(names):
        raise OptionError(f"{flag}: expected names with commas between, found {given!r}")
    return names


def _seeds(given: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in given.split(","))
    except ValueError:
        raise OptionError(f"--seeds: expected numbers with commas, found {given!r}") from None


def _say(row: Row, there: int, of: int) -> None:
    ended = "solved" if row["ended"] else "not solved"
    screen.say(
        f"{there} of {of}: {row['task']} {row['length']}, {row['cell']} {row['initialisation']}, seed {row['seed']}: "
        f"{ended} after {row['sequences']:,} sequences, {row['test']['sequences_right']:.3f} of the test right, "
        f"{row['seconds']:.0f} s"
    )
