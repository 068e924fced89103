"""Patching: states that another text left behind, put into a model that has read this one.

Where the model then writes what the other text would have been continued with, what was put in carries it
(for causal tracing see Vig et al. 2020, arXiv 2004.12265; Meng et al. 2022, arXiv 2202.05262).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gatewise.errors import DataError, OptionError, unknown
from gatewise.probe import Control, Record
from gatewise.run import LanguageRun

OWN, OTHER = "as it is", "the other text"


@dataclass(frozen=True, eq=False)
class Patched:
    """What is written with a part of the state patched.

    Args:
        name: what was patched: "layers.0.c", ..., "all", or `OWN` and `OTHER`, where nothing is.
        control: that does it; None where nothing is patched.
        text: what is written.
        own: nats per token of what is written as it is; other: of what the other text is continued with.
    """

    name: str
    control: Control | None
    text: str
    own: float
    other: float

    @property
    def moved(self) -> bool:
        """Whether the other text's continuation has become the more probable one."""
        return self.other < self.own


def patch_control(
    run: LanguageRun,
    prompt: str,
    other: str,
    paths: Sequence[str],
    *,
    at: int | None = None,
    taken: int | None = None,
    units: Sequence[int] | None = None,
    engine: str = "auto",
) -> Control:
    """What is in the paths after a token of `other`, set at a token of `prompt`.

    Args:
        run: of a language model.
        prompt, other: texts of at least one token.
        paths: whole, such as layers.0.c.
        at: the token of `prompt` at which the values are set, from 0; default: its last.
        taken: the token of `other` after which they are taken; default: its last.
        units: which; default: all.
        engine: of the recurrent layers.
    Raises:
        DataError: a text has no token.
        OptionError: there is no such token or unit.
        UnknownNameError: there is no such path.
    """
    known = run.model.stack.names()
    for path in paths:
        if path not in known:
            raise unknown("path", path, known)
    time = _token(run, prompt, at, "at", "the text")
    time_of_other = _token(run, other, taken, "taken", "the other text")
    record = run.read(other, record=Record(*paths), engine=engine).record
    assert record is not None
    control = Control()
    for path in paths:
        value = record[path][time_of_other, 0].clone()
        if units is not None:
            if len(units) == 0 or not 0 <= min(units) <= max(units) < len(value):
                raise OptionError(f"units: expected numbers from 0 to {len(value) - 1} of {path}")
            value = value[torch.as_tensor(list(units))]
        places = None if units is None else list(units)
        control |= Control.patch(path, value, units=places, time=time)
    return control


def patch(
    run: LanguageRun,
    prompt: str,
    other: str,
    *,
    paths: Sequence[str] | None = None,
    at: int | None = None,
    taken: int | None = None,
    units: Sequence[int] | None = None,
    max_tokens: int = 40,
    engine: str = "auto",
) -> list[Patched]:
    """Patch each path alone and all together, and see whose continuation is written.

    What both texts are continued with as they are, the most probable token each time, is written first; then,
    with each patch, the text that is written and what both of these cost.

    Args:
        run, prompt, other, at, taken, units: as for `patch_control`.
        paths: which; default: every state of every layer.
        max_tokens: length of what is written.
        engine: of the recurrent layers.
    Raises:
        As `patch_control`; OptionError if `max_tokens` is less than 1.
    """
    if paths is None:
        paths = state_paths(run)
    _token(run, prompt, at, "at", "the text")
    _token(run, other, taken, "taken", "the other text")
    own = _written(run, prompt, None, max_tokens, engine)
    others = _written(run, other, None, max_tokens, engine)
    if not own or not others:
        raise DataError("expected texts that the model goes on with, found one after which it ends")

    def row(name: str, read: str, control: Control | None, text: str) -> Patched:
        costs = [_cost(run, read, each, control, engine) for each in (own, others)]
        return Patched(name, control, text, costs[0], costs[1])

    rows = [row(OWN, prompt, None, own), row(OTHER, other, None, others)]
    patches: list[tuple[str, tuple[str, ...]]] = [(path, (path,)) for path in paths]
    if len(paths) > 1:
        patches.append(("all", tuple(paths)))
    for name, each in patches:
        control = patch_control(
            run, prompt, other, each, at=at, taken=taken, units=units, engine=engine
        )
        text = _written(run, prompt, control, max_tokens, engine)
        rows.append(row(name, prompt, control, text))
    return rows


def state_paths(run: LanguageRun) -> list[str]:
    """Every state of every layer, as the next step finds it."""
    stack = run.model.stack
    states = stack.directions()[0].law.states
    named = ["proj" if state == "h" and stack.proj_size else state for state in states]
    return [f"layers.{layer}.{name}" for layer in range(stack.num_layers) for name in named]


def _token(run: LanguageRun, text: str, index: int | None, option: str, what: str) -> int:
    count = len(run.tokenizer.encode(text))
    if not count:
        raise DataError(f"{what}: expected at least one token, found none")
    found = count - 1 if index is None else index
    if not 0 <= found < count:
        raise OptionError(
            f"{option}: expected a token of {what}, from 0 to {count - 1}, found {found}"
        )
    return found


def _written(
    run: LanguageRun, prompt: str, control: Control | None, max_tokens: int, engine: str
) -> str:
    """The most probable token each time."""
    continuation = run.generate(
        prompt, control=control, engine=engine, max_tokens=max_tokens, temperature=0.0
    )
    return continuation.run()[0].text


def _cost(run: LanguageRun, prompt: str, text: str, control: Control | None, engine: str) -> float:
    """Nats per token of `text` behind `prompt`."""
    before = run.tokenizer.encode(prompt)
    ids = np.concatenate((before, run.tokenizer.encode(text)))
    stream = run.stream(control=control, engine=engine)
    scores = stream.push(ids)[len(before) - 1 : -1, 0].double().log_softmax(-1).cpu()
    target = torch.from_numpy(np.asarray(ids[len(before) :], np.int64))
    return float(-scores.gather(1, target.unsqueeze(1)).mean())
