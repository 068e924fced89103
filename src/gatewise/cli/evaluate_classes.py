"""`gatewise eval` of a classifier or regressor: accuracy, F1, confusion, calibration; errors of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import plots, screen
from gatewise.cli.classify import stored_options
from gatewise.errors import DataError, OptionError, unknown

if TYPE_CHECKING:
    from gatewise.run import ClassifyRun
    from gatewise.tasks.labelled import Examples

_FIGURES = {
    "examples": "examples",
    "unknown_labels": "of unknown classes",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "nats_per_example": "nats/example",
    "calibration_error": "calibration error",
    "numbers": "numbers",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R2",
}
_MOST = 24
"""Classes of a matrix that is drawn in the terminal; of more the largest confusions are listed."""


@dataclass(frozen=True, kw_only=True)
class ClassData:
    """What is drawn; of a run of `classify` or `execute`."""

    plot: Path | None = None
    """Draw the confusion matrix and the calibration of the last part (.png, .svg, .pdf); of numbers the
    predictions, of a run of execute its tables as heat maps."""


ClassFlags = Annotated[ClassData, Parameter(name="*", group="Classes")]


def evaluate_classes(
    opened: ClassifyRun,
    data: Sequence[str],
    part: str,
    shown: ClassData,
    engine: str,
    *,
    json: bool,
) -> int:
    """Figures of each part, as tables or a document."""
    if shown.plot is not None:
        plots.check(shown.plot)
    parts = _parts(opened, data)
    if part != "all":
        if part not in parts:
            raise unknown("part", part, parts)
        parts = {part: parts[part]}
    tallies = {name: opened.evaluate(each, engine=engine) for name, each in parts.items()}
    figures = {name: tally.summary() for name, tally in tallies.items()}
    last = list(parts)[-1]
    if shown.plot is not None:
        _plot(opened, shown.plot, last, parts[last], tallies[last], engine)
        screen.say(f"drawn: {shown.plot}")
    if json:
        document: dict[str, Any] = {"run": str(opened.path), "step": opened.step, "parts": figures}
        if opened.classes:
            for name, tally in tallies.items():
                document["parts"][name]["reliability"] = tally.reliability()  # type: ignore[attr-defined]
        screen.out_json(document)
        return 0
    screen.out(figures_text(figures))
    if opened.classes:
        screen.out()
        screen.out(f"{last}: true classes down, predicted classes across")
        screen.out(confusion_text(opened.classes, figures[last]["confusion"]))
    return 0


def _parts(opened: ClassifyRun, data: Sequence[str]) -> dict[str, Examples]:
    """The parts of the data that are named, or of those that the run was trained on, without training's."""
    from gatewise.tasks.labelled import read_examples, wave_examples

    options = stored_options(opened)
    if data:
        found = read_examples(data, options, cut=False)
        parts = found.parts if found.by_name else {"data": found.parts["train"]}
    else:
        found = _own(opened, read_examples, wave_examples, options)
        parts = {name: each for name, each in found.parts.items() if name != "train"}
        if not parts:
            raise DataError(
                f"{opened.path}: the run has neither a validation nor a test part: name data to measure"
            )
    for note in found.notes:
        screen.say(f"note: {note}")
    return parts


def _own(opened: ClassifyRun, read: Any, embedded: Any, options: Any) -> Any:
    """What the run was trained on, read anew and cut as it was."""
    if opened.config.get("embedded"):
        return embedded(options)
    sources = [str(one) for one in opened.config.get("sources") or ()]
    missing = [one for one in sources if not Path(one).exists()]
    if missing or not sources:
        raise DataError(
            f"{opened.path}: expected the data it was trained on, found nothing at "
            f"{', '.join(missing) or 'a name in its configuration'}: name the data to measure"
        )
    found = read(sources, options)
    counted = opened.config.get("data", {}).get("examples", {})
    now = {name: len(each) for name, each in found.parts.items()}
    if counted != now:
        raise OptionError(
            f"expected the data that the run was trained on, {counted} examples, found {now}: they have "
            "changed since; name the data to measure"
        )
    return found


def figures_text(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A column for each part."""
    rows = [["", *figures]]
    for name, words in _FIGURES.items():
        values = [each.get(name) for each in figures.values()]
        if any(values) or (name != "unknown_labels" and any(v is not None for v in values)):
            rows.append([words, *(_number(value) for value in values)])
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    )


def confusion_text(classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    """The matrix with recall, precision and F1 of each class; of many classes the largest confusions."""
    import numpy as np

    from gatewise.metrics.classes import per_class

    names = [screen.shown(one, limit=16) for one in classes]
    scores = per_class(np.asarray(confusion))
    if len(classes) > _MOST:
        return _largest(names, confusion, scores)
    cells = [[str(count) if count else "." for count in row] for row in confusion]
    head = [name[:4] for name in names]
    wide = [max(len(head[k]), *(len(row[k]) for row in cells)) for k in range(len(names))]
    left = max(len(name) for name in names)
    titles = " ".join(name.rjust(width) for name, width in zip(head, wide, strict=True))
    lines = [f"{'':<{left}}  {titles}  recall  prec.     F1"]
    for name, row, score in zip(names, cells, scores, strict=True):
        counts = " ".join(cell.rjust(width) for cell, width in zip(row, wide, strict=True))
        lines.append(f"{name:<{left}}  {counts}  {_shares(score)}")
    return "\n".join(lines)


def _shares(score: Mapping[str, float]) -> str:
    return f"{score['recall']:6.3f} {score['precision']:6.3f} {score['f1']:6.3f}"


def _largest(
    names: Sequence[str], confusion: Sequence[Sequence[int]], scores: Sequence[Mapping[str, float]]
) -> str:
    """The twenty classes of most errors, and what each is taken for."""
    errors = [sum(row) - row[k] for k, row in enumerate(confusion)]
    lines = []
    for k in sorted(range(len(names)), key=lambda k: -errors[k])[:20]:
        others = sorted((j for j in range(len(names)) if j != k), key=lambda j: -confusion[k][j])
        taken = ", ".join(f"{names[j]} {confusion[k][j]}" for j in others[:3] if confusion[k][j])
        lines.append(f"{names[k]:<16}  {_shares(scores[k])}  {taken}")
    return "\n".join(lines)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def _plot(
    opened: ClassifyRun, path: Path, name: str, part: Examples, tally: Any, engine: str
) -> None:
    if opened.classes:
        plots.confusion(path, opened.classes, tally.confusion, tally.reliability(), name)
        return
    values = opened.probabilities(part, engine=engine)[:, 0]
    plots.predictions(path, part.targets, values, name)
