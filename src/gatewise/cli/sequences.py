"""A sequence as a run of any mapping reads or writes it: what was read at each step, its cost, its gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gatewise.cli import screen
from gatewise.cli.runs import prompt_text
from gatewise.errors import DataError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from gatewise.probe import Control, Record
    from gatewise.run import (
        CaptionRun,
        ClassifyRun,
        ForecastRun,
        LanguageRun,
        Run,
        TagRun,
        TaskRun,
        TranslateRun,
    )


@dataclass(frozen=True, eq=False)
class Part:
    """A sequence, or one side of a pair.

    Args:
        name: "source", "target", ...; "" where there is one.
        tokens: what was read or written at each step, as it is shown, (T,).
        pieces: the same as text, (T,).
        record: path -> (T, units).
        nats: (T,), the cost of each step; NaN where nothing was asked, None where it has none.
        cost: what that cost is called; "cost" where it is what training minimises, of whatever unit.
        ids: numbers of the tokens, where it has them.
        said: what the model says after each step, in words.
    """

    name: str
    tokens: list[str]
    pieces: list[str]
    record: dict[str, Tensor]
    nats: Any = None
    cost: str = "nats"
    ids: Any = None
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Looked:
    """All of one input.

    Args:
        text: what was read, in words.
        parts: its sequences.
        notes: what to tell, a line each.
    """

    text: str
    parts: list[Part]
    notes: list[str]


@dataclass(frozen=True)
class Asked:
    """What is read, and how.

    Args:
        given: a text, a file, a number: as the mapping has it.
        number: which of several, from 1.
        record, control, engine: as of `run.read`.
    """

    given: str
    number: int
    record: Record | None
    control: Control | None
    engine: str

    @property
    def how(self) -> dict[str, Any]:
        """The arguments of `run.read`."""
        return {"record": self.record, "control": self.control, "engine": self.engine}

    def one_of(self, several: Sequence[Any], what: str) -> Any:
        """The one that was asked for; DataError if there is none."""
        if not several:
            raise DataError(
                f"expected {what} to read, found none in {screen.shown(self.given, limit=60)!r}"
            )
        if not 1 <= self.number <= len(several):
            raise DataError(
                f"--number: expected 1 to {len(several):,} of the {what} in {screen.shown(self.given, limit=60)}, "
                f"found {self.number}"
            )
        if len(several) > 1 and self.number == 1:
            screen.say(f"note: the first of {len(several):,} {what}; --number takes another")
        return several[self.number - 1]


def look(run: Run, asked: Asked) -> Looked:
    """The sequence through the run.

    Raises:
        OptionError: runs of this mapping are not read so.
        DataError: there is nothing to read.
    """
    if run.mapping not in _LOOKS:
        raise OptionError(
            f"{run.path}: expected a run of {', '.join(_LOOKS)}, found one of {run.mapping!r}"
        )
    if asked.number != 1 and run.mapping in _SINGLE:
        raise OptionError(
            f"--number: a run of {run.mapping!r} reads what is given as one; leave it out"
        )
    return _LOOKS[run.mapping](run, asked)


def _of(record: dict[str, Tensor] | None, begin: str = "") -> dict[str, Tensor]:
    """The only column of what begins so."""
    found = {} if record is None else record
    return {path: values[:, 0].float() for path, values in found.items() if path.startswith(begin)}


def _text(given: str) -> str:
    return prompt_text(given) or ""


def _language(run: LanguageRun, asked: Asked) -> Looked:
    reading = run.read(_text(asked.given), **asked.how)
    pieces = [run.tokenizer.decode([one]) for one in reading.ids.tolist()]
    part = Part("", reading.tokens, pieces, _of(reading.record), reading.nats, ids=reading.ids)
    return Looked(reading.text, [part], reading.notes)


def _classify(run: ClassifyRun, asked: Asked) -> Looked:
    from gatewise.cli.classify import items_of, line_of

    shown, x = asked.one_of(list(items_of(run, [asked.given])), "inputs")
    reading = run.read(x, **asked.how)
    said = [line_of(run.prediction(row), 1, run.classes) for row in reading.scores.numpy()]
    part = Part("", reading.tokens, reading.tokens, _of(reading.record), said=said)
    return Looked(shown, [part], reading.notes)


def _tag(run: TagRun, asked: Asked) -> Looked:
    from gatewise.cli.classify import lines_given

    line = asked.one_of([one for one in lines_given([asked.given]) if one.strip()], "lines")
    reading = run.read(line, **asked.how)
    words = list(reading.tagging.words)
    notes = run.notes_of(words)
    if any(path.startswith("characters.") for path in reading.record or {}):
        notes.append("the net of characters has a column for each word: run.read() gives it")
    said = [str(tag) for tag in reading.tagging.tags]
    pieces = [word + " " for word in words]
    return Looked(line, [Part("", words, pieces, _of(reading.record, "words."), said=said)], notes)


def _translate(run: TranslateRun, asked: Asked) -> Looked:
    reading = run.read(_text(asked.given), **asked.how)
    source, target = reading.source_tokens, reading.target_tokens
    parts = [
        Part("source", source, source, _of(reading.record, "encoder.")),
        Part("target", target, target, _of(reading.record, "decoder."), reading.nats),
    ]
    return Looked(f"{reading.source} -> {reading.target}", parts, reading.notes)


def _caption(run: CaptionRun, asked: Asked) -> Looked:
    from gatewise.cli.caption import read_things

    found, skipped = read_things(run, [asked.given])
    for one in skipped:
        screen.say(f"skipped: {one}")
    name, thing = asked.one_of(found, "images" if run.of_images else "vectors")
    reading = run.read(thing, **asked.how)
    part = Part("", reading.tokens, reading.tokens, _of(reading.record), reading.nats)
    return Looked(f"{name}: {reading.text}", [part], reading.notes)


def _forecast(run: ForecastRun, asked: Asked) -> Looked:
    from gatewise.cli.evaluate_forecasts import series_of

    one = asked.one_of(series_of(run, [asked.given]), "series")
    reading = run.read(one, **asked.how)
    read = [f"{value:.6g}" for value in one.values[: len(reading.points)]]
    said = [f"{value:.6g}" for value in reading.points]
    # step t reads value t and is asked for value t + 1
    part = Part("", read, read, _of(reading.record), reading.costs, "cost", said=said)
    return Looked(f"series {one.name}", [part], [])


def _task(run: TaskRun, asked: Asked) -> Looked:
    try:
        index = int(asked.given)
    except ValueError:
        raise OptionError(
            f"expected the number of a test sequence, from 1, found {screen.shown(asked.given)!r}"
        ) from None
    if not 1 <= index <= 1_000_000:
        raise OptionError(f"expected the number of a test sequence, from 1, found {index}")
    if run.task.carried and index > 1:
        raise OptionError(
            f"expected 1: rows of {run.task.name} go on from one to the next, found {index}"
        )
    batch = run.task.batch("test", index - 1, 1, seed=run.seed)
    reading = run.read(batch, **asked.how)
    read, wanted = run.task.shown(batch, 0)
    outputs = reading.outputs[:, 0].float().cpu()
    if run.task.classes:
        said = [run.task.classes[k] for k in outputs.argmax(-1).tolist()]
    else:
        said = [f"{value:.4g}" for value in outputs[:, 0].tolist()]
    shown = [a if b == "." else f"{a} (asked: {b})" for a, b in zip(said, wanted, strict=True)]
    part = Part("", read, [one + " " for one in read], _of(reading.record), said=shown)
    return Looked(f"{run.task.name}, test sequence {index}", [part], [])


_LOOKS: dict[str, Callable[[Any, Asked], Looked]] = {
    "lm": _language,
    "classify": _classify,
    "tag": _tag,
    "translate": _translate,
    "caption": _caption,
    "forecast": _forecast,
    "task": _task,
}
"""Mapping -> how its runs read one thing; another is one function and one line here."""

_SINGLE = ("lm", "translate", "task")
"""Those that take no several things."""
