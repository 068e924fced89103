"""Lyapunov exponents of a net driven by a sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.errors import OptionError
from gatewise.gradients.jacobians import jacobians, widened
from gatewise.gradients.nets import Net
from gatewise.types import State


@dataclass(frozen=True, eq=False)
class Exponents:
    """Mean rates at which small changes of the state grow, in nats per step, the largest first.

    Args:
        values: (B, n).
        history: (T, B, n), the estimate after each step that counts.
    """

    values: Tensor
    history: Tensor

    @property
    def dimension(self) -> Tensor:
        """(B,), the dimension of Kaplan and Yorke, n where the sum of all n is not negative."""
        return torch.tensor([_dimension(row.tolist()) for row in self.values])

    def _repr_html_(self) -> str:
        from gatewise.gradients.showing import exponents_html

        return exponents_html(self.values, self.history, self.dimension)


def _dimension(values: list[float]) -> float:
    total = 0.0
    for index, value in enumerate(values):
        if total + value < 0:
            return index + total / abs(value) if index else 0.0
        total += value
    return float(len(values))


def lyapunov(
    net: Net,
    x: Tensor,
    state: State = None,
    *,
    count: int | None = None,
    skip: int = 0,
    seed: int = 0,
) -> Exponents:
    """Finite-time Lyapunov exponents along a sequence, by QR (Benettin et al. 1980).

    An orthonormal frame of changes goes through the Jacobian of each step and is made orthonormal
    again; the exponents are the means of the logarithms of what was taken off. For recurrent nets:
    Engelken et al. 2023 (Phys. Rev. Research 5, 043044), algorithm 1.

    Args:
        net: of one direction.
        x: inputs, (T, B, I).
        state: before the first step. Default: the start's.
        count: how many, the largest. Default: as many as the state has numbers.
        skip: steps at the beginning in which the frame only turns; they do not count.
        seed: of the first frame.
    Returns:
        The exponents in nats per step; -inf where a direction dies out at once.
    Raises:
        OptionError: if the net is bidirectional, or skip or count is outside its range.
    """
    if not 0 <= skip < len(x):
        raise OptionError(f"skip: expected 0 to {len(x) - 1} of {len(x)} steps, found {skip}")
    frame: Tensor | None = None
    total, history = torch.zeros(()), []
    for k, jacobian in jacobians(net, x, state):
        jacobian = widened(jacobian)
        if frame is None:
            frame = _frame(jacobian, count, seed)
            total = frame.new_zeros(frame.shape[0], frame.shape[2])
        frame, triangle = torch.linalg.qr(jacobian @ frame)
        if k >= skip:
            total = total + triangle.diagonal(dim1=-2, dim2=-1).abs().log()
            history.append(total / (k - skip + 1))
    values = history[-1].sort(dim=-1, descending=True).values
    return Exponents(values, torch.stack(history))


def _frame(jacobian: Tensor, count: int | None, seed: int) -> Tensor:
    columns, size, _ = jacobian.shape
    count = size if count is None else count
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= size:
        raise OptionError(f"count: expected 1 to {size}, the size of the state, found {count!r}")
    source = torch.Generator().manual_seed(seed)
    drawn = torch.randn(size, count, generator=source, dtype=torch.float64).to(jacobian)
    frame: Tensor = torch.linalg.qr(drawn).Q
    return frame.expand(columns, size, count)
