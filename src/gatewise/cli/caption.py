"""`gatewise caption`: images, or vectors, through a captioner."""

from __future__ import annotations

import json as json_module
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.options import Json, with_flag_names
from gatewise.cli.runs import ControlFile, Opening, OpeningFlags, RunPath, open_as, read_control
from gatewise.cli.saving import check_new, new_text
from gatewise.cli.translate import Search, SearchFlags
from gatewise.errors import DataError, OptionError

if TYPE_CHECKING:
    from gatewise.run import Caption, CaptionRun

_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class People:
    """What people say of captions."""

    rate: Annotated[bool, Parameter(negative="")] = False
    """Ask, caption by caption, for one of the lecture's four levels; the answers go to --ratings."""

    ratings: Path | None = None
    """A file of ratings (JSONL); with --html the gallery is grouped by them. Default of --rate: ratings.jsonl."""

    rater: str | None = None
    """The name that --rate keeps ratings under; default: yours on this machine."""


PeopleFlags = Annotated[People, Parameter(name="*", group="People")]


@dataclass(frozen=True)
class Captioned:
    """One thing, its captions, and what was read of it."""

    name: str
    thing: Any
    captions: list[Caption]


def caption(
    run: RunPath,
    things: Annotated[
        list[str],
        Parameter(
            allow_leading_hyphen=True,
            help="Images, folders of images, or for a run on vectors a table of them (.npz, .csv, .jsonl).",
        ),
    ],
    /,
    *,
    html: Annotated[
        Path | None,
        Parameter(help="Write a page of the images with their captions, best score first."),
    ] = None,
    plot: Annotated[
        Path | None,
        Parameter(help="Draw the images with their captions, best score first (.png, .svg, .pdf)."),
    ] = None,
    out: Annotated[
        Path | None,
        Parameter(
            help='Write the captions as [{"image_id": .., "caption": ..}], as COCO\'s tools read it.'
        ),
    ] = None,
    people: PeopleFlags = People(),
    search: SearchFlags = Search(),  # noqa: B008
    opening: OpeningFlags = Opening(),  # noqa: B008
    control: ControlFile = None,
    json: Json = False,
) -> int:
    """Caption images with a trained model.

    An image gives a line; with -n several, with their probabilities. Images that cannot be read are named and
    skipped.
    """
    from gatewise.cli import gallery, plots, rating
    from gatewise.run import CaptionRun

    sampling = search.sampling()
    rater = rating.rater_of(people.rater) if people.rate else ""
    if html is not None:
        gallery.check(html)
    if plot is not None:
        plots.check(plot)
    check_new(out)
    acting = read_control(control)
    opened = open_as(CaptionRun, run, opening, "caption")
    options: dict[str, Any] = {
        "n": search.n,
        "beams": search.beams,
        "length_penalty": search.length_penalty,
        "max_tokens": search.max_tokens,
        "sampling": sampling,
        "control": acting,
        "engine": opening.engine,
    }
    read, skipped = read_things(opened, things)
    for one in skipped:
        screen.say(f"skipped: {one}")
    if not read:
        raise DataError(f"expected something to caption, found none of {len(skipped):,} readable")
    try:
        found = _captioned(opened, read, options)
    except OptionError as error:
        raise with_flag_names(error, options) from None
    _warn(found)
    if out is not None:
        write_results(out, [(one.name, one.captions[0].text) for one in found])
    if people.rate:
        _rate(people.ratings or rating.DEFAULT, rater, found)
    elif json:
        screen.out_json({"captions": [_document(one) for one in found], "skipped": skipped})
    elif html is None and out is None and plot is None:
        _show(found)
    if html is not None:
        _write_gallery(html, opened, found, people.ratings)
    if plot is not None:
        _draw(plot, opened, found)
    return 0


def read_things(
    opened: CaptionRun, given: Sequence[str]
) -> tuple[list[tuple[str, Any]], list[str]]:
    """(name, image or vector) of all that can be read, and a line for each that cannot."""
    if not opened.of_images:
        return _vectors(opened, given)
    from gatewise.tasks.captions import IMAGES, open_image

    found, skipped = [], []
    for one in given:
        path, files = Path(one), [Path(one)]
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGES)
            if not files:
                skipped.append(f"{path}: expected images in the folder, found none")
        for file in files:
            try:
                found.append((str(file), open_image(file, opened.pixels)))
            except DataError as error:
                skipped.append(str(error))
    return found, skipped


def _vectors(opened: CaptionRun, given: Sequence[str]) -> tuple[list[tuple[str, Any]], list[str]]:
    from gatewise.tasks.vectors import read_rows

    width, found, skipped = opened.model.config.vector_size, [], []
    files = opened.config.get("files", {})
    for one in given:
        names, vectors, left_out = read_rows(one, (files.get("text"), files.get("split")))
        skipped += left_out
        if vectors.shape[1] != width:
            raise DataError(f"{one}: expected vectors of {width} numbers, found {vectors.shape[1]}")
        found += [(f"{one}, {name}", row) for name, row in zip(names, vectors, strict=True)]
    return found, skipped


def _captioned(
    opened: CaptionRun, read: Sequence[tuple[str, Any]], options: dict[str, Any]
) -> list[Captioned]:
    found = []
    for at in range(0, len(read), _AT_ONCE):
        part = read[at : at + _AT_ONCE]
        several = opened.caption([thing for _, thing in part], **options)
        found += [Captioned(n, t, each) for (n, t), each in zip(part, several, strict=True)]
    return found


def _warn(found: Sequence[Captioned]) -> None:
    from gatewise.metrics.captions import collapse

    if same := collapse([one.captions[0].text for one in found]):
        screen.say(collapse_warning(same, len(found)))


def collapse_warning(same: tuple[str, float], count: int) -> str:
    """What to say of a model that gives everything one caption."""
    text, share = same
    return (
        f"warning: {share:.0%} of {count:,} got the same caption, {screen.shown(text)!r}: the model has "
        "collapsed; train it longer, on more data, or with a lower --lr"
    )


def _show(found: Sequence[Captioned]) -> None:
    single = len(found) == 1
    for one in found:
        if len(one.captions) == 1:
            text = " ".join(one.captions[0].text.split())
            screen.result(text if single else f"{one.name}\t{text}")
            continue
        if not single:
            screen.result(one.name)
        rows = [
            [str(k), screen.percent(math.exp(each.logprob)).rjust(7), screen.shown(each.text)]
            for k, each in enumerate(one.captions, 1)
        ]
        screen.out(screen.table(rows, indent="" if single else "  "))


def _document(one: Captioned) -> dict[str, Any]:
    return {
        "image_id": one.name,
        "caption": one.captions[0].text,
        "captions": [
            {
                "text": each.text,
                "logprob": each.logprob,
                "probability": math.exp(each.logprob),
                "score": each.score,
                "tokens": each.tokens,
                "token_logprobs": each.token_logprobs,
                "finish_reason": each.finish_reason,
            }
            for each in one.captions
        ],
    }


def write_results(out: Path, captions: Sequence[tuple[str, str]]) -> None:
    """Captions in COCO's result format, into a new file."""
    document = [{"image_id": name, "caption": text} for name, text in captions]
    with new_text(out) as file:
        json_module.dump(document, file, ensure_ascii=False, indent=1)
        file.write("\n")


def _rate(path: Path, rater: str, found: Sequence[Captioned]) -> None:
    from gatewise.cli import rating
    from gatewise.metrics.ratings import RatingTable

    count = rating.ask(path, rater, [(one.name, one.captions[0].text) for one in found])
    screen.say(f"\nsaved: {count:,} ratings by {rater} in {path}")
    if ratings := rating.known(path):
        screen.out(rating.summary_table(RatingTable.of(ratings).summary()))


def _draw(path: Path, opened: CaptionRun, found: Sequence[Captioned]) -> None:
    from gatewise.cli import plots

    if not opened.of_images:
        raise OptionError("--plot: draws images, this run has vectors")
    best = sorted(found, key=lambda one: -one.captions[0].score)
    plots.images(path, [one.thing for one in best], [one.captions[0].text for one in best])
    screen.say(f"drawn: {path}")


def _write_gallery(
    path: Path, opened: CaptionRun, found: Sequence[Captioned], ratings: Path | None
) -> None:
    from gatewise.cli import gallery, rating
    from gatewise.metrics.ratings import RatingTable

    levels: dict[tuple[str, str], float] = {}
    if ratings is not None:
        table = RatingTable.of(rating.known(ratings))
        levels = dict(zip(table.captions, table.means.tolist(), strict=True))
    cards = [
        gallery.Card(
            one.name,
            [(each.text, each.logprob) for each in one.captions],
            one.captions[0].score,
            one.thing if opened.of_images else None,
            levels.get((one.name, one.captions[0].text)),
        )
        for one in found
    ]
    gallery.write(path, f"{len(found):,} captions by {opened.path.parent.parent.name}", cards)
