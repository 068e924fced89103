"""`gatewise eval`: what a run's predictions are worth on data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from gatewise.cli.evaluate_task import evaluate_task
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
            "its own validation and test parts, measured now; of a run of execute or task, examples made here.",
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
    if part not in ("all", *SPLITS):
        raise unknown("part", part, ("all", *SPLITS))
    if batch_size < 1:
        raise OptionError(f"--batch-size: expected a whole number from 1, found {batch_size}")
    cut = None if fractions == "1" else _fractions(fractions)
    options = (pairs, programs, captions, measuring, classes)
    asked = _Asked(run, data, part, cut, batch_size, errors, *options, opening.engine, json)
    opened = open_any(run, opening, "evaluate")
    asked.refuse_groups(opened)
    return _MEASURES[opened.mapping](opened, asked)


@dataclass(frozen=True)
class _Asked:
    """What the command line says."""

    path: Path
    data: Sequence[str]
    part: str
    cut: tuple[float, ...] | None
    """None: read all of it."""
    batch_size: int
    errors: str
    pairs: PairData
    programs: ExecuteData
    captions: CaptionData
    measuring: Measuring
    classes: ClassData
    engine: str
    json: bool

    @property
    def fractions(self) -> tuple[float, ...]:
        """How to cut, also where nothing is to be cut."""
        return (1.0,) if self.cut is None else self.cut

    def refuse_groups(self, opened: Run) -> None:
        """Raise OptionError if an option of another mapping's was given: it would change nothing."""
        for group, mappings in _GROUPS.items():
            values = getattr(self, group)
            if opened.mapping in mappings or values == type(values)():
                continue
            plain = vars(type(values)())
            given = [name for name, value in vars(values).items() if value != plain[name]]
            flags = " and ".join("--" + name.replace("_", "-") for name in given)
            raise OptionError(
                f"{flags}: for a run of {' or '.join(mappings)}, found one of {opened.mapping!r}"
            )

    def refuse(self, opened: Run, *flags: str) -> None:
        """Raise OptionError if one of these was given: it says nothing of such a run."""
        given = {
            "--batch-size": self.batch_size != 1,
            "--errors": self.errors != "strict",
            "--fractions": self.cut is not None,
        }
        for flag in flags:
            if given[flag]:
                whose = "other mappings" if flag == "--fractions" else "a language model"
                raise OptionError(f"{flag}: for {whose}, found a run of {opened.mapping!r}")


_GROUPS = {
    "pairs": ("translate", "caption"),
    "programs": ("execute",),
    "captions": ("caption",),
    "measuring": ("forecast",),
    "classes": ("classify", "execute"),
}
"""Options -> whose they are."""


def _execute(opened: Any, asked: _Asked) -> int:
    asked.refuse(opened, "--batch-size", "--errors", "--fractions")
    plot = asked.classes.plot
    return evaluate_execute(
        opened, asked.data, asked.part, asked.programs, plot, asked.engine, json=asked.json
    )


def _task(opened: Any, asked: _Asked) -> int:
    asked.refuse(opened, "--batch-size", "--errors", "--fractions")
    return evaluate_task(opened, asked.data, asked.part, asked.engine, json=asked.json)


def _classify(opened: Any, asked: _Asked) -> int:
    asked.refuse(opened, "--batch-size", "--errors", "--fractions")
    return evaluate_classes(
        opened, asked.data, asked.part, asked.classes, asked.engine, json=asked.json
    )


def _tag(opened: Any, asked: _Asked) -> int:
    if not asked.data and not opened.config.get("embedded"):
        return _recorded(opened, asked)
    asked.refuse(opened, "--batch-size", "--errors")
    return evaluate_tags(
        opened, asked.data, asked.part, asked.fractions, asked.engine, json=asked.json
    )


def _forecast(opened: Any, asked: _Asked) -> int:
    if not asked.data and not opened.config.get("embedded"):
        return _recorded(opened, asked)
    asked.refuse(opened, "--batch-size", "--errors")
    return evaluate_forecasts(
        opened,
        asked.data,
        asked.part,
        asked.fractions,
        asked.measuring,
        asked.engine,
        json=asked.json,
    )


def _caption(opened: Any, asked: _Asked) -> int:
    if not asked.data and not opened.config.get("embedded"):
        return _recorded(opened, asked)
    asked.refuse(opened, "--batch-size", "--errors")
    return evaluate_captions(
        opened,
        asked.data,
        asked.part,
        asked.cut,
        asked.captions,
        widths_of(asked.pairs.beams),
        asked.pairs.length_penalty,
        asked.pairs.out,
        asked.engine,
        json=asked.json,
    )


def _translate(opened: Any, asked: _Asked) -> int:
    if not asked.data:
        return _recorded(opened, asked)
    asked.refuse(opened, "--batch-size", "--errors")
    return evaluate_pairs(
        opened, asked.data, asked.part, asked.fractions, asked.pairs, asked.engine, json=asked.json
    )


def _language(opened: Any, asked: _Asked) -> int:
    if not asked.data:
        return _recorded(opened, asked)
    from gatewise.text.corpora import build_corpus

    cut = asked.fractions
    corpus = build_corpus(
        asked.data, tokenizer=opened.tokenizer, fractions=cut, errors=asked.errors
    )
    for note in corpus.notes:
        screen.say(f"note: {note}")
    if any(each.unknown for each in corpus.splits.values()):
        screen.say(
            "note: what is not in the vocabulary is predicted as one unknown token, whatever it "
            "stands for: figures per character come out lower than if it had to be spelled"
        )
    parts = _named(corpus.splits, cut) if asked.part == "all" else _one(corpus.splits, asked.part)
    figures = {
        name: opened.evaluate(tokens, batch_size=asked.batch_size, engine=asked.engine).summary()
        for name, tokens in parts.items()
    }
    return _say(opened, figures, json=asked.json)


_MEASURES: dict[str, Callable[[Any, _Asked], int]] = {
    "lm": _language,
    "classify": _classify,
    "tag": _tag,
    "forecast": _forecast,
    "translate": _translate,
    "execute": _execute,
    "caption": _caption,
    "task": _task,
}
"""Mapping -> what measures a run of it."""


def _recorded(opened: Run, asked: _Asked) -> int:
    """Without data: what was measured in training."""
    if asked.part not in ("all", "valid") or asked.cut is not None or asked.batch_size != 1:
        raise OptionError(
            "--part, --fractions and --batch-size: expected DATA to measure; without it the figures "
            "of the validation part are shown as they were measured in training"
        )
    return _say(opened, {"valid": _logged(asked.path, opened)}, json=asked.json)


def _say(opened: Run, figures: dict[str, dict[str, Any]], *, json: bool) -> int:
    if json:
        screen.out_json({"run": str(opened.path), "step": opened.step, "parts": figures})
    else:
        _show(figures)
    return 0


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


def _logged(path: Path, opened: Run) -> dict[str, Any]:
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

    return RunLog(run / "log.jsonl").validations()


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
