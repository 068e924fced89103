"""`gatewise bench`: gatewise beside its peers, measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from gatewise.cli import screen
from gatewise.cli.options import Json
from gatewise.errors import OptionError

if TYPE_CHECKING:  # only names: the page of help must not wait for torch
    from gatewise.bench.report import Report
    from gatewise.bench.suites import Job, Settings

app = App(
    name="bench",
    help="Measure gatewise beside its peers on this machine: a quick look at all in about a minute.\n\n"
    "First everybody's results are compared with the truth in float64; who is wrong is not timed. Then "
    "the contestants take turns, with the same weights, inputs and threads. Shown are medians, "
    "quartiles, ratios of medians, the ceilings of the machine measured in the same run, and what "
    "gatewise wants to reach. The exit status is 1 where results of gatewise were wrong.",
    group_commands=Group("Benchmarks", sort_key=1),
)


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How to measure."""

    threads: int | None = None
    """Threads that everybody has; default: as many as torch takes."""

    seconds: float | None = None
    """Time for the turns of one table; checking the results comes on top. Default: 4 for the quick look, else 15."""

    rounds: int = 40
    """At most so many turns of each."""

    seed: int = 0
    """Of weights, inputs and the order of turns."""

    contestants: tuple[str, ...] = ()
    """Only these, by the names that --json shows; may be given several times."""


MeasuringFlags = Annotated[Measuring, Parameter(name="*", group="Measuring")]
Sizes = Annotated[
    tuple[str, ...],
    Parameter(
        name="--sizes",
        help="T,B,H,L: steps, columns, units, layers; may be given several times. Default: all that "
        "the aims speak of.",
    ),
]
Cell = Annotated[Literal["lstm", "gru"], Parameter(name="--cell", help="lstm or gru.")]


@app.default
def quick(*, measuring: MeasuringFlags = Measuring(), json: Json = False) -> int:
    """A few sizes of everything; `gatewise bench train --help` and so on for one part."""

    def jobs(settings: Settings) -> list[Job]:
        from gatewise.bench import sizes, suites

        one = (sizes.QUICK_TRAINING[0],)
        return [
            *suites.train(settings, sizes.QUICK_TRAINING),
            *suites.lm(settings, one, sizes.VOCABULARIES),
            *suites.step(settings, sizes.QUICK_STEPPING),
            *suites.cell(settings, one),
        ]

    _refuse_names(measuring)
    return _measure("quick", measuring, jobs, json, seconds=4.0)


@app.command
def train(
    *,
    sizes: Sizes = (),
    cell: Cell = "lstm",
    compile: Annotated[
        bool,
        Parameter(negative="", help="torch.compile of a loop too: it compiles for about a minute."),
    ] = False,
    measuring: MeasuringFlags = Measuring(),
    json: Json = False,
) -> int:
    """Forward and backward of a stack: nn.LSTM, loops written by hand, gatewise with its gates open."""

    def jobs(settings: Settings) -> list[Job]:
        from gatewise.bench import sizes as known
        from gatewise.bench import suites

        return suites.train(settings, known.read_sizes(" ".join(sizes), known.TRAINING), cell)

    return _measure("train", measuring, jobs, json, compile=compile)


@app.command
def step(
    *,
    sizes: Annotated[
        tuple[str, ...],
        Parameter(
            help="H,V or H,V,B or H,V,B,L: units, tokens, columns (1), layers (2); may be given "
            "several times. Default: all that the aims speak of."
        ),
    ] = (),
    measuring: MeasuringFlags = Measuring(),
    json: Json = False,
) -> int:
    """One token after another: nn.LSTM with and without mkldnn, torch and ONNX Runtime in int8, gatewise."""

    def jobs(settings: Settings) -> list[Job]:
        from gatewise.bench import sizes as known
        from gatewise.bench import suites

        return suites.step(settings, known.read_step_sizes(" ".join(sizes), known.STEPPING))

    return _measure("step", measuring, jobs, json)


@app.command
def lm(
    *,
    sizes: Sizes = (),
    vocabulary: Annotated[
        tuple[int, ...], Parameter(help="Numbers of tokens; may be given several times.")
    ] = (100, 10_000),
    measuring: MeasuringFlags = Measuring(),
    json: Json = False,
) -> int:
    """The whole training step of a language model, its decoder and cost included, beside torch.nn's."""
    if any(size < 2 for size in vocabulary):
        raise OptionError(f"--vocabulary: expected whole numbers from 2, found {min(vocabulary)}")

    def jobs(settings: Settings) -> list[Job]:
        from gatewise.bench import sizes as known
        from gatewise.bench import suites

        found = known.read_sizes(" ".join(sizes), (known.TRAINING[0], known.TRAINING[1]))
        return suites.lm(settings, found, vocabulary)

    return _measure("lm", measuring, jobs, json)


@app.command
def cell(
    *,
    sizes: Sizes = (),
    measuring: MeasuringFlags = Measuring(),
    json: Json = False,
) -> int:
    """A cell that a user writes down: per operation, beside its loop, how soon it runs; and minGRU's scan."""

    def jobs(settings: Settings) -> list[Job]:
        from gatewise.bench import scans, suites
        from gatewise.bench import sizes as known

        found = known.read_sizes(" ".join(sizes), known.TRAINING)
        return [*suites.cell(settings, found), *suites.scan(settings, scans.SIZES)]

    _refuse_names(measuring)
    return _measure("cell", measuring, jobs, json)


@app.command
def peak(
    *,
    sizes: Sizes = (),
    cell: Cell = "lstm",
    measuring: MeasuringFlags = Measuring(),
    json: Json = False,
) -> int:
    """The most memory that training takes, each contestant in a process of its own."""

    def jobs(settings: Settings) -> list[Job]:
        from gatewise.bench import sizes as known
        from gatewise.bench import suites

        return suites.peak(settings, known.read_sizes(" ".join(sizes), known.TRAINING), cell)

    return _measure("peak", measuring, jobs, json)


@app.command
def scaling(
    *,
    out: Annotated[
        Path | None,
        Parameter(help="Draw the lines into this file (.png, .svg, .pdf); needs gatewise[plot]."),
    ] = None,
    cell: Cell = "lstm",
    measuring: MeasuringFlags = Measuring(),
    json: Json = False,
) -> int:
    """How the time of training grows with T, B and H: numbers, exponents, and a plot."""
    from gatewise.bench import scaling as lines

    if out is not None:
        lines.check_plot(out)

    def jobs(settings: Settings) -> list[Job]:
        from gatewise.bench import suites

        return suites.train(settings, lines.all_sizes(), cell)

    def more(report: Report) -> dict[str, Any]:
        if out is not None:
            lines.plot(report.tables, out)
        return {"scaling": lines.document(report.tables), "plot": str(out) if out else None}

    names = measuring.contestants or lines.NAMES
    return _measure("scaling", measuring, jobs, json, names=names, seconds=3.0, more=more)


app.command(
    "gatewise.cli.bench_memory:memory",
    name="memory",
    help="The memory suite as a table: cells and tasks over seeds.\n\n"
    "Each run is trained until its task is solved or its sequences are used up; how many seeds solved it, after how many "
    "sequences, and what share of fresh sequences is right then. Rows are kept in --out as they are finished, and "
    "what stands there is not trained again: a table can be stopped and gone on with.",
)


app.command(
    "gatewise.cli.bench_serve:serve",
    name="serve",
    help="Many writers at once: latency of completions by rate of keystrokes.\n\n"
    "Each writer presses five keys a second, when they are due, whether or not answers have come; each key asks for three continuations of eight tokens of its "
    "writer's document. Beside it stand a server that batches whole requests, with the same packed model, and a loop over torch's "
    "kernels, both of which read the document anew. The rate rises by half each time, up to the first whose p99 is above --bound; then one "
    "between the last two is tried. With --http each of them stands behind the application of `gatewise serve`, and a writer who presses the next key "
    "before the answer has come closes the connection and asks on a new one.",
)


@app.command
def machine(*, measuring: MeasuringFlags = Measuring(), json: Json = False) -> int:
    """What this machine can do at most: multiply-adds, torch's matmul, reading from each cache."""
    return _measure("machine", measuring, lambda _: [], json)


# ---------------------------------------------------------------------------- measuring


def _refuse_names(measuring: Measuring) -> None:
    if measuring.contestants:
        raise OptionError(
            "--contestants: expected a benchmark that has one kind of them (train, step, lm, peak, "
            "scaling), found several kinds"
        )


def _measure(
    verb: str,
    measuring: Measuring,
    jobs: Callable[[Settings], Sequence[Job]],
    json: bool,
    *,
    seconds: float = 15.0,
    names: tuple[str, ...] | None = None,
    compile: bool = False,
    more: Callable[[Report], dict[str, Any]] = lambda _: {},
) -> int:
    settings = _settings(
        measuring, seconds, measuring.contestants if names is None else names, compile
    )
    with _Progress() as progress:
        from gatewise.bench.session import hold

        report = hold(jobs(settings), settings, progress, verb=verb)
    found = more(report)
    if json:
        screen.out_json({**report.document(), **found})
    else:
        _show(report, found)
    return 1 if report.wrong else 0


def _settings(
    measuring: Measuring, seconds: float, names: tuple[str, ...], compile: bool
) -> Settings:
    import torch

    from gatewise.bench.suites import Settings

    count = torch.get_num_threads() if measuring.threads is None else measuring.threads
    time_of_turns = seconds if measuring.seconds is None else measuring.seconds
    if count < 1:
        raise OptionError(f"--threads: expected a whole number from 1, found {count}")
    if measuring.rounds < 1:
        raise OptionError(f"--rounds: expected a whole number from 1, found {measuring.rounds}")
    if not 0 <= time_of_turns < float("inf"):
        raise OptionError(f"--seconds: expected a number from 0, found {time_of_turns}")
    return Settings(count, time_of_turns, measuring.rounds, measuring.seed, compile, names)


def _show(report: Report, found: dict[str, Any]) -> None:
    import os
    import shutil

    from gatewise.bench.tables import render

    colour = screen.is_terminal() and not os.environ.get("NO_COLOR")
    width = max(shutil.get_terminal_size((120, 24)).columns, 100)
    screen.out(render(report, width=width, colour=colour))
    for axis, contestants in (found.get("scaling") or {}).items():
        slopes = ", ".join(
            f"{n} {v['exponent']:.2f}" for n, v in contestants.items() if v["exponent"]
        )
        screen.out(f"time grows with {axis} to the power of: {slopes}")
    if found.get("plot"):
        screen.out(f"the plot is in {found['plot']}")


class _Progress:
    """A bar on a terminal, plain lines elsewhere; on standard error."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> _Progress:
        import sys

        if screen.is_terminal(sys.stderr):
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def doing(self, text: str) -> None:
        """What is done next."""
        if self._bar is None:
            screen.say(f"{time.monotonic() - self._begun:5.0f} s  {text}")
        else:
            self._bar.update(self._task, description=text)

    def done(self, count: int, of: int) -> None:
        """So many jobs are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=count, total=of)
