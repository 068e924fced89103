"""Which tasks a benchmark holds: for each verb a list of jobs. Knows the tasks; no command line.

A job is a title and a function; whoever runs them may show how far it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gatewise.bench import cells, language, parity, scans, stepping, training
from gatewise.bench import peak as peaks
from gatewise.bench.ceilings import Ceilings, reading
from gatewise.bench.contestants import select
from gatewise.bench.match import Match, Tell, hold
from gatewise.bench.report import Row, Table
from gatewise.bench.sizes import Size, StepSize
from gatewise.bench.timing import Plan, spread


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        threads: that everybody has.
        seconds: for the turns of one task; checking them comes on top.
        rounds: at most.
        seed: of weights, inputs and the order of turns.
        compile: torch.compile takes part.
        contestants: names; empty: all.
    """

    threads: int
    seconds: float = 10.0
    rounds: int = 40
    seed: int = 0
    compile: bool = False
    contestants: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """For calls of milliseconds and more."""
        return Plan(seconds=self.seconds, rounds=self.rounds, pause=1e-3, seed=self.seed)

    @property
    def fine_plan(self) -> Plan:
        """For calls of microseconds: many a turn, once all other threads sleep and its own are awake."""
        return replace(self.plan, shortest=2e-2, pause=1e-2, asleep=True, warm=3e-2)


@dataclass(frozen=True)
class Job:
    """One task.

    Args:
        title: what it is.
        run: does it; with the ceilings, and where to say what is done next.
    """

    title: str
    run: Callable[[Ceilings, Tell], Table] = field(repr=False)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch's threads, as many as everybody has."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _size(size: Size) -> dict[str, Any]:
    return {"T": size.steps, "B": size.batch, "H": size.hidden, "L": size.layers}


# ---------------------------------------------------------------------------- training


def train(settings: Settings, sizes: Sequence[Size], kind: str = "lstm") -> list[Job]:
    """Forward and backward of a stack."""
    known = select(training.CONTESTANTS, settings.contestants, training.BASE)

    def job(size: Size) -> Job:
        title = f"training {kind.upper()}: {size.title}"

        def run(ceilings: Ceilings, tell: Tell) -> Table:
            task = training.make_task(kind, size, seed=settings.seed, compile=settings.compile)
            truth = training.truth(task)
            match = Match(
                "train",
                title,
                {"cell": kind, **_size(size)},
                task,
                known,
                lambda entry, dtype: parity.error(
                    training.step(entry, task.x, task.grad, dtype), truth
                ),
                lambda entry, dtype: lambda: training.step(entry, task.x, task.grad, dtype),
                ("torch", "torch-bf16"),
                before=training.touch,
                operations=dict.fromkeys(known, float(size.operations(task.blocks))),
                engine=lambda entry: entry.ran[0] if entry.ran else "",
                label=lambda text: text.format(kind=kind.upper()),
            )
            return hold(match, settings.plan, ceilings, settings.threads, tell)

        return Job(title, run)

    return [job(size) for size in sizes]


def lm(settings: Settings, sizes: Sequence[Size], vocabularies: Sequence[int]) -> list[Job]:
    """The whole training step of a language model."""
    known = select(language.CONTESTANTS, settings.contestants, language.BASE)

    def job(size: Size, vocabulary: int) -> Job:
        title = f"language model's training step: V {vocabulary:,}, {size.title}"

        def run(ceilings: Ceilings, tell: Tell) -> Table:
            task = language.make_task(size, vocabulary, seed=settings.seed)
            truth = language.truth(task)
            match = Match(
                "lm",
                title,
                {**_size(size), "V": vocabulary},
                task,
                known,
                lambda entry, dtype: parity.error(language.results(entry, task, dtype), truth),
                lambda entry, dtype: lambda: language.step(entry, task, dtype),
                ("torch", "torch-bf16"),
                operations=dict.fromkeys(known, language.operations(task)),
                engine=lambda entry: entry.ran[0] if entry.ran else "",
            )
            return hold(match, settings.plan, ceilings, settings.threads, tell)

        return Job(title, run)

    return [job(size, vocabulary) for size in sizes for vocabulary in vocabularies]


# ---------------------------------------------------------------------------- one token after another

_MANY, _FEW, _LARGE = 32, 8, 4_000_000


def tokens_of(size: StepSize) -> int:
    """Tokens that one call writes: of a large model fewer, since its slowest peers take 80 ms for one."""
    return _FEW if size.weights(4) > _LARGE else _MANY


def step(settings: Settings, sizes: Sequence[StepSize]) -> list[Job]:
    """Whole tokens of a language model that writes."""
    known = select(stepping.CONTESTANTS, settings.contestants, stepping.BASE)

    def job(size: StepSize) -> Job:
        title = f"one token: {size.title}"

        def run(ceilings: Ceilings, tell: Tell) -> Table:
            task = stepping.make_task(size, settings.threads, seed=settings.seed)
            truth, reads = stepping.truth(task), Reads(size, settings.threads)
            count = tokens_of(size)

            def more(name: str, entry: stepping.Entry, seconds: float) -> dict[str, float]:
                dtype = known[name].dtype
                return {
                    "tokens_per_second": size.batch / seconds,
                    "reads_bytes": reads.bytes(dtype, entry.reads),
                    "over_reading": seconds / reads.seconds(dtype, entry.reads),
                }

            match = Match(
                "step",
                title,
                {"H": size.hidden, "V": size.vocabulary, "B": size.batch, "L": size.layers},
                task,
                known,
                lambda entry, _: parity.error(stepping.results(entry, task), truth),
                lambda entry, _: lambda: entry.write(count),
                ("torch", "torch-plain", "onnx", "onnx-int8"),
                engine=lambda entry: entry.ran[0] if entry.ran else "",
                parts=count,
                more=more,
            )
            table = hold(match, settings.fine_plan, ceilings, settings.threads, tell)
            return replace(table, floors={d: reads.seconds(d) for d in stepping.BYTES})

        return Job(title, run)

    return [job(size) for size in sizes]


class Reads:
    """Seconds to read the weights of a step once, at the speed at which so many bytes are read over and over.

    Args:
        size: of the step.
        count: threads.
    """

    def __init__(self, size: StepSize, count: int) -> None:
        self._numbers, self._count = size.weights(4), count
        self._known: dict[float, float] = {}

    def bytes(self, dtype: str, known: float | None = None) -> float:
        """Bytes of the weights in a dtype, or those that are known."""
        return self._numbers * stepping.BYTES[dtype] if known is None else known

    def seconds(self, dtype: str, known: float | None = None) -> float:
        """The least time for them."""
        size = self.bytes(dtype, known)
        if size not in self._known:
            self._known[size] = size / reading(round(size), self._count).best
        return self._known[size]


# ---------------------------------------------------------------------------- a user's cell


def cell(settings: Settings, sizes: Sequence[Size]) -> list[Job]:
    """A cell from its equations, per operation and beside its loop; and how soon it runs."""
    return [*(_cell_job(settings, size) for size in sizes), _first_job(settings)]


def _cell_job(settings: Settings, size: Size) -> Job:
    title = f"a user's coupled-gate cell: {size.title}"
    known = select(cells.CONTESTANTS, settings.contestants, cells.BASE)

    def run(ceilings: Ceilings, tell: Tell) -> Table:
        task = cells.make_task(size, seed=settings.seed)
        work = {name: float(size.operations(cells.blocks(name))) for name in known}
        match = Match(
            "cell",
            title,
            _size(size),
            task,
            known,
            lambda entry, dtype: cells.error(entry, task, dtype),
            lambda entry, dtype: (
                lambda: training.step(entry.run, task.lstm.x, task.lstm.grad, dtype)
            ),
            ("gatewise", "gatewise-bf16", "coupled-loop"),
            before=lambda entry: training.touch(entry.run),
            operations=work,
            engine=lambda entry: entry.run.ran[0] if entry.run.ran else "",
        )
        return hold(match, settings.plan, ceilings, settings.threads, tell)

    return Job(title, run)


def _first_job(settings: Settings) -> Job:
    title = "from a cell's definition to its first result"

    def run(ceilings: Ceilings, tell: Tell) -> Table:
        del ceilings
        tell(title)
        found = cells.first_results(settings.threads)
        rows = [
            Row(
                name,
                _FIRST[name],
                "float32",
                spread([first.output]),
                more={"to_gradients": first.gradients},
            )
            for name, first in found.items()
        ]
        return Table("first", title, _size(cells.FIRST), rows)

    return Job(title, run)


_FIRST = {
    "cold": "no kernel stored",
    "warm": "kernel stored",
    "loaded": "kernel stored, compiler used before",
}


def peak(settings: Settings, sizes: Sequence[Size], kind: str = "lstm") -> list[Job]:
    """The most memory that training takes, each contestant in a process of its own."""
    names = [n for n in peaks.NAMES if not settings.contestants or n in settings.contestants]

    def job(size: Size) -> Job:
        title = f"peak memory of training {kind.upper()}: {size.title}"

        def run(ceilings: Ceilings, tell: Tell) -> Table:
            del ceilings
            rows = []
            for name in names:
                tell(f"{title}: {name}")
                found, seconds = peaks.measure(name, kind, size, settings.threads)
                contestant = training.CONTESTANTS[name]
                rows.append(
                    Row(
                        name,
                        contestant.label.format(kind=kind.upper()),
                        contestant.dtype,
                        spread([seconds]),
                        more={"peak_bytes": found.total, "added_bytes": found.added},
                    )
                )
            return Table("peak", title, {"cell": kind, **_size(size)}, rows)

        return Job(title, run)

    return [job(size) for size in sizes]


def scan(settings: Settings, sizes: Sequence[Size]) -> list[Job]:
    """A cell whose gates do not read h, over many steps."""
    known = select(scans.CONTESTANTS, settings.contestants, scans.BASE)

    def job(size: Size) -> Job:
        title = f"minGRU: {size.title}"

        def run(ceilings: Ceilings, tell: Tell) -> Table:
            task = scans.make_task(size, seed=settings.seed)
            truth = scans.truth(task)
            match = Match(
                "scan",
                title,
                _size(size),
                task,
                known,
                lambda entry, dtype: parity.error(
                    training.step(entry, task.x, task.grad, dtype), truth
                ),
                lambda entry, dtype: lambda: training.step(entry, task.x, task.grad, dtype),
                ("torch-loop", "loop"),
                before=training.touch,
                engine=lambda entry: entry.ran[0] if entry.ran else "",
            )
            return hold(match, settings.plan, ceilings, settings.threads, tell)

        return Job(title, run)

    return [job(size) for size in sizes]
