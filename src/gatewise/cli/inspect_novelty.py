"""`gatewise inspect novelty`: what a model learned by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.generate import check_novelty, novelty_document, novelty_text
from gatewise.cli.options import Json
from gatewise.cli.runs import Drawing, Opening, OpeningFlags, RunPath, open_run, sampling, whole
from gatewise.errors import DataError


def inspect_novelty(
    run: RunPath,
    data: Annotated[
        list[str], Parameter(allow_leading_hyphen=True, help="The text that it was trained on.")
    ],
    /,
    *,
    sample: Annotated[
        Path | None, Parameter(help="Check this text instead of one drawn from the run.")
    ] = None,
    characters: Annotated[int, Parameter(help="Length of the text to draw.")] = 2000,
    temperature: Annotated[float, Parameter(help="At which it is drawn.")] = 1.0,
    seed: Annotated[int, Parameter(help="With which it is drawn.")] = 1,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """How much a model copies; `gatewise inspect novelty --help` says more."""
    options = sampling(
        Drawing(max_characters=characters, seed=seed),
        temperature=temperature,
        max_tokens=max(1, characters),
    )
    if sample is None:
        opened = open_run(run, opening, "generate")
        (drawn,) = opened.completer(engine=opening.engine).start("", options).run()
        text = drawn.text
    else:
        text = _read(sample)
    report = check_novelty([text], data)
    if json:
        screen.out_json({"characters": len(text)} | novelty_document(report))
    else:
        screen.out(f"{len(text):,} characters\n{novelty_text(report)}")
    return 0


def _read(path: Path) -> str:
    try:
        return whole(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise DataError(f"{path}: cannot read --sample: {error.strerror}") from None
