"""From the outputs of all steps to one vector: the Dec of a sequence -> vector mapping reads this.

Each readout is one function of h (T, B, H) and of which steps are valid; `over_time` is the same for every
prefix, so that a prediction can be followed as the sequence is read.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gatewise.errors import unknown


class Readout(nn.Module):
    """One vector (B, H) of h (T, B, H).

    Args:
        kind: "last" (both directions end at their own last step), "mean", "max", or "attention": the
            mean weighed by softmax over time of v . tanh(W h + b) (Yang et al. 2016, "Hierarchical
            attention networks for document classification", eq. 5 to 7).
        size: H.
        backward: how many of the H units read from the end to the start; they stand last.
        device: of the weights.
    Raises:
        UnknownNameError: if there is no such kind.
    """

    def __init__(
        self, kind: str, size: int, backward: int = 0, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        if kind not in READOUTS:
            raise unknown("readout", kind, READOUTS)
        self.kind, self.size, self.backward = kind, size, backward
        self.inner = nn.Linear(size, size, device=device) if kind == "attention" else None
        self.score = nn.Linear(size, 1, bias=False, device=device) if kind == "attention" else None

    def forward(self, h: Tensor, valid: Tensor) -> tuple[Tensor, Tensor | None]:
        """The vector (B, H), and the weights (T, B) where the readout has any.

        Args:
            h: outputs, (T, B, H).
            valid: (T, B) bool, false in the padding; a column without any valid step gives 0.
        """
        if not len(h):  # no step at all: nothing to gather or to take the largest of
            return h.new_zeros(h.shape[1:]), h.new_zeros(h.shape[:2]) if self.score else None
        return READOUTS[self.kind](self, h, valid)

    def over_time(self, h: Tensor, valid: Tensor) -> Tensor:
        """The vector of every prefix, (T, B, H): of a net of one direction."""
        return _PREFIXES[self.kind](self, h, valid) if len(h) else h

    def scores(self, h: Tensor) -> Tensor:
        """(T, B): how much each step asks for."""
        assert self.inner is not None and self.score is not None
        return self.score(self.inner(h).tanh()).squeeze(-1).float()  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"{self.kind}, {self.size}"


def _last(of: Readout, h: Tensor, valid: Tensor) -> tuple[Tensor, None]:
    """h at the last valid step; of the backward units at the first, which they read last."""
    ends = (valid.sum(0) - 1).clamp(min=0)
    found = h.gather(0, ends.view(1, -1, 1).expand(1, -1, h.shape[-1]))[0]
    if of.backward:
        found = torch.cat((found[:, : -of.backward], h[0, :, -of.backward :]), -1)
    return found * valid.any(0).unsqueeze(-1), None


def _mean(of: Readout, h: Tensor, valid: Tensor) -> tuple[Tensor, None]:
    total = torch.where(valid.unsqueeze(-1), h, 0).sum(0)
    return total / valid.sum(0).clamp(min=1).unsqueeze(-1), None


def _max(of: Readout, h: Tensor, valid: Tensor) -> tuple[Tensor, None]:
    found = h.masked_fill(~valid.unsqueeze(-1), -torch.inf).amax(0)
    return torch.where(valid.any(0).unsqueeze(-1), found, 0), None


def _attention(of: Readout, h: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    weights = of.scores(h).masked_fill(~valid, -torch.inf).softmax(0).masked_fill(~valid, 0)
    return (weights.to(h.dtype).unsqueeze(-1) * h).sum(0), weights


READOUTS: dict[str, Callable[[Readout, Tensor, Tensor], tuple[Tensor, Tensor | None]]] = {
    "last": _last,
    "mean": _mean,
    "max": _max,
    "attention": _attention,
}
"""Name -> what it makes of h and of the valid steps."""


def _mean_so_far(of: Readout, h: Tensor, valid: Tensor) -> Tensor:
    count = valid.cumsum(0).clamp(min=1).unsqueeze(-1)
    return torch.where(valid.unsqueeze(-1), h, 0).cumsum(0) / count


def _max_so_far(of: Readout, h: Tensor, valid: Tensor) -> Tensor:
    return h.masked_fill(~valid.unsqueeze(-1), -torch.inf).cummax(0).values


def _attention_so_far(of: Readout, h: Tensor, valid: Tensor) -> Tensor:
    scores = of.scores(h).masked_fill(~valid, -torch.inf)
    # relative to the highest score so far, or a large one later on would drown all before it
    top = scores.cummax(0).values
    steps = len(scores)
    later = torch.ones(steps, steps, dtype=torch.bool, device=h.device).triu(1)
    weights = scores.unsqueeze(0) - top.unsqueeze(1)  # (prefix, step, B)
    weights = weights.masked_fill(later.unsqueeze(-1), -torch.inf).exp()
    weights = weights / weights.sum(1, keepdim=True)
    return torch.einsum("psb,sbh->pbh", weights.to(h.dtype), h)


_PREFIXES: dict[str, Callable[[Readout, Tensor, Tensor], Tensor]] = {
    "last": lambda of, h, valid: h,
    "mean": _mean_so_far,
    "max": _max_so_far,
    "attention": _attention_so_far,
}
