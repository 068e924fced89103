"""`gatewise inspect lens`: what the decoder would say from each layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.inspecting import check_least, check_times, given_text, say_unknown
from gatewise.cli.options import Json, with_flag_names
from gatewise.cli.runs import (
    ControlFile,
    Opening,
    OpeningFlags,
    RunPath,
    open_run,
    prompt_text,
    read_control,
)
from gatewise.cli.saving import check_new, save_arrays
from gatewise.errors import OptionError

if TYPE_CHECKING:
    from gatewise.insight import Fitted, Lens, Said
    from gatewise.run import LanguageRun

MOST = 200_000
"""Characters that the maps are fitted on."""


def inspect_lens(
    run: RunPath,
    text: Annotated[
        str, Parameter(allow_leading_hyphen=True, help="What is read; - reads standard input.")
    ],
    /,
    *,
    top: Annotated[int, Parameter(help="Tokens named at each step, in --json and --out.")] = 3,
    fit: Annotated[
        Path | None,
        Parameter(help="A text: fit a linear map from each lower layer into the last one's basis."),
    ] = None,
    gate: Annotated[str, Parameter(help="The output gate that is opened.")] = "o",
    out: Annotated[
        Path | None, Parameter(help="Save ids, probabilities and nats of each as .npz.")
    ] = None,
    opening: OpeningFlags = Opening(),  # noqa: B008
    control: ControlFile = None,
    json: Json = False,
) -> int:
    """What the decoder would say; `gatewise inspect lens --help` says more."""
    check_new(out, endings=(".npz",))
    check_least(top=(top, 1))
    acting = read_control(control)
    opened = open_run(run, opening, "read")
    from gatewise import insight

    read, engine = prompt_text(text) or "", opening.engine
    check_times(acting, len(opened.tokenizer.encode(read)))
    fitted = None if fit is None else insight.fit(opened, given_text(str(fit), MOST), engine=engine)
    try:
        found = insight.lens(
            opened, read, top=top, control=acting, gate=gate, fitted=fitted, engine=engine
        )
    except OptionError as error:
        raise with_flag_names(error, ("top",)) from None
    say_unknown(opened, read)
    for note in found.notes:
        screen.say(f"note: {note}")
    if out is not None:
        names = ("ids", "probabilities", "nats", "agrees")
        arrays = {
            f"{path}/{n}": getattr(said, n) for path, said in found.said.items() for n in names
        }
        save_arrays(out, {"ids": found.ids} | arrays)
    if json:
        screen.out_json(_document(opened, read, found, fitted))
    else:
        screen.out(_table(opened, found, fitted))
    return 0


def _table(run: LanguageRun, found: Lens, fitted: Fitted | None) -> str:
    """A line for each token: what was read, what is said next from each value; means below."""
    tokens = run.tokenizer.tokens
    rows = [["", "read", *found.said]]
    for time, read in enumerate(found.ids.tolist()):
        said = [
            f"{screen.token(tokens[one.ids[time, 0]], limit=12)} {one.probabilities[time, 0]:.2f}"
            for one in found.said.values()
        ]
        rows.append([str(time), screen.token(tokens[read], limit=12), *said])
    rows.append(["", "nats/token", *(_mean(one) for one in found.said.values())])
    rows.append(["", "agrees", *(f"{one.agrees.mean():.2f}" for one in found.said.values())])
    lines = screen.folded(rows, labels=2)
    lines += "\nagrees: share of the steps at which it says what the last layer says"
    for path, share in ({} if fitted is None else fitted.explained).items():
        lines += f"\n{path}: the fitted map gives {100 * share:.0f} % of the last layer's variance"
    return lines


def _mean(said: Said) -> str:
    return f"{said.nats[:-1].mean():.3f}" if len(said.nats) > 1 else "-"


def _document(run: LanguageRun, text: str, found: Lens, fitted: Fitted | None) -> dict[str, Any]:
    import numpy as np

    tokens = np.asarray(run.tokenizer.tokens, object)
    return {
        "run": str(run.path),
        "text": text,
        "tokens": tokens[found.ids].tolist(),
        "said": {
            path: {
                "tokens": tokens[said.ids].tolist(),
                "probabilities": said.probabilities,
                "nats": said.nats,
                "agrees": said.agrees,
            }
            for path, said in found.said.items()
        },
        "explained": None if fitted is None else fitted.explained,
        "notes": list(found.notes),
    }
