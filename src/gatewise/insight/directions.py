"""Steering vectors: the direction in which a state differs between two sets of texts, added while a text is written.

v = mean of the state over the texts of one set - mean over those of the other (for transformers: Turner et al. 2023,
arXiv 2308.10248; Rimsky et al. 2024, arXiv 2312.06681). Half of each set makes the vector; the other half says
what it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError, unknown
from gatewise.modes import evaluating
from gatewise.probe import Control, Record, Records
from gatewise.run import LanguageRun
from gatewise.types import Index

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

WHERE = ("last", "mean")
BATCH, LONGEST = 32, 4_096


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction in a state or gate.

    Args:
        path: layers.1.h.
        vector: (units,), from the mean of the one set to that of the other.
        told_apart: share of the texts it was not made from that stand on the right side of the middle.
        held: how many texts that were, of each set.
    """

    path: str
    vector: Tensor
    told_apart: float
    held: tuple[int, int]

    def control(self, strength: float = 1.0, *, time: Index | None = None) -> Control:
        """Add `strength` times the vector.

        Args:
            strength: 1: as far as the sets lie apart; negative: the other way.
            time: at which steps; default: every one. What is added to a memory such as c stays there, so that
                at every step it piles up.
        """
        return Control.add(self.path, strength * self.vector, time=time)


def direction(
    run: LanguageRun,
    toward: Sequence[str],
    away: Sequence[str],
    path: str,
    *,
    where: str = "mean",
    engine: str = "auto",
) -> Direction:
    """The direction from the texts `away` to the texts `toward`.

    Texts 0, 2, 4, ... of each set make it; the others are what `told_apart` is counted on.

    Args:
        run: of a language model.
        toward, away: at least two texts each.
        path: whole, such as layers.1.h.
        where: the state after the "last" token of a text, or the "mean" over all its tokens.
        engine: of the recurrent layers.
    Raises:
        DataError: there are fewer texts, or one has no token or too many.
        OptionError: `where` is neither.
        UnknownNameError: there is no such path.
    """
    if where not in WHERE:
        raise OptionError(f"where: expected one of {', '.join(WHERE)}, found {where!r}")
    if path not in run.model.stack.names():
        raise unknown("path", path, run.model.stack.names())
    for texts in (toward, away):
        if len(texts) < 2:
            raise DataError(f"expected at least two texts on each side, found {len(texts)}")
    ones, others = (_read(run, texts, path, where, engine).double() for texts in (toward, away))
    vector = ones[::2].mean(0) - others[::2].mean(0)
    middle = float((ones[::2].mean(0) + others[::2].mean(0)) @ vector) / 2
    right = torch.cat((ones[1::2] @ vector > middle, others[1::2] @ vector < middle))
    held = (len(ones[1::2]), len(others[1::2]))
    return Direction(path, vector.float(), float(right.double().mean()), held)


def held_out(texts: Sequence[str]) -> Sequence[str]:
    """The texts of a set that a direction is not made from."""
    return texts[1::2]


def cost(
    run: LanguageRun, texts: Sequence[str], control: Control | None = None, *, engine: str = "auto"
) -> float:
    """Mean nats per token of texts, each read from the start state; those of one token count nothing.

    Raises:
        DataError: no text has two tokens.
    """
    total, count = 0.0, 0
    with evaluating(run.model), torch.no_grad():
        for tokens, lengths in _batches(run, texts):
            out = run.model(tokens, logits="none", lengths=lengths, engine=engine, control=control)
            nats = run.model.token_nats(out.h[:-1], tokens[1:]) if len(tokens) > 1 else None
            if nats is not None:
                asked = _valid(len(tokens) - 1, lengths - 1).to(nats.device)
                total += float(nats.double()[asked].sum())
                count += int(asked.sum())
    if not count:
        raise DataError("expected texts of at least two tokens, found none")
    return total / count


def _read(run: LanguageRun, texts: Sequence[str], path: str, where: str, engine: str) -> Tensor:
    """(N, units): the state of each text."""
    found = []
    with evaluating(run.model), torch.no_grad():
        for tokens, lengths in _batches(run, texts):
            out = run.model(
                tokens, logits="none", lengths=lengths, engine=engine, record=Record(path)
            )
            found.append(_one_each(out.record, path, lengths, where))
    return torch.cat(found)


def _one_each(record: Records | None, path: str, lengths: Tensor, where: str) -> Tensor:
    """(B, units) of a record (T, B, units)."""
    assert record is not None
    values = record[path].float().cpu()
    if where == "last":
        return values[lengths - 1, torch.arange(len(lengths))]
    mask = _valid(len(values), lengths).unsqueeze(-1)
    return torch.where(mask, values, 0).sum(0) / lengths.unsqueeze(-1)


def _valid(steps: int, lengths: Tensor) -> Tensor:
    """(T, B), true up to each column's length."""
    return torch.arange(steps).unsqueeze(1) < lengths


def _batches(run: LanguageRun, texts: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
    """Tokens (T, B) and lengths (B,), in the order of the texts."""
    rows: list[Array] = [np.asarray(run.tokenizer.encode(text), np.int64) for text in texts]
    for k, row in enumerate(rows):
        if not 1 <= len(row) <= LONGEST:
            raise DataError(f"text {k + 1}: expected 1 to {LONGEST:,} tokens, found {len(row):,}")
    found = []
    for begin in range(0, len(rows), BATCH):
        part = rows[begin : begin + BATCH]
        lengths = torch.tensor([len(row) for row in part])
        tokens = torch.zeros(int(lengths.max()), len(part), dtype=torch.int64)
        for column, row in enumerate(part):
            tokens[: len(row), column] = torch.from_numpy(row)
        found.append((tokens.to(run.model.device), lengths))
    return found
