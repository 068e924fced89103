"""What the inspections share: the text that is looked at, marks on it, checks of their numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.runs import as_text, is_file, prompt_text, say_notes
from gatewise.errors import OptionError, unknown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gatewise.insight.marks import Marks
    from gatewise.probe import Control
    from gatewise.run import LanguageRun

Text = Annotated[
    str,
    Parameter(help="A file, the text itself, or -: standard input.", allow_leading_hyphen=True),
]


def given_text(given: str, most: int | None = None) -> str:
    """The text of a file of that name, standard input for `-`, or what was given itself.

    Args:
        given: a path, - or a text.
        most: characters to keep; what is left out is said.
    Raises:
        OptionError: it is a folder.
    """
    from gatewise.tasks.tables import read_text

    if is_folder(given):
        raise OptionError(f"{given}: expected a file or a text, found a folder")
    if given == "-":
        text = prompt_text(given) or ""
    else:
        text = read_text(Path(given)) if is_file(given) else as_text(given)
    if most is None or len(text) <= most:
        return text
    screen.say(f"note: reading the first {most:,} of {len(text):,} characters")
    return text[:most]


def is_folder(given: str) -> bool:
    """Whether what was given is the name of a folder."""
    try:
        return bool(given) and Path(given).is_dir()
    except OSError:  # a text longer than any name
        return False


def say_unknown(run: LanguageRun, text: str) -> None:
    """Say what of a text the model does not know."""
    from gatewise.complete import notes_of

    say_notes(notes_of(run.tokenizer, text))


def whole_paths(run: LanguageRun, given: str) -> list[str]:
    """The paths of gates and states that are named with commas between, a short name in every layer.

    Raises:
        UnknownNameError: there is none of that name.
    """
    known = run.model.stack.names()
    found: list[str] = []
    for name in filter(None, (one.strip() for one in given.split(","))):
        paths = [path for path in known if name in (path, path.split(".", 2)[-1])]
        if not paths:
            raise unknown("path", name, known)
        found += paths
    return list(dict.fromkeys(found))


def check_least(**least: tuple[int, int]) -> None:
    """Raise OptionError, naming the flag, for the first option that is less than it may be.

    Args:
        least: name of each option -> what was given, and the least.
    """
    for name, (found, allowed) in least.items():
        if found < allowed:
            raise OptionError(
                f"--{name}: expected a whole number of {allowed} or more, found {found}"
            )


def check_times(control: Control | None, count: int) -> None:
    """Raise OptionError if a control acts at a time behind the end of so many tokens, or at none of them."""
    from gatewise.places import listed

    for rule in () if control is None else control.rules:
        try:
            found = listed("time", rule.time, count)
        except OptionError as error:
            raise OptionError(f"{error}, the tokens that there are") from None
        if not found and isinstance(rule.time, slice):
            raise OptionError(
                f"time= of a control selects none of {count} tokens: found {rule.time}"
            )


def marked(run: LanguageRun, ids: ArrayLike, follow: str) -> Marks:
    """Where --follow is, for each of the tokens."""
    from gatewise.insight import marks

    try:
        return marks(run.tokenizer.decode(ids), follow, run.tokenizer.lengths(ids))
    except OptionError as error:
        raise OptionError(f"--follow: {error}") from None


def indices(flag: str, given: str | None) -> Any:
    """3, 3,17 or 0:8 as an index of a Control."""
    if given is None:
        return None
    try:
        first, colon, last = given.partition(":")
        if colon:
            return slice(int(first) if first else None, int(last) if last else None)
        found = [int(one) for one in given.split(",")]
    except ValueError:
        raise OptionError(
            f"{flag}: expected numbers such as 3, 3,17 or 0:8, found {given!r}"
        ) from None
    return found[0] if len(found) == 1 else found


def numbers(flag: str, given: str) -> list[int]:
    """3,17 as numbers."""
    try:
        return [int(one) for one in given.split(",")]
    except ValueError:
        raise OptionError(f"{flag}: expected numbers such as 3,17, found {given!r}") from None


def decimals(flag: str, given: str) -> list[float]:
    """0,0.5,1 as numbers."""
    try:
        found = [float(one) for one in given.split(",")]
    except ValueError:
        raise OptionError(f"{flag}: expected numbers with commas, found {given!r}") from None
    if not all(math.isfinite(one) for one in found):
        raise OptionError(f"{flag}: expected finite numbers, found {given!r}")
    return found
