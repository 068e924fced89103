"""`gatewise inspect steer`: what a model writes with a control, beside what it writes without."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.inspecting import check_times, decimals, indices, say_unknown
from gatewise.cli.options import Json
from gatewise.cli.runs import (
    Opening,
    OpeningFlags,
    RunPath,
    open_run,
    prompt_text,
    read_control,
    sampling,
)
from gatewise.cli.saving import check_new, new_text
from gatewise.errors import OptionError

if TYPE_CHECKING:
    from gatewise.cli.runs import Drawing
    from gatewise.probe import Control
    from gatewise.run import LanguageRun

OPERATIONS = ("on", "off", "set", "scale", "add", "keep", "reset", "write")
_MEMORY = ("keep", "reset", "write")
_VALUED = ("set", "scale", "add")


def inspect_steer(
    run: RunPath,
    prompt: Annotated[
        str,
        Parameter(allow_leading_hyphen=True, help="What is continued; - reads standard input."),
    ],
    /,
    *,
    do: Annotated[
        str | None,
        Parameter(help=f"{', '.join(OPERATIONS)}; keep, reset and write are of the memory."),
    ] = None,
    name: Annotated[
        str | None, Parameter(help="Of on, off, set, scale, add: the gate or state: o, layers.0.c.")
    ] = None,
    value: Annotated[
        float | None, Parameter(help="Of set, scale and add.", allow_leading_hyphen=True)
    ] = None,
    layer: Annotated[int | None, Parameter(help="In which layer. Default: all.")] = None,
    units: Annotated[
        str | None, Parameter(help="Which units, with commas: 3,17 or 0:8. Default: all.")
    ] = None,
    time: Annotated[
        str | None,
        Parameter(
            help="At which tokens, from the beginning of the prompt: 5 or 10:20. Default: all."
        ),
    ] = None,
    control: Annotated[
        Path | None, Parameter(help="Instead: a file with a Control as JSON.")
    ] = None,
    sweep: Annotated[
        str | None,
        Parameter(
            help="Several values instead of --value, with commas: 0,0.5,1.",
            allow_leading_hyphen=True,
        ),
    ] = None,
    save: Annotated[
        Path | None,
        Parameter(
            help="Write the control (of a sweep the last) as JSON, for --control of other verbs."
        ),
    ] = None,
    max_tokens: Annotated[int, Parameter(help="Length of what is written.")] = 80,
    temperature: Annotated[float, Parameter(help="0: the most probable token each time.")] = 0.0,
    seed: Annotated[int, Parameter(help="Of what is drawn, the same for all.")] = 1,
    opening: OpeningFlags = Opening(),  # noqa: B008
    json: Json = False,
) -> int:
    """What a control does; `gatewise inspect steer --help` says more."""
    from gatewise.cli.runs import Drawing

    check_new(save, "--save")
    places = (layer, indices("--units", units), indices("--time", time))
    controls = _controls(read_control(control), do, name, value, places, sweep)
    given = {"layer": layer, "units": units, "time": time}
    where = ", ".join(f"{word} {said}" for word, said in given.items() if said is not None)
    controls = [(f"{label} ({where})" if where else label, one) for label, one in controls]
    drawing = Drawing(seed=seed)
    opened = open_run(run, opening, "generate")
    text = prompt_text(prompt) or ""
    say_unknown(opened, text)
    tokens = len(opened.tokenizer.encode(text)) + max_tokens
    for _, one in controls:
        check_times(one, tokens)
    written = [_written(opened, text, None, "as it is", drawing, max_tokens, temperature, opening)]
    for label, one in controls:
        written.append(
            _written(opened, text, one, label, drawing, max_tokens, temperature, opening)
        )
    if save is not None:
        with new_text(save) as file:
            file.write(controls[-1][1].to_json() + "\n")
    if json:
        screen.out_json({"run": str(opened.path), "prompt": text, "texts": written})
    else:
        for row in written:
            cost = row["nats_per_token"]
            read = "" if cost is None else f", the prompt costs {cost:.3f} nats/token"
            screen.out(f"--- {row['label']}{read}")
            screen.result(text + row["text"])
    return 0


def _controls(
    given: Control | None,
    do: str | None,
    name: str | None,
    value: float | None,
    places: tuple[Any, Any, Any],
    sweep: str | None,
) -> list[tuple[str, Control]]:
    """What is compared with the model as it is, each with its name."""
    if given is not None:
        where = dict(zip(("--layer", "--units", "--time"), places, strict=True))
        extra = {"--do": do, "--name": name, "--value": value, "--sweep": sweep} | where
        for flag, one in extra.items():
            if one is not None:
                raise OptionError(f"--control: the file says all of it; leave {flag} out")
        return [("with the control", given)]
    if do not in OPERATIONS:
        raise OptionError(
            f"--do: expected one of {', '.join(OPERATIONS)} (or --control FILE), found {do or 'none'}"
        )
    if do in _MEMORY and name is not None:
        raise OptionError(f"--name: {do} is of the whole memory; leave it out")
    if do not in _MEMORY and name is None:
        raise OptionError(
            f"--name: expected the gate or state for {do}, such as o or layers.0.c, found none"
        )
    if do not in _VALUED:
        if value is not None or sweep is not None:
            raise OptionError(f"--value and --sweep: {do} takes none; leave them out")
        return [(f"{do} {name}" if name else f"memory {do}", _control(do, name, None, places))]
    values = [value] if sweep is None else decimals("--sweep", sweep)
    if values == [None] or (sweep is not None and value is not None):
        raise OptionError(f"--value or --sweep: expected one of the two for {do}")
    if value is not None and not math.isfinite(value):
        raise OptionError(f"--value: expected a finite number, found {value}")
    return [
        (f"{do} {name} {one:g}", _control(do, name, one, places))
        for one in values
        if one is not None
    ]


def _control(
    do: str, name: str | None, value: float | None, places: tuple[Any, Any, Any]
) -> Control:
    from gatewise.probe import Control

    where = dict(zip(("layer", "units", "time"), places, strict=True))
    arguments = [one for one in (name, value) if one is not None]
    made: Control = getattr(Control, do)(*arguments, **where)
    return made


def _written(
    run: LanguageRun,
    prompt: str,
    control: Control | None,
    label: str,
    drawing: Drawing,
    max_tokens: int,
    temperature: float,
    opening: Opening,
) -> dict[str, Any]:
    """A text, and what the prompt costs read under the same control."""
    options = sampling(drawing, n=1, max_tokens=max_tokens, temperature=temperature)
    (found,) = run.completer(control=control, engine=opening.engine).start(prompt, options).run()
    cost = math.nan
    if len(run.tokenizer.encode(prompt)) > 1:
        cost = run.read(prompt, control=control, engine=opening.engine).nats_per_token
    return {
        "label": label,
        "control": None if control is None else control.to_json(),
        "text": found.text,
        "nats_per_token": cost if math.isfinite(cost) else None,
    }
