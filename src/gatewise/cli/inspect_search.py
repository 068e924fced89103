"""`gatewise inspect search`: where else in a text the same units are on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.inspecting import given_text, say_unknown
from gatewise.cli.options import Json, with_flag_names
from gatewise.cli.runs import Opening, OpeningFlags, RunPath, open_run
from gatewise.errors import DataError, OptionError

if TYPE_CHECKING:
    from gatewise.insight import Index, Pattern, Place
    from gatewise.run import LanguageRun


def inspect_search(
    run: RunPath,
    data: Annotated[
        list[str],
        Parameter(help="Files to search; none where --index has them.", allow_leading_hyphen=True),
    ] = [],  # noqa: B006
    /,
    *,
    text: Annotated[str, Parameter(help="The text with the span.", allow_leading_hyphen=True)],
    span: Annotated[
        str,
        Parameter(help="Its tokens, A:B from 0, B not included; or a piece of the text itself."),
    ],
    index: Annotated[
        Path, Parameter(help="The folder of what was read; made where there is none.")
    ],
    record: Annotated[
        str | None,
        Parameter(
            help="The whole path of a gate or state, for a new index. Default: layers.0.c (h of a cell without c)."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        Parameter(
            help="Above it a unit is on, for a new index; of c, of tanh(c). Default: 0.3.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    around: Annotated[
        int, Parameter(help="Tokens before and behind the span at which units must be off; 0: any.")
    ] = 0,
    least: Annotated[float, Parameter(help="Smallest score of a place, 0 to 1.")] = 0.5,
    top: Annotated[int, Parameter(help="How many places.")] = 20,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """Where else the same units are on; `gatewise inspect search --help` says more."""
    from gatewise.insight import find, pattern_of

    opened = open_run(run, opening, "read")
    say_unknown(opened, text)
    where = _span(opened, text, span)
    found = _index(opened, data, index, record, threshold, opening.engine)
    try:
        pattern = pattern_of(opened, text, where, found, around=around, engine=opening.engine)
        began = time.perf_counter()
        places = find(found, pattern, least=least, top=top)
    except OptionError as error:
        raise with_flag_names(error, ("span", "least", "top", "around")) from None
    seconds = time.perf_counter() - began
    if json:
        screen.out_json(_document(opened, found, pattern, places, seconds))
    else:
        screen.out(_table(opened, found, pattern, places, seconds, around))
    return 0


def _span(run: LanguageRun, text: str, span: str) -> tuple[int, int]:
    """A:B, or the tokens of a piece of the text."""
    first, colon, last = span.partition(":")
    if colon and first.isdecimal() and last.isdecimal():
        return int(first), int(last)
    at = text.find(span)
    if not span or at < 0:
        raise OptionError(
            f"--span: expected A:B or a piece of the text, found {screen.shown(span)!r}"
        )
    stop, tokenizer = at + len(span), run.tokenizer
    if tokenizer.kind == "word":  # what it writes has spaces of its own
        begin, end = (len(tokenizer.encode(text[:one])) for one in (at + 1, stop))
        return max(0, begin - 1), end
    ends = tokenizer.lengths(tokenizer.encode(text)).cumsum().tolist()
    begin = sum(end <= at for end in ends)
    # behind the token that the piece ends in; bytes of one character are 1, 0, ... long
    return begin, max(1 + sum(end < stop for end in ends), sum(end <= stop for end in ends))


def _index(
    run: LanguageRun,
    data: list[str],
    folder: Path,
    record: str | None,
    threshold: float | None,
    engine: str,
) -> Index:
    """The index in the folder, or a new one of the data."""
    from gatewise.insight import make_index, open_index
    from gatewise.insight.search import weights_of

    if folder.exists():
        if data:
            raise OptionError(
                f"--index: {folder} is there: leave the files out, or name another folder"
            )
        found = open_index(folder)
        if found.weights != weights_of(run):
            raise DataError(f"{folder}: expected an index that this run made, found one of another")
        _check_same(found, folder, record, threshold)
        return found
    if not data:
        raise OptionError(f"--index: {folder} is not there: expected files to read into it")
    text = "".join(given_text(one) for one in data)
    say_unknown(run, text)
    law = run.model.stack.directions()[0].law
    path = record or f"layers.0.{'c' if 'c' in law.states else 'h'}"
    above = 0.3 if threshold is None else threshold
    began = time.perf_counter()
    try:
        found = make_index(run, text, folder, path=path, threshold=above, engine=engine)
    except OptionError as error:
        raise with_flag_names(error, ("threshold",)) from None
    seconds = time.perf_counter() - began
    screen.say(f"read: {len(found):,} tokens in {seconds:.1f} s, kept in {folder}")
    return found


def _check_same(found: Index, folder: Path, record: str | None, threshold: float | None) -> None:
    """Raise OptionError if something else is asked for than an index holds."""
    for flag, asked, has in (
        ("--record", record, found.path),
        ("--threshold", threshold, found.threshold),
    ):
        if asked is not None and asked != has:
            raise OptionError(
                f"{flag}: {folder} was made with {has}, found {asked}: leave it out, or name another --index"
            )


def _table(
    run: LanguageRun,
    index: Index,
    pattern: Pattern,
    places: list[Place],
    seconds: float,
    around: int,
) -> str:
    from gatewise.insight.search import context

    lines = [
        f"{_count(len(one), 'unit')} of {index.path} {'is' if len(one) == 1 else 'are'} {what}: {_some(one)}"
        for one, what in (
            (pattern.on, "on in the span" + (" and off around it" if around else "")),
            (pattern.off, "off in the span and on around it"),
        )
        if one
    ]
    lines += [
        f"{_count(len(places), 'place')} in {len(index):,} tokens, {seconds:.2f} s",
    ]
    for place in places:
        before, inside, behind = (_line(part) for part in context(run, index, place))
        lines.append(
            f"{place.score:5.0%} {place.begin:>9,}  {before[-30:]:>30}[{inside}]{behind[:30]}"
        )
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _some(units: tuple[int, ...]) -> str:
    return ", ".join(map(str, units[:12])) + (", ..." if len(units) > 12 else "")


def _line(text: str) -> str:
    return screen.visible(text).replace("\n", "\u23ce").replace("\t", " ")


def _document(
    run: LanguageRun, index: Index, pattern: Pattern, places: list[Place], seconds: float
) -> dict[str, object]:
    from gatewise.insight.search import context

    rows = []
    for place in places:
        before, inside, behind = context(run, index, place)
        row = {"begin": place.begin, "end": place.end, "score": place.score}
        rows.append(row | {"before": before, "inside": inside, "behind": behind})
    return {
        "path": index.path,
        "threshold": index.threshold,
        "tokens": len(index),
        "on": list(pattern.on),
        "off": list(pattern.off),
        "places": rows,
        "seconds": seconds,
    }
