"""`gatewise generate`: text from a run, by sampling or beam search."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.options import Json
from gatewise.cli.runs import (
    ControlFile,
    Drawing,
    DrawingFlags,
    Opening,
    OpeningFlags,
    RunPath,
    open_run,
    prompt_text,
    read_control,
    sampling,
    say_notes,
)
from gatewise.errors import OptionError

if TYPE_CHECKING:  # only these names: the page of help must not wait for torch
    from gatewise.complete import Completer, Completion
    from gatewise.generate import SamplingOptions
    from gatewise.novelty import Novelty


def generate(
    run: RunPath,
    /,
    prompt: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="Begin with this text; - reads it from standard input. Without one, the text "
            "begins at a line's beginning.",
        ),
    ] = None,
    *,
    n: Annotated[int, Parameter(alias="-n", help="How many texts.")] = 1,
    max_tokens: Annotated[int, Parameter(help="Longest text, in tokens.")] = 500,
    temperature: Annotated[
        float, Parameter(help="Above 1 more surprising, below 1 surer; 0: the most probable.")
    ] = 1.0,
    beams: Annotated[
        int, Parameter(help="Search with this many beams rather than draw; 0 draws.")
    ] = 0,
    length_penalty: Annotated[
        float, Parameter(help="With --beams: 0 favours short texts, more favours longer ones.")
    ] = 0.6,
    novelty: Annotated[
        list[str],
        Parameter(
            help="Afterwards, say how much of the text stands in these files, the training text's.",
        ),
    ] = [],  # noqa: B006
    drawing: DrawingFlags = Drawing(),  # noqa: B008
    opening: OpeningFlags = Opening(),  # noqa: B008
    control: ControlFile = None,
    json: Json = False,
) -> int:
    """Write text with a trained model.

    The prompt is part of what is written. One drawn text is written as it comes.
    """
    options = sampling(drawing, n=n, max_tokens=max_tokens, temperature=temperature)
    if beams and beams < n:
        raise OptionError(f"--beams: expected at least --n {n}, found {beams}")
    acting = read_control(control)
    opened = open_run(run, opening, "generate")
    completer = opened.completer(control=acting, engine=opening.engine)
    text = prompt_text(prompt, if_none="") or ""
    notes = completer.notes(text)
    if not json:
        say_notes(notes)
    if beams:
        found = _searched(completer, text, options, beams, length_penalty)
        seed = None
    else:
        found, seed = _drawn(completer, text, options, show=not json and n == 1)
    if not json and (beams or n > 1):
        _show_all(text, found)
    report = check_novelty([each.text for each in found], novelty) if novelty else None
    if json:
        screen.out_json(_document(text, found, notes, seed, report))
    elif report:
        screen.out("\n" + novelty_text(report))
    return 0


def _drawn(
    completer: Completer, text: str, options: SamplingOptions, *, show: bool
) -> tuple[list[Completion], int]:
    """The drawn texts, and the seed they can be drawn with again."""
    continuation = completer.start(text, options)
    if show:
        screen.result(text, end="")
    for delta in continuation:
        if show:
            screen.result(delta.text, end="")
            sys.stdout.flush()
    if show:
        screen.out()
    return continuation.samples, continuation.seed


def _searched(
    completer: Completer, text: str, options: SamplingOptions, width: int, length_penalty: float
) -> list[Completion]:
    return completer.beams(text, options.n, width, options, length_penalty=length_penalty)


def _show_all(text: str, found: list[Completion]) -> None:
    for number, each in enumerate(found, 1):
        if len(found) > 1:
            nats = -each.logprob / max(1, each.tokens)
            screen.out(screen.dim(f"--- {number} of {len(found)}: {nats:.2f} nats/token ---"))
        screen.result(text + each.text)


def check_novelty(texts: list[str], data: list[str]) -> Novelty:
    """How much of the texts stands in the files `data`."""
    from gatewise.novelty import novelty
    from gatewise.text.reading import read_texts

    return novelty("\n".join(texts), (text for _, text in read_texts(data, "replace")))


def novelty_text(report: Novelty) -> str:
    """The report for people."""
    lines = [report.table()]
    if report.longest:
        size = len(report.longest.text)
        lines.append(f"longest copied passage ({size} characters):")
        lines.append(f"  {screen.shown(report.longest.text)}")
    else:
        lines.append("no character of it was seen before")
    return "\n".join(lines)


def novelty_document(report: Novelty) -> dict[str, object]:
    """The report for `--json`."""
    longest = report.longest
    return {
        "lengths": report.lengths,
        "shares": report.shares,
        "counts": report.counts,
        "longest": None if longest is None else vars(longest),
    }


def _document(
    text: str,
    found: list[Completion],
    notes: list[str],
    seed: int | None,
    report: Novelty | None,
) -> dict[str, object]:
    samples = [
        {
            "text": each.text,
            "logprob": each.logprob,
            "tokens": each.tokens,
            "perplexity": math.exp(-each.logprob / each.tokens) if each.tokens else None,
            "finish_reason": each.finish_reason,
        }
        for each in found
    ]
    made: dict[str, object] = {"prompt": text, "samples": samples, "seed": seed, "notes": notes}
    return made if report is None else made | {"novelty": novelty_document(report)}
