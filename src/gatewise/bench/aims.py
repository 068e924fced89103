"""What gatewise wants to reach, beside what was measured.

An aim is a figure of one table, a way to put tables together, and a bound. It is judged over those tables that
were measured, which the verdict names; the benchmark prints the truth either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gatewise.bench.report import Table, Verdict
from gatewise.bench.timing import geometric_mean

Figure = Callable[[Table, Sequence[Table]], float | None]
MEAN, LEAST, MOST = "geometric mean", "least", "most"
_STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    MEAN: geometric_mean,
    LEAST: min,
    MOST: max,
}


@dataclass(frozen=True)
class Aim:
    """One thing to reach.

    Args:
        key: its name, the same in every release.
        kind: of the tables that count.
        text: what is compared with what.
        figure: of one table among all; None: it has none.
        statistic: over the tables.
        bound: the aim; None: only to be shown.
        where: which tables count.
    """

    key: str
    kind: str
    text: str
    figure: Figure
    statistic: str
    bound: float | None
    where: Callable[[Table], bool] = lambda _: True

    @property
    def sense(self) -> str:
        """What a bound on a largest value is: not above it."""
        return "<=" if self.statistic == MOST else ">="


def judge(tables: Sequence[Table]) -> list[Verdict]:
    """The verdict on each aim that something was measured for."""
    return list(_judge(tables))


def _judge(tables: Sequence[Table]) -> Iterator[Verdict]:
    for aim in AIMS:
        counted = [t for t in tables if t.kind == aim.kind and aim.where(t)]
        found = [(t, v) for t in counted if (v := aim.figure(t, tables)) is not None]
        if found:
            value = _STATISTICS[aim.statistic]([v for _, v in found])
            over = [short(t) for t, _ in found]
            yield Verdict(aim.key, aim.text, aim.statistic, value, aim.bound, aim.sense, over)


def short(table: Table) -> str:
    """A table's sizes in one word, such as T35 B20 H200 L2."""
    return " ".join(f"{name}{value}" for name, value in table.size.items() if name != "cell")


# ---------------------------------------------------------------------------- figures


def _speed(name: str, base: str) -> Figure:
    """How many times as fast as `base`."""

    def figure(table: Table, _: Sequence[Table]) -> float | None:
        row = table.row(name)
        return None if row is None else row.speeds.get(base)

    return figure


def _cost(name: str, base: str) -> Figure:
    """How many times the time of `base`."""

    def figure(table: Table, _: Sequence[Table]) -> float | None:
        row, other = table.row(name), table.row(base)
        return row.seconds.median / other.seconds.median if row and other else None

    return figure


def _more(name: str, what: str) -> Figure:
    def figure(table: Table, _: Sequence[Table]) -> float | None:
        row = table.row(name)
        return None if row is None else row.more.get(what)

    return figure


def _seconds(name: str) -> Figure:
    def figure(table: Table, _: Sequence[Table]) -> float | None:
        row = table.row(name)
        return None if row is None else row.seconds.median

    return figure


def _per_operation(name: str, base: str) -> Figure:
    """Time of an operation over that of `base`."""

    def figure(table: Table, _: Sequence[Table]) -> float | None:
        row, other = table.row(name), table.row(base)
        return other.rate / row.rate if row and other and row.rate and other.rate else None

    return figure


def _over_best(name: str, *peers: str) -> Figure:
    """How many times as fast as the fastest of some peers."""

    def figure(table: Table, _: Sequence[Table]) -> float | None:
        row = table.row(name)
        times = [other.seconds.median for p in peers if (other := table.row(p))]
        return min(times) / row.seconds.median if row and times else None

    return figure


def _over_alone(name: str) -> Figure:
    """Tokens a second over those with one column."""

    def figure(table: Table, tables: Sequence[Table]) -> float | None:
        alone = {**table.size, "B": 1}
        pair = next((t for t in tables if t.kind == table.kind and t.size == alone), None)
        row, other = table.row(name), None if pair is None else pair.row(name)
        if row is None or other is None:
            return None
        return row.more["tokens_per_second"] / other.more["tokens_per_second"]

    return figure


# ---------------------------------------------------------------------------- the aims


def _training() -> Iterator[Aim]:
    def lstm(table: Table) -> bool:
        return bool(table.size["cell"] == "lstm")

    def narrow(table: Table) -> bool:
        return lstm(table) and table.size["H"] == 200

    gates, name = "gatewise-bf16-gates", "bfloat16, all gates"
    for base, other, mean, least in (
        ("torch", "nn.LSTM float32", 2.3, 1.8),
        ("torch-bf16", "nn.LSTM autocast", 1.7, 1.15),
    ):
        figure, text = _speed(gates, base), f"training {name}, over {other}"
        yield Aim(f"train.bf16.{base}.mean", "train", text, figure, MEAN, mean, lstm)
        yield Aim(f"train.bf16.{base}.least", "train", text, figure, LEAST, least, lstm)
    single = _speed("gatewise-gates", "torch")
    text = "training float32, all gates, over nn.LSTM float32"
    yield Aim("train.float32.least", "train", text, single, LEAST, 1.0, lstm)
    yield Aim("train.float32.h200", "train", f"{text}, H 200", single, LEAST, 1.3, narrow)
    for dtype, own in (("bfloat16", "gatewise-bf16"), ("float32", "gatewise")):
        for what, words, most in (
            ("gates", "recording all gates", 1.03),
            ("control", "a control on half of the units", 1.05),
        ):
            yield Aim(
                f"train.{dtype}.{what}", "train", f"time with {words}, over without, {dtype}",
                _cost(f"{own}-{what}", own), MOST, most,
            )  # fmt: skip
    for base, other in (("torch", "float32"), ("torch-bf16", "autocast")):
        yield Aim(
            f"train.gru.bf16.{base}.mean", "train", f"training GRU {name}, over nn.GRU {other}",
            _speed(gates, base), MEAN, None, lambda table: table.size["cell"] == "gru",
        )  # fmt: skip


def _language() -> Iterator[Aim]:
    for vocabulary in (100, 10_000):
        yield Aim(
            f"lm.v{vocabulary}",
            "lm",
            f"language model's step, V {vocabulary:,}, over torch.nn, both autocast",
            _speed("gatewise-bf16", "torch-bf16"),
            LEAST,
            1.4,
            lambda table, v=vocabulary: table.size["V"] == v,  # type: ignore[misc]
        )


def _cells() -> Iterator[Aim]:
    for dtype, mark in (("float32", ""), ("bfloat16", "-bf16")):
        yield Aim(
            f"cell.{dtype}.operation", "cell", f"a user's cell, time per operation over our LSTM, {dtype}",
            _per_operation(f"coupled{mark}", f"gatewise{mark}"), MOST, 1.15,
        )  # fmt: skip
    text = "a user's cell, over a loop written by hand"
    yield Aim("cell.loop", "cell", text, _speed("coupled", "coupled-loop"), LEAST, 3.0)
    for name, words, most in (("cold", "no kernel stored", 1.0), ("warm", "kernel stored", 0.1)):
        text = f"seconds from a cell's definition to its first result, {words}"
        yield Aim(f"cell.first.{name}", "first", text, _seconds(name), MOST, most)
    text = "minGRU's scan over its own loop of operators"
    yield Aim("scan.loop", "scan", text, _speed("scan", "torch-loop"), LEAST, 3.0)
    text = "minGRU's scan over its own loop of machine code"
    yield Aim("scan.machine", "scan", text, _speed("scan", "loop"), LEAST, None)


_INT8 = ("onnx-int8", "onnx-int8-1")


def _steps() -> Iterator[Aim]:
    def alone(*sizes: tuple[int, int]) -> Callable[[Table], bool]:
        return lambda table: (
            table.size["B"] == 1 and (not sizes or (table.size["H"], table.size["V"]) in sizes)
        )

    def together(table: Table) -> bool:
        return bool(table.size["B"] == 16)

    int8 = _over_best("gatewise-int8", *_INT8)
    text = "one token int8, over ONNX Runtime int8"
    four = alone((256, 100), (512, 100), (512, 10_000), (1024, 10_000))
    yield Aim("step.int8", "step", text, int8, LEAST, 2.0, four)
    large = alone((1500, 33_278))
    yield Aim("step.int8.large", "step", f"{text}, H 1500", int8, LEAST, 1.3, large)
    yield Aim(
        "step.int4", "step", "one token int4, over ONNX Runtime int8, H 1024",
        _over_best("gatewise-int4", *_INT8), LEAST, 4.0, alone((1024, 10_000)),
    )  # fmt: skip
    yield Aim(
        "step.float32", "step", "one token float32, over ONNX Runtime float32, H 256 and 512",
        _over_best("gatewise", "onnx", "onnx-1"), LEAST, 1.5,
        alone((256, 100), (512, 100), (512, 10_000)),
    )  # fmt: skip
    for dtype, mark in (
        ("float32", ""),
        ("bfloat16", "-bf16"),
        ("int8", "-int8"),
        ("int4", "-int4"),
    ):
        text = f"one token {dtype}, over the time to read its weights"
        figure = _more(f"gatewise{mark}", "over_reading")
        yield Aim(f"step.{dtype}.reading", "step", text, figure, MOST, 1.4, alone())
    text = "16 columns int8, over ONNX Runtime int8"
    yield Aim("step.b16.int8", "step", text, int8, LEAST, 1.0, together)
    text = "16 columns int8, tokens/s over one column"
    yield Aim("step.b16.tokens", "step", text, _over_alone("gatewise-int8"), LEAST, 4.0, together)


AIMS = (*_training(), *_language(), *_cells(), *_steps())
