"""`gatewise complete`: a text's continuations, once or for one text after another."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
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
    whole,
)
from gatewise.errors import OptionError

if TYPE_CHECKING:  # only these names: the page of help must not wait for torch
    from gatewise.complete import Completer, Completion
    from gatewise.generate import SamplingOptions


def complete(
    run: RunPath,
    /,
    prefix: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="The text to continue; - reads it from standard input (without its last line "
            "feed). Write -- before it, or --prefix=TEXT, if it looks like an option. Without one, "
            "texts are asked for.",
        ),
    ] = None,
    *,
    n: Annotated[
        int, Parameter(alias="-n", help="How many to draw; equal ones are shown once.")
    ] = 3,
    beams: Annotated[
        int, Parameter(help="Search with this many beams rather than draw; 0 draws.")
    ] = 0,
    max_tokens: Annotated[int, Parameter(help="Longest continuation, in tokens.")] = 64,
    temperature: Annotated[
        float, Parameter(help="Above 1 more surprising, below 1 surer; 0: the most probable.")
    ] = 0.7,
    drawing: DrawingFlags = Drawing(),  # noqa: B008
    opening: OpeningFlags = Opening(),  # noqa: B008
    control: ControlFile = None,
    json: Json = False,
) -> int:
    """Complete a text.

    Shows up to -n different continuations, the most probable first, each with its probability. With
    -n 1 the continuation alone is written, as it comes.
    """
    options = sampling(drawing, n=n, max_tokens=max_tokens, temperature=temperature)
    if beams < 0:
        raise OptionError(f"--beams: expected a whole number of 0 or more, found {beams}")
    acting = read_control(control)
    opened = open_run(run, opening, "complete")
    completer = opened.completer(control=acting, engine=opening.engine)
    text = prompt_text(prefix)
    if text is None:
        if json:
            raise OptionError("--json: expected a text to complete: give one, or - and a pipe")
        ask(lambda line: show(completer, line, options, beams), str(run))
        return 0
    if json:
        found = candidates(completer, text, options, beams)
        screen.out_json(document(text, found, completer.notes(text)))
    elif n == 1 and not beams:
        stream_one(completer, text, options)
    else:
        show(completer, text, options, beams)
    return 0


def candidates(
    completer: Completer, text: str, options: SamplingOptions, beams: int
) -> list[Completion]:
    """The different continuations, the most probable first."""
    if beams:
        return completer.search(text, options.n, beams, options)
    continuation = completer.start(text, options)
    continuation.run()
    return continuation.completions


def show(completer: Completer, text: str, options: SamplingOptions, beams: int = 0) -> None:
    """Candidates with their probabilities, as a list."""
    say_notes(completer.notes(text))
    screen.out(listed(candidates(completer, text, options, beams)))


def listed(found: list[Completion]) -> str:
    """Candidates as lines: number, probability of all of it and of a token of it, text."""
    rows = []
    for number, each in enumerate(found, 1):
        first, *more = screen.visible(each.text).split("\n")
        chance = screen.percent(math.exp(each.logprob)).rjust(7)
        mean = math.exp(each.logprob / max(1, each.tokens))
        rows.append([str(number), chance, f"({100 * mean:.0f} % a token)", f"| {first}"])
        rows += [["", "", "", f"| {line}"] for line in more]
    return screen.table(rows, indent="")


def stream_one(completer: Completer, text: str, options: SamplingOptions) -> None:
    """One continuation, piece by piece as it is written; on a terminal behind its text."""
    say_notes(completer.notes(text))
    if screen.is_terminal():
        screen.out(screen.dim(screen.visible(text)), end="")
    for delta in completer.start(text, options):
        screen.result(delta.text, end="")
        sys.stdout.flush()
    screen.out()


def document(text: str, found: list[Completion], notes: list[str]) -> dict[str, object]:
    """Candidates for `--json`."""
    return {
        "prefix": text,
        "completions": [
            {
                "text": each.text,
                "logprob": each.logprob,
                "probability": math.exp(each.logprob),
                "tokens": each.tokens,
                "finish_reason": each.finish_reason,
            }
            for each in found
        ],
        "notes": notes,
    }


def ask(answer: Callable[[str], None], name: str) -> None:
    """Answer one line after another until an empty one, Ctrl-D or Ctrl-C."""
    _edit_lines()
    screen.say(f"{name}: type a text to complete; an empty line, Ctrl-D or Ctrl-C ends")
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            screen.out()
            return
        if not line:
            return
        try:
            answer(whole(line))
        except KeyboardInterrupt:  # stops this answer only
            screen.out()


def _edit_lines() -> None:
    """Arrow keys and a history, where Python has them."""
    try:
        import readline
    except ImportError:
        return
    readline.parse_and_bind("tab: tab-insert")
