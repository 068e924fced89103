"""`gatewise inspect ratings`: what people said of captions, how far they agree, and which metric agrees with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.options import Json
from gatewise.errors import DataError

if TYPE_CHECKING:
    from gatewise.metrics.ratings import Rating, RatingTable

METRICS = {
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
}


def inspect_ratings(
    files: Annotated[
        list[Path],
        Parameter(
            help="Ratings (JSONL, of `gatewise caption --rate`), of one person or several; or Flickr8k's "
            "ExpertAnnotations.txt."
        ),
    ],
    /,
    *,
    references: Annotated[
        Path | None,
        Parameter(
            help="The images' own captions, in any format of `gatewise train caption`: how each metric "
            "goes with people is measured on them. The images need not be there."
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Ratings of captions; `gatewise inspect ratings --help` says more."""
    from gatewise.metrics.ratings import RatingTable, correlations
    from gatewise.tasks.captions import read_captions

    table = RatingTable.of([one for path in files for one in _ratings(path)])
    document: dict[str, Any] = {"ratings": table.summary()}
    several = len(table.raters) > 1
    document["agreement"] = table.agreement() if several else None
    if references is not None:
        described = read_captions(references, bare=True)
        texts = {item.name: list(item.texts) for item in described.items}
        rows, pairs = _pairs(table, texts)
        scores = scores_of(pairs, texts)
        people = table.means[rows].tolist()
        document["correlations"] = {"captions": len(rows)} | correlations(
            {name: scores[name] for name in METRICS}, people
        )
        if len(rows) < len(table.captions):
            screen.say(
                f"left out: {len(table.captions) - len(rows):,} captions of images without references"
            )
    if json:
        screen.out_json(document)
    else:
        _show(document, table)
    return 0


def _ratings(path: Path) -> list[Rating]:
    from gatewise.metrics.ratings import read_expert_annotations, read_ratings

    try:
        with open(path, encoding="utf-8") as file:
            first = next((line for line in file if line.strip()), "")
    except (OSError, UnicodeDecodeError):
        first = ""  # the reader says what is wrong
    tabs = "\t" in first and not first.lstrip().startswith("{")
    return read_expert_annotations(path) if tabs else read_ratings(path)


def _pairs(
    table: RatingTable, texts: Mapping[str, Sequence[str]]
) -> tuple[list[int], list[tuple[str, str]]]:
    """The rows whose image has references, and (image, caption) of each; ids become texts."""
    by_end = {Path(name).name: name for name in texts}
    rows, pairs = [], []
    for k, (item, caption) in enumerate(table.captions):
        name = item if item in texts else by_end.get(Path(item).name)
        text = _text(caption, texts)
        if name is not None and text is not None:
            rows.append(k)
            pairs.append((name, text))
    if len(rows) < 2:
        raise DataError(
            f"--references: expected captions of the images that were rated, found those of {len(rows)} "
            f"of {len(table.captions):,}, such as {table.captions[0][0]!r}"
        )
    return rows, pairs


def _text(caption: str, texts: Mapping[str, Sequence[str]]) -> str | None:
    """The caption itself, or that of an id such as a.jpg#2."""
    name, mark, number = caption.rpartition("#")
    if not mark or not number.isdecimal():
        return caption
    if name not in texts:
        return None if name.lower().endswith((".jpg", ".png")) else caption
    own = texts[name]
    return own[int(number)] if int(number) < len(own) else None


def scores_of(
    pairs: Sequence[tuple[str, str]], texts: Mapping[str, Sequence[str]]
) -> dict[str, list[float]]:
    """The metrics of each (image, caption), the caption itself not among the references."""
    from gatewise.metrics.captions import DocumentFrequencies, score_captions, tokenize

    references = []
    for name, text in pairs:
        others = list(texts[name])
        if text in others and len(others) > 1:
            others.remove(text)
        references.append(others)
    images = sorted({name for name, _ in pairs})
    weights = DocumentFrequencies([tokenize(one) for one in texts[name]] for name in images)
    return score_captions([text for _, text in pairs], references, weights).each


def _show(document: Mapping[str, Any], table: RatingTable) -> None:
    from gatewise.cli.rating import summary_table

    screen.out(summary_table(document["ratings"]))
    if len(table.raters) > 1:
        rows = [
            [name, *map(str, counts)] for name, counts in document["ratings"]["by_rater"].items()
        ]
        screen.out(screen.table([["rater", "4", "3", "2", "1"], *rows]))
        alpha = document["agreement"]
        shown = "not known: nothing was rated twice" if math.isnan(alpha) else f"{alpha:.3f}"
        screen.out(f"agreement (Krippendorff's alpha, ordinal): {shown}")
    if "correlations" in document:
        found = document["correlations"]
        rows = [["metric", "tau-b", "tau-c", "Spearman"]]
        for name, words in METRICS.items():
            rows.append([words, *(f"{found[name][k]:.3f}" for k in ("tau_b", "tau_c", "spearman"))])
        screen.out(f"correlation with the mean level, {found['captions']:,} captions:")
        screen.out(screen.table(rows))
