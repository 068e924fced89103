"""`gatewise eval` of a captioner: its captions beside those that cost nothing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.saving import check_new
from gatewise.errors import OptionError, unknown

if TYPE_CHECKING:
    from gatewise.run import CaptionRun
    from gatewise.tasks.captions import Captions

_METRICS = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "exact": "exact",
}
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class CaptionData:
    """Images or vectors with texts; of a run of `caption`. Not given: as in training."""

    images: str | None = None
    """Folder of the images."""

    split_files: tuple[str, ...] = ()
    """Files with the names of the images for train, valid and test, with commas between them."""

    features: str | None = None
    """Vectors of the images: a .npz of names and vectors."""


CaptionFlags = Annotated[CaptionData, Parameter(name="*", group="Captions")]


def evaluate_captions(
    opened: CaptionRun,
    data: Sequence[str],
    part: str,
    fractions: Sequence[float] | None,
    files: CaptionData,
    widths: Sequence[int],
    length_penalty: float,
    out: Path | None,
    engine: str,
    *,
    json: bool,
) -> int:
    """Scores of each part's captions, as a table or a document."""
    check_new(out)
    parts = _read(opened, data, fractions, files)
    names = [name for name in parts if name != "train"] or ["train"] if part == "all" else [part]
    for name in names:
        if name not in parts:
            raise unknown("part", name, parts)
    figures, results = {}, []
    for name in names:
        figures[name], own = _figures(opened, parts, name, widths, length_penalty, engine)
        results += own
    if out is not None:
        from gatewise.cli.caption import write_results

        write_results(out, results)
    if json:
        screen.out_json({"run": str(opened.path), "step": opened.step, "parts": figures})
    else:
        _show(figures)
    return 0


def _read(
    opened: CaptionRun, data: Sequence[str], fractions: Sequence[float] | None, files: CaptionData
) -> dict[str, tuple[Any, Captions]]:
    from gatewise.cli.train_caption import opened as opened_data
    from gatewise.tasks.described import CaptionDataOptions, scenes
    from gatewise.train import with_values

    if not data:
        screen.say("no data given: measuring on rendered scenes that the run has not seen")
        return scenes(opened.pixels)
    given = {k: v for k, v in dataclasses.asdict(files).items() if v}
    options = with_values(CaptionDataOptions(), opened.config.get("files", {}))
    options = with_values(options, given if fractions is None else given | {"fractions": fractions})
    found = opened_data(options, list(data), opened.pixels)
    for things, _ in found.values():
        if (things.ndim == 4) != opened.of_images:
            kinds = ("images", "vectors") if opened.of_images else ("vectors", "images")
            raise OptionError(f"expected {kinds[0]} for this run, found {kinds[1]}")
    return found


def _figures(
    opened: CaptionRun,
    parts: Mapping[str, tuple[Any, Captions]],
    name: str,
    widths: Sequence[int],
    length_penalty: float,
    engine: str,
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What is measured on a part, and the captions of the last width."""
    things, described = parts[name]
    references = [list(item.texts) for item in described.items]
    figures: dict[str, Any] = {"things": len(things)}
    figures |= opened.evaluate(things, references, engine=engine).summary()
    rows: dict[str, Any] = {}
    captions: list[str] = []
    for width in widths:
        began = time.monotonic()
        captions = _written(opened, things, width, length_penalty, engine)
        label = "greedy" if width == 1 else f"{width} beams"
        rows[label] = scored(captions, references) | {"seconds": time.monotonic() - began}
        _warn(captions, figures)
    if "train" in parts and name != "train":
        for label, texts in baselines(opened, *parts["train"], things).items():
            rows[label] = scored(texts, references)
    else:
        screen.say("no training part in the data: left out the baselines, which come from it")
    figures["captions"] = rows
    names = [item.name for item in described.items]
    return figures, list(zip(names, captions, strict=True))


def _written(
    opened: CaptionRun, things: Any, width: int, length_penalty: float, engine: str
) -> list[str]:
    found: list[str] = []
    for at in range(0, len(things), _AT_ONCE):
        several = opened.caption(
            list(things[at : at + _AT_ONCE]),
            beams=width,
            length_penalty=length_penalty,
            engine=engine,
        )
        found += [" ".join(each[0].text.split()) for each in several]
    return found


def scored(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The metrics of captions, and the share that is exactly one of its references, case aside."""
    from gatewise.metrics.baselines import plain
    from gatewise.metrics.captions import score_captions

    right = [
        plain(one) in map(plain, several) for one, several in zip(captions, references, strict=True)
    ]
    found: dict[str, Any] = score_captions(captions, references).summary()
    return found | {"exact": sum(right) / len(right)}


def baselines(
    opened: CaptionRun, known: Any, described: Captions, asked: Any
) -> dict[str, list[str]]:
    """Captions that cost nothing, of everything that is asked for."""
    from gatewise.metrics.baselines import most_frequent, nearest, thumbnails

    texts = [item.texts for item in described.items]
    found = {"most frequent caption": [most_frequent(texts)] * len(asked)}
    if known.ndim == 4:
        rows = nearest(thumbnails(asked), thumbnails(known))
        found["nearest image's, by pixels"] = [texts[k][0] for k in rows]
        pair = [opened.vectors(list(one)).numpy() for one in (asked, known)]
        rows = nearest(*pair)
        found["nearest image's, by the run's vector"] = [texts[k][0] for k in rows]
    else:
        spread = known.std(0)
        spread = spread + (spread == 0)
        rows = nearest(asked / spread, known / spread)
        found["nearest vector's"] = [texts[k][0] for k in rows]
    return found


def _warn(captions: Sequence[str], figures: dict[str, Any]) -> None:
    from gatewise.cli.caption import collapse_warning
    from gatewise.metrics.captions import collapse

    if same := collapse(captions):
        screen.say(collapse_warning(same, len(captions)))
        figures["collapsed"] = {"caption": same[0], "share": same[1]}


def _show(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """A table for each part: a row for the captions of each origin."""
    for name, each in figures.items():
        screen.out(
            f"{name}: {each['things']:,} things, {each['nats_per_token']:.4f} nats/token, "
            f"perplexity {each['perplexity']:.2f}"
        )
        rows = [["", *_METRICS.values(), ""]]
        for label, scores in each["captions"].items():
            cells = [f"{scores[key]:.3f}".rjust(len(words)) for key, words in _METRICS.items()]
            rows.append([label, *cells, ""])
        screen.out(screen.table(rows))
