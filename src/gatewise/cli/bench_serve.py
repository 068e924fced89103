"""`gatewise bench serve`: many writers at once."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.inspecting import check_least, decimals, given_text
from gatewise.cli.options import Json
from gatewise.cli.serve import check_extra
from gatewise.errors import OptionError

if TYPE_CHECKING:
    from gatewise.bench.serving import Served
    from gatewise.mappings import LanguageModel
    from gatewise.text.base import Tokenizer


def serve(
    *,
    run: Annotated[
        Path | None, Parameter(help="A run; default: an untrained model, which is as quick.")
    ] = None,
    text: Annotated[
        str | None, Parameter(help="What is typed: a file. Default: Python's own library.")
    ] = None,
    hidden_size: Annotated[int, Parameter(help="Units of the untrained model.")] = 512,
    num_layers: Annotated[int, Parameter(help="Its layers.")] = 2,
    dtype: Annotated[
        str, Parameter(help="Weights of the step engine: float32, bfloat16, int8 or int4.")
    ] = "int8",
    characters: Annotated[int, Parameter(help="That each document has at the beginning.")] = 1000,
    bound: Annotated[float, Parameter(help="Of p99, in milliseconds.")] = 100.0,
    seconds: Annotated[float, Parameter(help="Of each rate.")] = 5.0,
    rates: Annotated[
        str | None,
        Parameter(help="Keys a second, with commas, for all. Default: rising up to the bound."),
    ] = None,
    servers: Annotated[
        tuple[str, ...],
        Parameter(
            help="Only these: gatewise, 'whole requests', 'whole requests, cached', 'nn.LSTM loop'; may be given "
            "several times.",
            show_default=False,
        ),
    ] = (),
    http: Annotated[
        bool,
        Parameter(
            help="Each server behind the application of `gatewise serve`, in a process of its own; needs gatewise[serve].",
            negative="",
        ),
    ] = False,
    plot: Annotated[
        Path | None, Parameter(help="Draw p99 by rate (.png, .svg, .pdf); needs gatewise[plot].")
    ] = None,
    json: Json = False,
) -> int:
    """Latency by rate of keystrokes; `gatewise bench serve --help` says more."""
    if plot is not None:
        plots.check(plot)
    check_least(characters=(characters, 1))
    for flag, value in (("bound", bound), ("seconds", seconds)):
        if not 0 < value < float("inf"):
            raise OptionError(f"--{flag}: expected a number above 0, found {value}")
    given = None if rates is None else decimals("--rates", rates)
    if given is not None and min(given) <= 0:
        raise OptionError(f"--rates: expected numbers above 0, found {rates}")
    typed = _typed(text)
    from gatewise.bench import serving
    from gatewise.bench.servers import SERVERS
    from gatewise.bench.typists import Load
    from gatewise.errors import unknown
    from gatewise.step.generation import StepLanguageModel

    for name in servers:
        if name not in SERVERS:
            raise unknown("server", name, SERVERS)
    if http:
        check_extra()
    model, tokenizer = _untrained(typed, hidden_size, num_layers) if run is None else _loaded(run)
    packed = StepLanguageModel(model, dtype)
    said = serving.check_same(model, packed, tokenizer, typed, exact=dtype == "float32")
    sys.setswitchinterval(0.0005)
    rows: list[Served] = []
    with tempfile.TemporaryDirectory() as folder:
        if http:
            from gatewise.bench import over_http

            path = run or over_http.save(model, tokenizer, Path(folder) / "run")
        for name in servers or SERVERS:
            with (
                over_http.there(name, path, dtype, typed)
                if http
                else serving.here(name, model, packed, tokenizer, typed)
            ) as one:
                serving.check_said(one, said[name], typed)
                load = Load(characters, 1.0, seconds)
                rows += serving.measured(one, typed, load, bound / 1000, given, _say)
    if plot is not None:
        _draw([_row(one) for one in rows], bound, plot)
    if json:
        screen.out_json({"bound_ms": bound, "http": http, "rows": [_row(one) for one in rows]})
    else:
        screen.out(_table(rows, bound))
    return 0


def _typed(text: str | None) -> str:
    """What is typed."""
    if text is not None:
        found = given_text(text)
        if not found:
            raise OptionError("--text: expected at least one character to type, found none")
        return found
    import argparse
    import inspect

    return inspect.getsource(argparse)


def _untrained(text: str, hidden_size: int, num_layers: int) -> tuple[LanguageModel, Tokenizer]:
    import torch

    from gatewise.mappings import LanguageModel, LanguageModelConfig
    from gatewise.text.tokenizers import build_tokenizer

    tokenizer = build_tokenizer("char", [text])
    config = LanguageModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=hidden_size,
        embedding_size=64,
        num_layers=num_layers,
    )
    torch.manual_seed(0)
    return LanguageModel(config).eval(), tokenizer


def _loaded(path: Path) -> tuple[LanguageModel, Tokenizer]:
    from gatewise.cli.runs import Opening, open_run

    opened = open_run(path, Opening(), "generate")
    return opened.model, opened.tokenizer


def _say(one: Served) -> None:
    screen.say(
        f"{one.server}: {one.load.rate:,.1f} keys/s, p50 {1e3 * one.percentile(0.5):.1f} ms, "
        f"p99 {1e3 * one.percentile(0.99):.1f} ms"
    )


def _row(one: Served) -> dict[str, Any]:
    return {
        "server": one.server,
        "writers": one.load.writers,
        "rate": one.load.rate,
        "answers": len(one.latencies),
        "cancelled": one.cancelled,
        **{f"p{int(100 * p)}_ms": 1e3 * one.percentile(p) for p in (0.5, 0.95, 0.99)},
        "load_late_ms": 1e3 * one.late,
    }


def _table(rows: list[Served], bound: float) -> str:
    lines = [
        ["server", "writers", "keys/s", "p50 ms", "p95", "p99", "cancelled", "load late ms", ""]
    ]
    for one in rows:
        times = [f"{1e3 * one.percentile(p):.1f}" for p in (0.5, 0.95, 0.99)]
        late = f"{1e3 * one.late:.1f}"
        lines.append(
            [
                one.server,
                str(one.load.writers),
                f"{one.load.rate:,.1f}",
                *times,
                str(one.cancelled),
                late,
                "",
            ]
        )
    return "\n".join([screen.table(lines, indent=""), *_ratios(rows, bound)])


def _ratios(rows: list[Served], bound: float) -> list[str]:
    """What each can do with its p99 within the bound, and how many times that gatewise can."""
    from gatewise.bench.serving import best_rate

    best = {
        name: best_rate([one for one in rows if one.server == name], bound / 1000)
        for name in dict.fromkeys(one.server for one in rows)
    }
    said = [f"{name}: {rate:,.1f} keys/s with p99 <= {bound:g} ms" for name, rate in best.items()]
    ours = best.get("gatewise", 0.0)
    for name, rate in best.items():
        if name == "gatewise" or not ours:
            continue
        if rate:
            said.append(f"{ours / rate:.1f} times the keys of {name}")
        else:
            least = min(one.load.rate for one in rows if one.server == name)
            said.append(f"more than {ours / least:,.0f} times the keys of {name}")
    return said


def _draw(rows: list[dict[str, Any]], bound: float, plot: Path) -> None:
    """p99 by rate, a line for each server; what was never answered lies above the picture."""
    from gatewise.plots import COLOURS, DASHES, new, save

    figure = new(6.4, 4.2)
    axes = figure.subplots()
    highest = max([one["p99_ms"] for one in rows if one["p99_ms"] < float("inf")], default=bound)
    top = 2 * max(highest, bound)
    for k, name in enumerate(dict.fromkeys(one["server"] for one in rows)):
        own = [one for one in rows if one["server"] == name]
        x = [one["rate"] for one in own]
        y = [min(one["p99_ms"], 2 * top) for one in own]
        marker, dashes = "osD^v"[k % 5], DASHES[k % len(DASHES)]
        axes.plot(x, y, marker=marker, markersize=4, color=COLOURS[k], linestyle=dashes, label=name)
    axes.axhline(bound, color="#888888", linewidth=0.8)
    axes.text(0.01, bound, f"{bound:g} ms", transform=axes.get_yaxis_transform(), va="bottom")
    axes.set(xscale="log", yscale="log", xlabel="keys a second, of all writers together")
    axes.set_ylabel("p99 of the time to an answer, ms")
    axes.set_ylim(top=top)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(visible=True, color="#dddddd", linewidth=0.5)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    save(figure, plot)
    screen.say(f"drawn: {plot}")
