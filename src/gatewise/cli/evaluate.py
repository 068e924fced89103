"""`gatewise eval`: what a run's predictions are worth on data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.evaluate_captions import CaptionData, CaptionFlags, evaluate_captions
from gatewise.cli.evaluate_classes import ClassData, ClassFlags, evaluate_classes
from gatewise.cli.evaluate_execute import ExecuteData, ExecuteFlags, evaluate_execute
from gatewise.cli.evaluate_forecasts import Measuring, MeasuringFlags, evaluate_forecasts
from gatewise.cli.evaluate_pairs import PairData, PairFlags, evaluate_pairs, widths_of
from gatewise.cli.evaluate_tags import evaluate_tags
from gatewise.cli.options import Json
from gatewise.cli.runs import Opening, OpeningFlags, RunPath, open_any
from gatewise.errors import DataError, OptionError, unknown

if TYPE_CHECKING:  # only the name: the page of help must not wait for torch
    from gatewise.run import Run

SPLITS = ("train", "valid", "test")


def evaluate(
    run: RunPath,
    data: Annotated[
        list[str],
        Parameter(
            allow_leading_hyphen=True,
            help="Texts, pairs, captions, sentences, examples or series, as `gatewise train` of this mapping "
            "takes them. Without any: the figures that were measured while it was trained; of a classifier "
            "its own validation and test parts, measured now; of a run of execute, examples made here.",
        ),
    ] = [],  # noqa: B006
    /,
    *,
    part: Annotated[
        str, Parameter(help="train, valid, test, or all parts that there are.")
    ] = "all",
    fractions: Annotated[
        str,
        Parameter(
            help="Cut the text as it was cut for training (0.9,0.05,0.05), where no files are named "
            "train, valid and test; 1: read all of it."
        ),
    ] = "1",
    batch_size: Annotated[
        int, Parameter(help="Columns; 1 reads the text in one piece, more is quicker.")
    ] = 1,
    errors: Annotated[
        str, Parameter(help="Bytes that are not UTF-8: strict stops at them, replace reads on.")
    ] = "strict",
    pairs: PairFlags = PairData(),  # noqa: B008
    programs: ExecuteFlags = ExecuteData(),  # noqa: B008
    captions: CaptionFlags = CaptionData(),  # noqa: B008
    measuring: MeasuringFlags = Measuring(),  # noqa: B008
    classes: ClassFlags = ClassData(),  # noqa: B008
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """Measure a model on data: costs, BLEU and chrF of translations, F1 of tags and classes, errors.

    Of captions BLEU, ROUGE-L and CIDEr-D. A text is read once, with the state carried from its beginning to
    its end.
    """
    from gatewise.run import CaptionRun, ClassifyRun, ExecuteRun, ForecastRun, LanguageRun, TagRun
    from gatewise.text.corpora import build_corpus

    if part not in ("all", *SPLITS):
        raise unknown("part", part, ("all", *SPLITS))
    if batch_size < 1:
        raise OptionError(f"--batch-size: expected a whole number from 1, found {batch_size}")
    cut = _fractions(fractions)
    opened = open_any(run, opening, "evaluate")
    if isinstance(opened, ExecuteRun):
        if fractions != "1" or batch_size != 1 or errors != "strict":
            raise OptionError(
                "--fractions, --batch-size, --errors: for texts, found a run of execute"
            )
        plot = classes.plot
        return evaluate_execute(opened, data, part, programs, plot, opening.engine, json=json)
    if isinstance(opened, ForecastRun | TagRun) and (data or opened.config.get("embedded")):
        _refuse_columns(opened, batch_size, errors)
        if isinstance(opened, TagRun):
            return evaluate_tags(opened, data, part, cut, opening.engine, json=json)
        return evaluate_forecasts(opened, data, part, cut, measuring, opening.engine, json=json)
    if isinstance(opened, ClassifyRun):
        if batch_size != 1 or errors != "strict" or fractions != "1":
            raise OptionError(
                "--batch-size, --fractions and --errors: for other mappings, found a run of 'classify'"
            )
        return evaluate_classes(opened, data, part, classes, opening.engine, json=json)
    if isinstance(opened, CaptionRun) and (data or opened.config.get("embedded")):
        return evaluate_captions(
            opened,
            data,
            part,
            None if fractions == "1" else cut,
            captions,
            widths_of(pairs.beams),
            pairs.length_penalty,
            pairs.out,
            opening.engine,
            json=json,
        )
    if not data and (part not in ("all", "valid") or fractions != "1" or batch_size != 1):
        raise OptionError(
            "--part, --fractions and --batch-size: expected DATA to measure; without it the figures "
            "of the validation part are shown as they were measured in training"
        )
    if data and not isinstance(opened, LanguageRun):
        _refuse_columns(opened, batch_size, errors)
        return evaluate_pairs(opened, data, part, cut, pairs, opening.engine, json=json)
    if data:
        assert isinstance(opened, LanguageRun)
        corpus = build_corpus(data, tokenizer=opened.tokenizer, fractions=cut, errors=errors)
        for note in corpus.notes:
            screen.say(f"note: {note}")
        if any(each.unknown for each in corpus.splits.values()):
            screen.say(
                "note: what is not in the vocabulary is predicted as one unknown token, whatever it "
                "stands for: figures per character come out lower than if it had to be spelled"
            )
        parts = _named(corpus.splits, cut) if part == "all" else _one(corpus.splits, part)
        figures = {
            name: opened.evaluate(tokens, batch_size=batch_size, engine=opening.engine).summary()
            for name, tokens in parts.items()
        }
    else:
        figures = {"valid": _recorded(run, opened)}
    if json:
        screen.out_json({"run": str(opened.path), "step": opened.step, "parts": figures})
    else:
        _show(figures)
    return 0


def _refuse_columns(opened: Run, batch_size: int, errors: str) -> None:
    if batch_size != 1 or errors != "strict":
        raise OptionError(
            f"--batch-size and --errors: for a language model, found a run of {opened.mapping!r}"
        )


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise OptionError(
            f"--fractions: expected numbers with commas between them, found {text!r}"
        ) from None


def _named(splits: dict[str, Any], cut: tuple[float, ...]) -> dict[str, Any]:
    """The parts; a text that was not cut is no training part."""
    return {"text": splits["train"]} if len(splits) == 1 and len(cut) == 1 else splits


def _one(splits: dict[str, Any], part: str) -> dict[str, Any]:
    if part not in splits:
        found = ", ".join(splits)
        raise DataError(
            f"--part: expected a {part} part, found {found}: name a file so, or give --fractions"
        )
    return {part: splits[part]}


def _recorded(path: Path, opened: Run) -> dict[str, Any]:
    """The validation figures that the run's log holds for this checkpoint."""
    from gatewise.train import FIGURES

    folder = path if (path / "checkpoints").is_dir() else opened.path.parent.parent
    for record in reversed(validations(folder)):
        if record.get("step") == opened.step:
            own = {name: record[name] for name in FIGURES if record.get(name) is not None}
            return {name: record.get(name) for name in _FIGURES} if "tokens" in record else own
    raise DataError(
        f"{path}: expected figures of step {opened.step:,} in its log, found none: "
        "name a text to measure it on"
    )


def validations(run: Path) -> list[dict[str, Any]]:
    """The lines about evaluations in a run's log, oldest first."""
    from gatewise.checkpoint import RunLog

    log = RunLog(run / "log.jsonl")
    return (
        [event for event in log.read() if event.get("kind") == "valid"] if log.path.exists() else []
    )


_FIGURES = {
    "tokens": "tokens",
    "characters": "characters",
    "nats_per_token": "nats/token",
    "bits_per_token": "bits/token",
    "nats_per_character": "nats/char",
    "bits_per_character": "bits/char",
    "perplexity": "perplexity",
}


def _show(figures: dict[str, dict[str, Any]]) -> None:
    from gatewise.train import FIGURES

    rows = [["", *figures]]
    known = {name: figure.unit for name, figure in FIGURES.items()} | _FIGURES
    found = {name for each in figures.values() for name in each}
    for name, words in ((n, w) for n, w in known.items() if n in found):
        rows.append([words, *(_number(each.get(name)) for each in figures.values())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        screen.out("  ".join([row[0].ljust(widths[0]), *cells]))


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
