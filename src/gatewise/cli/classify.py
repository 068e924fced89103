"""`gatewise classify`: texts and series through a classifier, regressor, tagger or forecaster."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.classify_forecast import Future, FutureFlags, classify_forecast
from gatewise.cli.classify_tag import classify_tag
from gatewise.cli.options import Json
from gatewise.cli.runs import (
    ControlFile,
    Opening,
    OpeningFlags,
    RunPath,
    as_text,
    open_any,
    read_control,
    say_notes,
)
from gatewise.errors import DataError, OptionError

if TYPE_CHECKING:  # only these names: the page of help must not wait for torch
    from gatewise.probe import Control
    from gatewise.run import ClassifyRun, Prediction, Run, VectorReading

_AT_ONCE = 256
_SHOWN = 60


def classify(
    run: RunPath,
    /,
    *inputs: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,
            help="Texts, or files of lines; of a model of series, files (.ts, .npz, tables), or the "
            "numbers themselves: 1,2,3 with : between channels; of a forecaster, its tables. - or nothing "
            "reads lines of standard input.",
        ),
    ],
    n: Annotated[
        int, Parameter(name=["--top", "-n"], help="Show so many classes, the most probable first.")
    ] = 1,
    each_step: Annotated[
        bool, Parameter(negative="", help="Show how sure it is as it reads, step by step.")
    ] = False,
    plot: Annotated[
        Path | None,
        Parameter(
            help="Draw the probabilities over the steps of one input, or a forecast (.png, .svg, .pdf)."
        ),
    ] = None,
    future: FutureFlags = Future(),  # noqa: B008
    opening: OpeningFlags = Opening(),  # noqa: B008
    control: ControlFile = None,
    json: Json = False,
) -> int:
    """Say the class of texts or series, with its probability; their number, their tags, or how they go on.

    A line for each input; of a tagger one for each word, of a forecaster one for each step to come.
    """
    from gatewise.run import ClassifyRun, ForecastRun, TagRun

    if n < 1:
        raise OptionError(f"--top: expected a whole number from 1, found {n}")
    acting = read_control(control)
    opened = open_any(run, opening, "read")
    engine = opening.engine
    if isinstance(opened, TagRun):
        _refuse(opened, top=n != 1, each_step=each_step, plot=plot, future=future != Future())
        return classify_tag(opened, lines_given(inputs), control=acting, engine=engine, json=json)
    if isinstance(opened, ForecastRun):
        _refuse(opened, top=n != 1, each_step=each_step)
        return classify_forecast(
            opened, inputs, future, plot=plot, control=acting, engine=engine, json=json
        )
    if not isinstance(opened, ClassifyRun):
        raise OptionError(
            f"{run}: expected a run of mapping 'classify', 'tag' or 'forecast', found {opened.mapping!r}: "
            "`gatewise --help` lists the verbs"
        )
    _refuse(opened, future=future != Future())
    if plot is not None:
        plots.check(plot)
    items = items_of(opened, inputs)
    if each_step or plot is not None:
        _read(opened, list(items), n, plot, acting, opening.engine, json=json)
    else:
        _classify(opened, items, n, acting, opening.engine, json=json)
    return 0


_FLAGS = {"top": "--top", "each_step": "--each-step", "plot": "--plot"}


def _refuse(opened: Run, **given: object) -> None:
    """Raise OptionError for an option that says nothing of this kind of run."""
    for name, value in given.items():
        if value:
            flags = _FLAGS.get(name, "--steps, --samples, --series and --seed")
            raise OptionError(f"{flags}: not for a run of mapping {opened.mapping!r}")


Item = tuple[str, Any]
"""How an input is shown, and what the model reads."""


def items_of(opened: ClassifyRun, inputs: Sequence[str]) -> Iterator[Item]:
    """How each is shown, and what is read. Each input, one after another."""
    series = opened.reader.tokenizer is None
    if not inputs and (sys.stdin is None or sys.stdin.isatty()):
        raise OptionError("expected a text or series, a file, or - and a pipe")
    for given in inputs or ("-",):
        if given == "-":
            lines = enumerate(_standard_input(), 1)
            yield from (_item(line, f"line {k:,}", series) for k, line in lines)
            continue
        path = Path(given)
        if len(given) < 1000 and "\n" not in given and path.is_file():
            yield from _of_file(opened, path)
        elif series and path.suffix:
            yield _item(given, f"{given}: found no such file, read as numbers", series)
        else:
            yield _item(as_text(given), "the series given", series)


def lines_given(inputs: Sequence[str]) -> Iterator[str]:
    """Each line to tag: as given, of files, of standard input."""
    from gatewise.tasks.tables import lines_of, read_text

    if not inputs and (sys.stdin is None or sys.stdin.isatty()):
        raise OptionError("expected a text, a file, or - and a pipe")
    for given in inputs or ("-",):
        path = Path(given)
        if given == "-":
            yield from _standard_input()
        elif len(given) < 1000 and "\n" not in given and path.is_file():
            yield from lines_of(read_text(path))
        else:
            yield as_text(given)


def _of_file(opened: ClassifyRun, path: Path) -> Iterator[Item]:
    from gatewise.tasks.labelled import read_examples
    from gatewise.tasks.tables import FORMATS, lines_of, read_text

    name = path.name.lower().removesuffix(".gz")
    series = opened.reader.tokenizer is None
    if not name.endswith((*FORMATS, ".ts", ".npz")):
        for k, line in enumerate(lines_of(read_text(path)), 1):
            yield _item(line, f"{path}, line {k:,}", series)
        return
    found = read_examples([path], stored_options(opened, repeats=True), cut=False, known=False)
    for note in found.notes:
        screen.say(f"note: {note}")
    (examples,) = found.parts.values()
    opened.reader.inputs(examples)  # refuses another kind, with the reason
    if examples.texts is not None:
        yield from ((text, text) for text in examples.texts)
    else:
        yield from ((f"series {k:,}", one) for k, one in enumerate(examples.series or (), 1))


def stored_options(opened: ClassifyRun, **changed: Any) -> Any:
    """Which columns of tables the run was trained on, as `ExampleOptions`."""
    from gatewise.tasks.labelled import ExampleOptions
    from gatewise.train import with_values

    return with_values(ExampleOptions(), opened.config.get("files", {}) | changed)


def _item(text: str, where: str, series: bool) -> Item:
    return (text, numbers_of(text, where)) if series else (text, text)


def numbers_of(text: str, where: str) -> Any:
    """A series as a .ts file has it, 1,2,?:4,5,6: (steps, channels).

    Raises:
        DataError: if it is not.
    """
    import numpy as np

    from gatewise.tasks.tables import as_number

    rows = [[as_number(one) for one in part.split(",")] for part in text.split(":")]
    wrong = any(value is None for row in rows for value in row)
    if wrong or len({len(row) for row in rows}) > 1:
        raise DataError(
            f"{where}: expected numbers by commas, channels of one length by colons, found {text[:40]!r}"
        )
    return np.array(rows, np.float32).T


def _standard_input() -> Iterator[str]:
    stream = getattr(sys.stdin, "buffer", None)
    for line in sys.stdin if stream is None else stream:
        text = line if isinstance(line, str) else line.decode("utf-8", "replace")
        yield text.rstrip("\r\n")


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Inputs together: one at a time where somebody types them."""
    size = 1 if sys.stdin is not None and sys.stdin.isatty() else _AT_ONCE
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _classify(
    opened: ClassifyRun,
    items: Iterable[Item],
    n: int,
    control: Control | None,
    engine: str,
    *,
    json: bool,
) -> None:
    documents, number = [], 0
    for chunk in _chunks(items):
        found = opened.classify([x for _, x in chunk], control=control, engine=engine)
        for (shown, x), prediction in zip(chunk, found, strict=True):
            number += 1
            notes = opened.notes_of(x)
            if json:
                documents.append({"input": shown, **document(prediction, n), "notes": notes})
                continue
            say_notes([f"input {number:,}: {note}" for note in notes])
            line = f"{line_of(prediction, n, opened.classes)}  {screen.shown(shown, limit=_SHOWN)}"
            screen.out(line.rstrip())
        sys.stdout.flush()
    if json:
        screen.out_json({"predictions": documents})


def line_of(prediction: Prediction, n: int, classes: Sequence[str]) -> str:
    """`Russian  91.2 %`, several with commas between them; or a number."""
    if not prediction.label:
        return f"{prediction.value:.6g}"
    width = max(len(screen.shown(one)) for one in classes)
    best = list(prediction.probabilities.items())[:n]
    cells = [f"{screen.shown(k).ljust(width)}  {screen.percent(p).rjust(7)}" for k, p in best]
    return "  ".join(cells)


def document(prediction: Prediction, n: int) -> dict[str, Any]:
    """A prediction for `--json`."""
    if not prediction.label:
        return {"value": prediction.value}
    best = list(prediction.probabilities.items())[:n]
    several = [{"label": label, "probability": chance} for label, chance in best]
    return {"label": prediction.label, "probability": prediction.value, "classes": several}


def _read(
    opened: ClassifyRun,
    items: list[Item],
    n: int,
    plot: Path | None,
    control: Control | None,
    engine: str,
    *,
    json: bool,
) -> None:
    """Step by step."""
    if plot is not None and len(items) != 1:
        raise OptionError(f"--plot: expected one input to draw, found {len(items):,}")
    documents = []
    for shown, x in items:
        reading = opened.read(x, control=control, engine=engine)
        if json:
            documents.append(_reading_document(opened, shown, reading, n))
        else:
            say_notes(reading.notes)
            screen.out(steps_text(opened, reading, n))
        if plot is not None:
            plots.over_steps(plot, reading.tokens, reading.scores, opened.classes)
            screen.say(f"drawn: {plot}")
    if json:
        screen.out_json({"readings": documents})


def steps_text(opened: ClassifyRun, reading: VectorReading, n: int) -> str:
    """A row for each step: what was read, and what is said so far."""
    rows = []
    for token, row in zip(reading.tokens, reading.scores.numpy(), strict=True):
        said = line_of(opened.prediction(row), n, opened.classes)
        rows.append([screen.shown(token, limit=24), said])
    rows.append(["=", line_of(reading.prediction, n, opened.classes)])
    return screen.table(rows, indent="")


def _reading_document(
    opened: ClassifyRun, shown: str, reading: VectorReading, n: int
) -> dict[str, Any]:
    steps = [
        {"read": token, **document(opened.prediction(row), n)}
        for token, row in zip(reading.tokens, reading.scores.numpy(), strict=True)
    ]
    return {
        "input": shown,
        **document(reading.prediction, n),
        "steps": steps,
        "attention": reading.weights,
        "notes": reading.notes,
    }
