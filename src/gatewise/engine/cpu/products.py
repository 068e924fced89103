"""The large matrix products around the kernels. Knows matrices alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b: (M, K), (N, K), (N,) to (M, N)."""
    return F.linear(x, weight, bias)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b: (M, K), (K, N) to (M, N)."""
    return a @ b


def transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """a^T b: (K, M), (K, N) to (M, N)."""
    return a.t() @ b
