"""Costs C(y, y~) of predicted numbers, each element by element: a mean or a mask is the caller's.

Knows tensors only. Which point of a distribution a cost asks for: `mse` its mean, `mae` its median, `pinball`
a quantile, `huber` something between mean and median.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Cost = Callable[[Tensor, Tensor], Tensor]
"""(predictions, targets), of one shape -> the cost of each."""


def squared(predictions: Tensor, targets: Tensor) -> Tensor:
    """(y - p)^2."""
    return (targets - predictions).square()


def absolute(predictions: Tensor, targets: Tensor) -> Tensor:
    """|y - p|."""
    return (targets - predictions).abs()


def huber(predictions: Tensor, targets: Tensor, width: float = 1.0) -> Tensor:
    """Half the square of e = y - p up to |e| = width, and width (|e| - width / 2) beyond.

    Huber 1964, "Robust estimation of a location parameter".
    """
    error = (targets - predictions).abs()
    return torch.where(error <= width, error.square() / 2, width * (error - width / 2))


def pinball(predictions: Tensor, targets: Tensor, level: Tensor | float) -> Tensor:
    """max(q (y - p), (q - 1) (y - p)), whose mean is least at the q-quantile (Koenker & Bassett 1978)."""
    error = targets - predictions
    return torch.maximum(level * error, (level - 1) * error)


COSTS: dict[str, Cost] = {"mse": squared, "mae": absolute, "huber": huber}
"""Name -> cost; `pinball` has a level besides, and is not among them."""
