"""What each unit is worth: the cost of a text without it, many units at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError, unknown
from gatewise.insight.marks import Marks, behind
from gatewise.modes import evaluating
from gatewise.probe import Control, Record
from gatewise.run import LanguageRun
from gatewise.types import State

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

BATCH, STEPS = 64, 128


@dataclass(frozen=True, eq=False)
class Ablation:
    """What holding each unit of one gate or state costs, in nats per token; the largest harm first.

    Args:
        path: layers.0.h.
        units: (K,), their numbers.
        change: (K,), mean change of the cost of a token.
        inside, outside: (K,), the same behind steps with a mark, and behind the others; None where none was given.
        before: the mean cost without it.
    """

    path: str
    units: Array
    change: Array
    inside: Array | None
    outside: Array | None
    before: float


def ablate(
    run: LanguageRun,
    text: str,
    path: str,
    *,
    units: Sequence[int] | None = None,
    value: float = 0.0,
    where: Marks | None = None,
    batch: int = BATCH,
    engine: str = "auto",
    told: Callable[[int], None] = lambda done: None,
) -> Ablation:
    """Hold each unit of a gate or state at a value all through a text, one after the other.

    The text is read by many columns side by side, each without another unit, and by one with all.

    Args:
        run: of a language model.
        text: at least two tokens; read from the start state.
        path: whole, such as layers.0.h.
        units: which. Default: all.
        value: what they are held at; 0: off.
        where: (N,), a mark of the tokens, to see apart what it costs behind them.
        batch: units at a time.
        engine: of the recurrent layers.
        told: called with the number of units that are done.
    Raises:
        DataError: the text is too short, or the mark is on all tokens or none.
        OptionError: there is no such unit, batch is less than 1, or the value is not finite.
        UnknownNameError: there is no such path.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise OptionError(f"batch: expected a whole number of 1 or more, found {batch!r}")
    if not np.isfinite(value):
        raise OptionError(f"value: expected a finite number, found {value}")
    ids = np.asarray(run.tokenizer.encode(text), np.int64)
    if len(ids) < 2:
        raise DataError(f"expected a text of at least two tokens, found {len(ids)}")
    side = None if where is None else behind(where, len(ids))
    tokens = torch.from_numpy(ids).to(run.model.device)
    width = _width(run, tokens, path)
    asked = np.arange(width) if units is None else np.asarray(units, np.int64)
    if len(asked) and not (asked.min() >= 0 and asked.max() < width):
        raise OptionError(f"units: expected numbers from 0 to {width - 1} of {path}")
    sums: list[Array] = []
    before = np.nan
    for begin in range(0, len(asked), batch):
        costs = _costs(run, tokens, path, asked[begin : begin + batch], width, value, engine)
        change = costs[:, 1:] - costs[:, :1]
        before = float(costs[:, 0].mean())
        sums.append(_means(change, side))
        told(min(begin + batch, len(asked)))
    found = np.concatenate(sums, axis=1) if sums else np.zeros((3, 0))
    order = np.argsort(-found[0])
    inside, outside = (None, None) if side is None else (found[1, order], found[2, order])
    return Ablation(path, asked[order], found[0, order], inside, outside, before)


def _means(change: Array, side: Marks | None) -> Array:
    """(3, K): over all tokens, behind the mark, elsewhere."""
    whole = change.mean(0)
    if side is None:
        return np.stack([whole, whole, whole])
    return np.stack([whole, change[side].mean(0), change[~side].mean(0)])


def _width(run: LanguageRun, tokens: Tensor, path: str) -> int:
    """Units of what has that path; it must be a whole one."""
    names = run.model.stack.names()
    if path not in names:
        raise unknown("path", path, names)
    with evaluating(run.model), torch.no_grad():
        out = run.model(tokens[:1, None], logits="none", record=Record(path))
    assert out.record is not None
    return int(out.record[path].shape[-1])


def _costs(
    run: LanguageRun,
    tokens: Tensor,
    path: str,
    units: Array,
    width: int,
    value: float,
    engine: str,
) -> Array:
    """(N - 1, 1 + units): the cost of each next token, without any control, then without each unit."""
    columns = 1 + len(units)
    weight = run.model.embedding.weight
    factor = weight.new_ones(columns, width)
    held = torch.from_numpy(units).to(weight.device)
    rows = torch.arange(1, columns, device=weight.device)
    factor[rows, held] = 0.0
    control = Control.scale(path, factor)
    if value:
        offset = torch.zeros_like(factor)
        offset[rows, held] = value
        control |= Control.add(path, offset)
    state: State = None
    found = []
    with evaluating(run.model), torch.no_grad():
        for begin in range(0, len(tokens) - 1, STEPS):
            part = tokens[begin : begin + STEPS + 1]
            given = part[:-1, None].expand(-1, columns).contiguous()
            out = run.model(
                given, state, logits="none", start=begin, engine=engine, control=control
            )
            state = out.state
            targets = part[1:, None].expand(-1, columns).contiguous()
            found.append(run.model.token_nats(out.h, targets).double().cpu())
    costs: Array = torch.cat(found).numpy()
    return costs
