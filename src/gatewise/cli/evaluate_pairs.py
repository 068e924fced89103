"""`gatewise eval` of an encoder-decoder: the cost of given translations, and BLEU and chrF of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.saving import check_new, new_text
from gatewise.errors import OptionError, unknown

if TYPE_CHECKING:
    from gatewise.run import Run, TranslateRun

_SCORES = {
    "bleu": "BLEU",
    "bleu_lower": "BLEU, lower case",
    "bleu_words": "BLEU, own words",
    "chrf": "chrF",
}


@dataclass(frozen=True, kw_only=True)
class PairData:
    """Pairs, and how they are translated; of a run of `translate`. The last three are of captions too."""

    source: str | None = None
    """Of a folder or prefix, how the names of the sources' files end (de); of a table, their column."""

    target: str | None = None
    """The same of the targets (en)."""

    beams: str = "1,5"
    """Widths of the search to compare, with commas between them; 1: the most probable token."""

    length_penalty: float = 1.0
    """0 favours short texts, more favours longer ones."""

    out: Path | None = None
    """Write the texts of the last width here, of all parts in order: a line each, captions as COCO's results."""


PairFlags = Annotated[PairData, Parameter(name="*", group="Pairs")]


def evaluate_pairs(
    opened: Run,
    data: Sequence[str],
    part: str,
    fractions: Sequence[float],
    pairs: PairData,
    engine: str,
    *,
    json: bool,
) -> int:
    """Figures of each part, as a table or a document."""
    from gatewise.run import TranslateRun
    from gatewise.tasks.parallel import read_parallel_text

    if not isinstance(opened, TranslateRun):
        raise OptionError(
            f"{opened.path}: `gatewise eval` cannot measure runs of {opened.mapping!r}"
        )
    widths = widths_of(pairs.beams)
    check_new(pairs.out)
    read = read_parallel_text(
        list(data), source=pairs.source, target=pairs.target, fractions=fractions
    )
    for note in read.notes:
        screen.say(f"note: {note}")
    parts = read.parts if read.by_name or len(fractions) > 1 else {"text": read.parts["train"]}
    if part != "all":
        if part not in parts:
            raise unknown("part", part, parts)
        parts = {part: parts[part]}
    if opened.sides.target.lowercase:
        screen.say(
            "note: the run writes lower case: BLEU with case counts each capital as an error"
        )
    texts: list[str] = []
    figures = {}
    for name, each in parts.items():
        figures[name], own = _figures(opened, each, widths, pairs.length_penalty, engine)
        texts += own
    if pairs.out is not None:
        _write(pairs.out, texts)
    if json:
        document = {"run": str(opened.path), "step": opened.step, "parts": figures}
        screen.out_json(document)
    else:
        _show(figures)
    return 0


def widths_of(text: str) -> list[int]:
    """The widths of --beams."""
    try:
        widths = [int(each) for each in text.split(",")]
    except ValueError:
        widths = []
    if not widths or min(widths) < 1:
        raise OptionError(f"--beams: expected whole numbers from 1, with commas, found {text!r}")
    return widths


def _figures(
    opened: TranslateRun,
    pairs: Sequence[tuple[str, str]],
    widths: Sequence[int],
    length_penalty: float,
    engine: str,
) -> tuple[dict[str, Any], list[str]]:
    """What is measured on pairs, and the last translations."""
    from gatewise.metrics.texts import bleu, chrf

    figures: dict[str, Any] = {"pairs": len(pairs)}
    figures |= opened.evaluate(pairs, engine=engine).summary()
    sources, references = [one for one, _ in pairs], [one for _, one in pairs]
    texts: list[str] = []
    figures["searches"] = {}
    for width in widths:
        began = time.monotonic()
        found = opened.translate(sources, beams=width, length_penalty=length_penalty, engine=engine)
        texts = [" ".join(each[0].text.split()) for each in found]
        figures["searches"][str(width)] = {
            "bleu": bleu(texts, references).summary(),
            "bleu_lower": bleu(texts, references, lowercase=True).summary(),
            "bleu_words": bleu(
                cut(texts), cut(references), lowercase=True, tokenize="none"
            ).summary(),
            "chrf": chrf(texts, references).summary(),
            "seconds": time.monotonic() - began,
        }
    return figures, texts


def cut(texts: Sequence[str]) -> list[str]:
    """Texts with spaces between the words and marks of `gatewise.text.sides.sentence_words`.

    BLEU on them is what papers report that measure their own tokens; it is comparable with no other.
    """
    from gatewise.text.sides import sentence_words

    return [" ".join(sentence_words(text)) for text in texts]


def _show(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """A column for each part and width, and below the signatures."""
    columns = [(name, width) for name, each in figures.items() for width in each["searches"]]
    rows = [["", *(f"{n}, {'greedy' if w == '1' else f'{w} beams'}" for n, w in columns)]]
    rows.append(["pairs", *(f"{figures[n]['pairs']:,}" for n, _ in columns)])
    for key, words in (("nats_per_token", "nats/token"), ("perplexity", "perplexity")):
        rows.append([words, *(_number(figures[n][key], 4) for n, _ in columns)])
    signatures: dict[str, str] = {}
    for key, words in _SCORES.items():
        scores = [figures[n]["searches"][w][key] for n, w in columns]
        rows.append([words, *(_number(one["value"], 2) for one in scores)])
        signatures[words] = scores[0]["signature"]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(size) for cell, size in zip(row[1:], widths[1:], strict=True)]
        screen.out("  ".join([row[0].ljust(widths[0]), *cells]))
    for words, signature in signatures.items():
        screen.out(f"{words}: {signature}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _write(out: Path, texts: Sequence[str]) -> None:
    with new_text(out) as file:
        file.writelines(f"{text}\n" for text in texts)
