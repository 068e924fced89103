"""`gatewise translate`: texts through an encoder-decoder, one line after another."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.options import Json, with_flag_names
from gatewise.cli.runs import (
    ControlFile,
    Opening,
    OpeningFlags,
    RunPath,
    as_text,
    open_as,
    read_control,
    say_notes,
)
from gatewise.errors import DataError, OptionError

if TYPE_CHECKING:  # only these names: the page of help must not wait for torch
    from gatewise.generate import SamplingOptions
    from gatewise.run import PairReading, TranslateRun, Translation

_AT_ONCE = 256
"""Lines that are translated together."""
_LINE = 72
"""Width of the attention's table; what is wider is listed."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a text is found."""

    beams: int = 5
    """Search with this many hypotheses; 1: the most probable token at each step."""

    n: Annotated[int, Parameter(alias="-n")] = 1
    """Show so many, with their probabilities."""

    length_penalty: float = 1.0
    """0 favours short texts, more favours longer ones."""

    max_tokens: int | None = None
    """Longest text, in tokens; default: of a translation twice the source's and 20, of a caption as in training."""

    temperature: float | None = None
    """Draw instead of searching: above 1 more surprising, below 1 surer."""

    top_k: int = 0
    """When drawing, keep the k most probable tokens; 0 keeps all."""

    top_p: float = 1.0
    """When drawing, keep the fewest most probable tokens that together reach this probability."""

    seed: int | None = None
    """Draw the same texts each time."""

    def sampling(self) -> SamplingOptions | None:
        """Options of drawing; None: nothing is drawn.

        Raises:
            OptionError: naming the flag, if one is outside its range.
        """
        from gatewise.generate import SamplingOptions

        names = ("temperature", "top_k", "top_p", "seed")
        if self.temperature is None:
            plain = Search()
            for name in names[1:]:
                if getattr(self, name) != getattr(plain, name):
                    flag = "--" + name.replace("_", "-")
                    raise OptionError(f"{flag}: expected --temperature with it: nothing is drawn")
            return None
        values = {name: getattr(self, name) for name in names}
        try:
            return SamplingOptions(**values)
        except OptionError as error:
            raise with_flag_names(error, values) from None


SearchFlags = Annotated[Search, Parameter(name="*", group="Search")]


def translate(
    run: RunPath,
    /,
    text: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="A text, or a file of lines (.gz too); - or nothing reads standard input. Each line "
            "is translated by itself.",
        ),
    ] = None,
    *,
    score: Annotated[
        str | None,
        Parameter(help="A translation, or a file of them, line by line: what does it cost?"),
    ] = None,
    attention: Annotated[
        bool, Parameter(negative="", help="Show where the model looks while it writes each token.")
    ] = False,
    plot: Annotated[
        Path | None,
        Parameter(help="Draw the attention of one text as a picture (.png, .svg, .pdf)."),
    ] = None,
    search: SearchFlags = Search(),
    opening: OpeningFlags = Opening(),  # noqa: B008
    control: ControlFile = None,
    json: Json = False,
) -> int:
    """Translate with a trained model.

    A line gives a line. With -n several, with their probabilities.
    """
    from gatewise.run import TranslateRun

    sampling = search.sampling()
    if plot is not None:
        plots.check(plot)
    acting = read_control(control)
    lines = lines_of(text, "TEXT")
    targets = None if score is None else list(lines_of(score, "--score"))
    opened = open_as(TranslateRun, run, opening, "translate")
    options: dict[str, Any] = {
        "n": search.n,
        "beams": search.beams,
        "length_penalty": search.length_penalty,
        "max_tokens": search.max_tokens,
        "sampling": sampling,
        "control": acting,
        "engine": opening.engine,
    }
    try:
        if targets is not None or attention or plot is not None:
            _read(opened, list(lines), targets, options, attention=attention, plot=plot, json=json)
        else:
            _translate(opened, lines, options, json=json)
    except OptionError as error:
        raise with_flag_names(error, options) from None
    return 0


def lines_of(given: str | None, name: str) -> Iterator[str]:
    """The lines of a text, of a file that has this name, or of standard input."""
    if given is not None and given != "-":
        path = Path(given)
        if len(given) < 1000 and "\n" not in given and path.is_file():
            from gatewise.tasks.tables import read_text

            return iter(read_text(path).splitlines())
        return iter(as_text(given).splitlines() or [""])
    if given is None and (sys.stdin is None or sys.stdin.isatty()):
        raise OptionError(f"expected {name}: a text, a file, or - and a pipe")
    return _standard_input()


def _standard_input() -> Iterator[str]:
    stream = getattr(sys.stdin, "buffer", None)
    for line in sys.stdin if stream is None else stream:
        text = line if isinstance(line, str) else line.decode("utf-8", "replace")
        yield text.rstrip("\r\n")


def _chunks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines together: one at a time where somebody types them."""
    if sys.stdin is not None and sys.stdin.isatty():
        yield from ([line] for line in lines)
        return
    rest = iter(lines)
    while chunk := list(islice(rest, _AT_ONCE)):
        yield chunk


def _translate(
    opened: TranslateRun, lines: Iterable[str], options: dict[str, Any], *, json: bool
) -> None:
    documents, number = [], 0
    for chunk in _chunks(lines):
        for line, found in zip(chunk, opened.translate(chunk, **options), strict=True):
            number += 1
            notes = opened.notes_of(line)
            if json:
                documents.append(_document(line, found, notes))
                continue
            say_notes([f"line {number:,}: {note}" for note in notes] if number > 1 else notes)
            _show(found)
        sys.stdout.flush()
    if json:
        screen.out_json({"translations": documents})


def _show(found: list[Translation]) -> None:
    """One translation as a line, or several with their probabilities."""
    if len(found) == 1:
        screen.result(_line(found[0].text))
        return
    rows = [
        [str(k), screen.percent(math.exp(each.logprob)).rjust(7), screen.visible(_line(each.text))]
        for k, each in enumerate(found, 1)
    ]
    screen.out(screen.table(rows, indent=""))


def _line(text: str) -> str:
    return " ".join(text.split())


def _document(source: str, found: list[Translation], notes: list[str]) -> dict[str, Any]:
    several = [
        {
            "text": each.text,
            "logprob": each.logprob,
            "probability": math.exp(each.logprob),
            "score": each.score,
            "tokens": each.tokens,
            "token_logprobs": each.token_logprobs,
            "finish_reason": each.finish_reason,
        }
        for each in found
    ]
    return {"source": source, "translations": several, "notes": notes}


def _read(
    opened: TranslateRun,
    lines: list[str],
    targets: list[str] | None,
    options: dict[str, Any],
    *,
    attention: bool,
    plot: Path | None,
    json: bool,
) -> None:
    """Given translations, or the model's own, as the model writes them."""
    if targets is None:
        targets = [found[0].text for found in opened.translate(lines, **options)]
    if len(lines) != len(targets):
        raise DataError(
            f"--score: expected a line for each of {len(lines):,} sources, found {len(targets):,}"
        )
    if plot is not None and len(lines) != 1:
        raise OptionError(f"--plot: expected one text to draw, found {len(lines):,}")
    call = opened.attention if attention or plot is not None else opened.read
    documents = []
    for source, target in zip(lines, targets, strict=True):
        reading = call(source, target, engine=options["engine"])
        if json:
            documents.append(reading_document(reading))
        else:
            say_notes(reading.notes)
            _show_reading(reading, attention=attention)
        if plot is not None:
            assert reading.weights is not None
            plots.attention(plot, reading.source_tokens, reading.target_tokens, reading.weights)
            screen.say(f"drawn: {plot}")
    if json:
        screen.out_json({"readings": documents})


def _show_reading(reading: PairReading, *, attention: bool) -> None:
    perplexity = math.exp(min(700.0, reading.nats_per_token))
    screen.out(
        f"{reading.logprob:.3f} nats in all, {reading.nats_per_token:.4f} nats/token, "
        f"perplexity {perplexity:.2f}: {screen.shown(reading.target)}"
    )
    if attention and reading.weights is not None:
        screen.out(attention_text(reading.source_tokens, reading.target_tokens, reading.weights))


def attention_text(source: list[str], target: list[str], weights: Any) -> str:
    """The weights as a table of percents, tokens of the target below each other; as a list if too wide."""
    columns = [screen.shown(token.strip() or token, limit=14) for token in source]
    rows = [screen.shown(token.strip() or token, limit=14) for token in target]
    shares = [[round(100 * share) for share in row] for row in weights.tolist()]
    if sum(max(3, len(c)) + 1 for c in columns) + max(map(len, rows)) > _LINE:
        return "\n".join(_largest(row, columns, shares[k]) for k, row in enumerate(rows))
    table = [["", *(c.rjust(3) for c in columns), ""]]
    for name, row in zip(rows, shares, strict=True):
        cells = [
            (str(share) if share >= 1 else ".").rjust(max(3, len(column)))
            for share, column in zip(row, columns, strict=True)
        ]
        table.append([name, *cells, ""])
    return screen.table(table, indent="")


def _largest(name: str, columns: list[str], row: list[int]) -> str:
    order = sorted(range(len(row)), key=lambda k: -row[k])[:4]
    return f"{name:<14}  " + "  ".join(f"{columns[k]} {row[k]} %" for k in order if row[k] >= 1)


def reading_document(reading: PairReading) -> dict[str, Any]:
    """A source and its target for `--json`."""
    return {
        "source": reading.source,
        "target": reading.target,
        "source_tokens": reading.source_tokens,
        "target_tokens": reading.target_tokens,
        "nats": reading.nats,
        "logprob": reading.logprob,
        "nats_per_token": reading.nats_per_token,
        "attention": reading.weights,
        "notes": reading.notes,
    }
