"""What the verbs that use a run have in common: opening it, its prompts, how its text is drawn."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.options import with_flag_names
from gatewise.errors import DataError, EngineError, OptionError

if TYPE_CHECKING:
    from gatewise.generate import SamplingOptions
    from gatewise.probe import Control
    from gatewise.run import LanguageRun, Run

T = TypeVar("T", bound="Run")

RunPath = Annotated[Path, Parameter(help="A run folder, or one of its checkpoints.")]


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Which checkpoint, and where it runs."""

    checkpoint: Literal["best", "latest"] = "best"
    """Of a run, the best checkpoint or the latest."""

    device: str = "cpu"
    """cpu, cuda, cuda:1, ...; auto: a GPU where there is one."""

    dtype: str | None = None
    """float32, float64, bfloat16 or float16; to complete, generate and eval also int8 or int4. Default: as it was saved."""

    engine: str = "auto"
    """Of the recurrent layers, as `gatewise info` lists them; to complete and generate also step: whole tokens in machine code. auto: the quickest."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How text is drawn; see `gatewise.generate.SamplingOptions`."""

    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""

    top_p: float = 1.0
    """Keep the fewest most probable tokens that together reach this probability."""

    min_p: float = 0.0
    """Keep the tokens at least this many times as probable as the most probable one."""

    repetition_penalty: float = 1.0
    """Make tokens that were there before less probable; 1: no penalty."""

    no_repeat_ngram: int = 0
    """Let no sequence of this many tokens occur twice; 0 allows all."""

    stop: tuple[str, ...] = ()
    """End before this text; may be given several times. \\n and \\t are understood."""

    lines: int | None = None
    """End after this many lines."""

    sentences: int | None = None
    """End after this many sentences."""

    words: int | None = None
    """End after this many words."""

    closing: bool = False
    """End after the bracket that closes one which the text did not open."""

    confidence: float = 0.0
    """End before a token less probable than this; the first is written in any case."""

    max_characters: int | None = None
    """End after this many characters."""

    seed: int | None = None
    """Draw the same text each time."""


_PACKING = ("complete", "generate", "evaluate")
"""Verbs that the step engine answers."""

OpeningFlags = Annotated[Opening, Parameter(name="*", group="Run")]
DrawingFlags = Annotated[Drawing, Parameter(name="*", group="Drawing")]
ControlFile = Annotated[
    Path | None,
    Parameter(
        help="Set gates while the text is written: a file with a Control as JSON.", group="Run"
    ),
]


def open_run(path: Path, opening: Opening, verb: str) -> LanguageRun:
    """The language model's run at `path`; see `open_as`.

    Raises:
        EngineError: weights of 8 or 4 bits were asked for and cannot be had.
    """
    from gatewise.run import LanguageRun

    return open_as(LanguageRun, path, opening, verb)


_USES = {
    "lm": "complete",
    "classify": "classify",
    "tag": "classify",
    "forecast": "classify",
    "translate": "translate",
    "execute": "execute",
    "caption": "caption",
    "task": "eval",
}
"""The verb that a run of each mapping is for: the names of what it can do in Python are not verbs."""


def open_as(kind: type[T], path: Path, opening: Opening, verb: str) -> T:
    """The run at `path`, which is to be of one kind; what there is to know about it is said.

    Raises:
        CheckpointError: it is not there, damaged, foreign or of another format.
        OptionError: it is of another mapping, without that verb.
    """
    found = open_any(path, opening, verb)
    if not isinstance(found, kind):
        use = _USES.get(found.mapping)
        raise OptionError(
            f"{path}: expected a run of mapping {kind.mapping!r}, found {found.mapping!r}: "
            + (f"`gatewise {use} {path}` uses it" if use else "`gatewise --help` lists the verbs")
        )
    return found


def open_any(path: Path, opening: Opening, verb: str) -> Run:
    """The run at `path`, of any mapping that has the verb; what there is to know about it is said."""
    found = _packed(path, opening) if verb in _PACKING else _loaded(path, opening)
    for note in found.notes:
        screen.say(f"note: {note}")
    try:
        found.require(verb)
    except OptionError as error:
        if found.mapping not in _USES:
            raise
        raise OptionError(f"{error}; `gatewise {_USES[found.mapping]} {path}` uses it") from None
    return found


def _loaded(path: Path, opening: Opening) -> Run:
    from gatewise.run import load

    return load(path, opening.checkpoint, opening.device, opening.dtype)


def _packed(path: Path, opening: Opening) -> Run:
    """The run with the step engine's weights in the dtype asked for, or converted where it has none."""
    from gatewise.run import LanguageRun, load
    from gatewise.run.base import DTYPES as KNOWN
    from gatewise.run.packing import WHOLE
    from gatewise.step.choose import DTYPES, refusal

    if opening.dtype not in (None, *KNOWN, *DTYPES):
        raise OptionError(
            f"--dtype: expected one of {', '.join(dict.fromkeys((*DTYPES, *KNOWN)))}, "
            f"found {opening.dtype!r}"
        )
    named = opening.engine not in ("auto", "step")
    if named and opening.dtype in WHOLE:
        raise EngineError(
            f"--engine {opening.engine} has no weights of {opening.dtype}: leave out one of the two"
        )
    if named or opening.dtype not in DTYPES or opening.device != "cpu":
        return _loaded(path, opening)
    found = load(path, opening.checkpoint)
    if not isinstance(found, LanguageRun):
        return _loaded(path, opening)
    if opening.dtype in ("float32", "bfloat16") and refusal(found.model) is not None:
        return _loaded(path, opening)
    found.pack(opening.dtype)
    return found


def sampling(drawing: Drawing, **more: Any) -> SamplingOptions:
    """Checked options, from the flags and `more`.

    Raises:
        OptionError: naming the flag, if one is outside its range.
    """
    from gatewise.generate import SamplingOptions

    values = vars(drawing) | more
    values["stop"] = tuple(_unescaped(text) for text in drawing.stop)
    try:
        return SamplingOptions(**values)
    except OptionError as error:
        raise with_flag_names(error, values) from None


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\t", "\t")


def read_control(path: Path | None) -> Control | None:
    """The control in a file.

    Raises:
        DataError: if it cannot be read, or is none.
    """
    if path is None:
        return None
    from gatewise.probe import Control

    try:
        return Control.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read --control: {error.strerror}") from None
    except (DataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a Control as JSON: {error}") from None


def prompt_text(given: str | None, *, if_none: str | None = None) -> str | None:
    """The text of a prompt argument: itself, or standard input for `-`.

    Args:
        given: the argument. Without one, standard input is read if it is no terminal.
        if_none: what an empty standard input that nobody asked for means.
    Returns:
        The text, or None where there is none.
    """
    if given is not None and given != "-":
        if is_file(given):
            screen.say(
                f"note: {screen.shown(given)}: read as text, though there is such a file: - and < FILE read that"
            )
        return whole(given)
    if given is None and (sys.stdin is None or sys.stdin.isatty()):
        return None
    read = _standard_input().removesuffix("\n")
    return if_none if given is None and not read else read


def is_file(given: str) -> bool:
    """Whether what was given is the name of a file."""
    try:
        return Path(given).is_file()
    except OSError:  # a text longer than any name
        return False


def whole(text: str) -> str:
    """`text` with U+FFFD for what is no character: halves of them, and bytes that are not UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _standard_input() -> str:
    stream = getattr(sys.stdin, "buffer", None)
    text: str = sys.stdin.read() if stream is None else stream.read().decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def as_text(given: str) -> str:
    """What was given, as a text; where it looks like the name of a file that is not there, that is said."""
    if " " not in given and Path(given).suffix in (
        ".txt",
        ".md",
        ".py",
        ".gz",
        ".csv",
        ".tsv",
        ".jsonl",
        ".conll",
    ):
        screen.say(f"note: {screen.shown(given)}: no such file, read as text")
    return whole(given)


def say_notes(notes: list[str]) -> None:
    """What the reader should know about a prompt."""
    for note in notes:
        screen.say(f"note: {note}")
