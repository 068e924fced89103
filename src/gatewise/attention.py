"""Attention: a mean of a memory's steps, weighed by how well each fits a query. Knows tensors only.

    weights[t, b, s] = softmax over s of score(query[t, b], memory[s, b]),
    context[t, b]    = sum over s of weights[t, b, s] memory[s, b]

with one of three scores:

    additive:  v . tanh(W query + U memory)     (Bahdanau, Cho & Bengio 2015, arXiv 1409.0473, appendix A.1.2)
    general:   query . (U memory)               (Luong, Pham & Manning 2015, arXiv 1508.04025, eq. 8)
    dot:       query . memory / sqrt(width)     (the same, eq. 8; scaled as in Vaswani et al. 2017)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gatewise.errors import OptionError, ShapeError, unknown

KINDS = ("additive", "general", "dot")


@dataclass(frozen=True, eq=False)
class Memory:
    """What is attended to, prepared once for all queries.

    Args:
        values: (S, B, M).
        keys: what scores compare queries with, (S, B, K).
        valid: (S, B) bool, false in the padding; None: all of it is valid.
    """

    values: Tensor
    keys: Tensor
    valid: Tensor | None

    def select(self, index: Tensor) -> Memory:
        """Its columns `index` (B',), copied; repeats are allowed."""
        valid = None if self.valid is None else self.valid.index_select(1, index)
        return Memory(self.values.index_select(1, index), self.keys.index_select(1, index), valid)


class Attention(nn.Module):
    """Weights over a memory, and the mean that they give.

    Args:
        kind: "additive", "general" or "dot".
        query_size: width of a query.
        memory_size: width of a step of the memory; with "dot" the same.
        size: inner width of "additive"; default: the query's.
        device, dtype: of the weights.
    Raises:
        UnknownNameError: if there is no such kind.
        OptionError: if "dot" is given two widths.
    """

    def __init__(
        self,
        kind: str,
        query_size: int,
        memory_size: int,
        size: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("attention", kind, KINDS)
        if kind == "dot" and query_size != memory_size:
            raise OptionError(
                f"attention dot: expected queries as wide as the memory ({memory_size}), "
                f"found {query_size}: use general"
            )
        self.kind = kind
        width = query_size if size is None or kind != "additive" else size
        linear = partial(nn.Linear, device=device, dtype=dtype)
        self.keys = nn.Identity() if kind == "dot" else linear(memory_size, width, bias=False)
        self.query = linear(query_size, width) if kind == "additive" else None
        self.score = linear(width, 1, bias=False) if kind == "additive" else None
        self._scale = 1 / math.sqrt(width) if kind == "dot" else 1.0

    def prepare(self, values: Tensor, valid: Tensor | None = None) -> Memory:
        """The memory (S, B, M) as `forward` takes it; `valid` (S, B) is false in the padding."""
        if values.dim() != 3:
            raise ShapeError(f"expected a memory (S, B, M), found {tuple(values.shape)}")
        return Memory(values, self.keys(values), valid)

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Context (T, B, M) and weights (T, B, S) of the queries (T, B, Q).

        A column of which nothing is valid gets weights and a context of 0.
        """
        scores = self._scores(query, memory.keys)
        if memory.valid is None:
            weights = scores.softmax(-1)
        else:
            valid = memory.valid.t().unsqueeze(0)
            weights = scores.masked_fill(~valid, -torch.inf).softmax(-1)
            weights = weights.masked_fill(~valid, 0.0)  # and not NaN where nothing is valid
        values = memory.values.transpose(0, 1)
        context = torch.bmm(weights.to(values.dtype).transpose(0, 1), values)
        return context.transpose(0, 1), weights

    def _scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """(T, B, S), in float32 where the numbers are narrower."""
        if self.query is None or self.score is None:
            found = torch.bmm(query.transpose(0, 1), keys.permute(1, 2, 0)).transpose(0, 1)
            found = found * self._scale
        else:
            both = self.query(query).unsqueeze(2) + keys.transpose(0, 1).unsqueeze(0)
            found = self.score(both.tanh()).squeeze(-1)
        return found.float() if found.itemsize < 4 else found

    def extra_repr(self) -> str:
        return self.kind


def valid_steps(lengths: Tensor | None, steps: int) -> Tensor | None:
    """(S, B) bool: which steps of columns of those lengths are no padding."""
    if lengths is None:
        return None
    return torch.arange(steps, device=lengths.device).unsqueeze(1) < lengths.unsqueeze(0)


__all__ = ["KINDS", "Attention", "Memory", "valid_steps"]
