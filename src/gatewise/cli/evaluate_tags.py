"""`gatewise eval` of a tagger: accuracy of known and unknown words, spans, and which tags are confused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gatewise.cli import screen
from gatewise.errors import unknown

if TYPE_CHECKING:  # only the name: the page of help must not wait for torch
    from gatewise.run import TagRun
    from gatewise.tasks.columns import TaggedText

_ROWS = {
    "sentences": "sentences",
    "words": "words",
    "unknown_words": "unknown words",
    "unknown_tags": "unknown tags",
    "nats_per_word": "nats/word",
    "accuracy": "accuracy",
    "known_accuracy": "of known words",
    "unknown_accuracy": "of unknown words",
    "sentence_accuracy": "of sentences",
    "macro_f1": "macro-F1 of tags",
    "span_f1": "span F1",
}
_CONFUSED = 8


def evaluate_tags(
    opened: TagRun,
    data: Sequence[str],
    part: str,
    fractions: Sequence[float],
    engine: str,
    *,
    json: bool,
) -> int:
    """Figures of each part, as tables or a document.

    Args:
        opened: the run.
        data: files of the columns that it was trained on; none: the embedded sentences.
        part: "all", "train", "valid" or "test".
        fractions: shares of train, valid and test where no file's name says a part.
        engine: of the recurrent layers.
        json: one document, with the confusion matrix.
    """
    read = _read(opened, data, fractions)
    for note in read.notes if data else ():
        screen.say(f"note: {note}")
    parts = read.parts if read.by_name or len(fractions) > 1 else {"text": read.parts["train"]}
    if part != "all":
        if part not in parts:
            raise unknown("part", part, parts)
        parts = {part: parts[part]}
    elif not data:
        parts = {name: each for name, each in parts.items() if name != "train"}
    if not data and "test" not in parts and part == "all":
        screen.say(
            "note: these sentences have no test part: name files to measure the run on others"
        )
    figures = {name: opened.evaluate(each, engine=engine).summary() for name, each in parts.items()}
    if json:
        screen.out_json({"run": str(opened.path), "step": opened.step, "parts": figures})
    else:
        _show(figures)
    return 0


def _read(opened: TagRun, data: Sequence[str], fractions: Sequence[float]) -> TaggedText:
    from gatewise.tasks.columns import read_tagged
    from gatewise.tasks.known_sentences import embedded_sentences

    files = opened.config.get("files")
    columns = files if isinstance(files, dict) else {}
    if not data:
        return embedded_sentences(str(columns.get("embedded", "notices")))
    word, tag = columns.get("word", 1), columns.get("tag", -1)
    return read_tagged(list(data), word=word, tag=tag, fractions=fractions)


def _show(figures: Mapping[str, Mapping[str, Any]]) -> None:
    rows = [["", *figures]]
    for key, words in _ROWS.items():
        if any(each.get(key) is not None for each in figures.values()):
            rows.append([words, *(_number(each.get(key)) for each in figures.values())])
    _table(rows)
    for name, each in figures.items():
        if "spans" in each:
            screen.out(f"\n{name}: spans")
            _table(_span_rows(each["spans"]))
        if rows := _confused(each["tags"], each["confusion"]):
            screen.out(f"\n{name}: most confused")
            _table(rows)


def _span_rows(spans: Mapping[str, Any]) -> list[list[str]]:
    names = ("precision", "recall", "f1")
    rows = [["", "precision", "recall", "F1", "true", "found"]]
    for kind, each in spans["kinds"].items():
        counts = [f"{each[name]:,}" for name in ("true", "found")]
        rows.append([kind or "(none)", *(_number(each[name]) for name in names), *counts])
    counts = [f"{sum(k[n] for k in spans['kinds'].values()):,}" for n in ("true", "found")]
    return [*rows, ["all", *(_number(spans[name]) for name in names), *counts]]


def _confused(tags: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[list[str]]:
    """The pairs of different tags that stood for each other most often."""
    wrong = [
        (count, tags[true], tags[said])
        for true, row in enumerate(confusion)
        for said, count in enumerate(row)
        if count and true != said
    ]
    wrong.sort(key=lambda one: (-one[0], one[1:]))
    rows = [[true, said, f"{count:,}"] for count, true, said in wrong[:_CONFUSED]]
    return [["true", "said", "words"], *rows] if rows else []


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        screen.out("  ".join([screen.visible(row[0]).ljust(widths[0]), *cells]))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
