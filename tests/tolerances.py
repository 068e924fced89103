"""How close two results must be, in one table by dtype. Never relaxed for one machine or test."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tolerance(NamedTuple):
    """|actual - expected| <= absolute + relative * |expected|."""

    relative: float
    absolute: float


# The same equations in another order of summation: outputs and states.
VALUES = {
    torch.float64: Tolerance(1e-10, 1e-12),
    torch.float32: Tolerance(1e-4, 1e-5),
    torch.bfloat16: Tolerance(2e-2, 2e-2),
    torch.float16: Tolerance(2e-3, 2e-3),
}

# Gradients sum over time and batch too.
GRADIENTS = {
    torch.float64: Tolerance(1e-8, 1e-10),
    torch.float32: Tolerance(1e-3, 1e-4),
    torch.bfloat16: Tolerance(5e-2, 5e-2),
    torch.float16: Tolerance(5e-3, 5e-3),
}


def assert_close(
    actual: Tensor, expected: Tensor, *, gradient: bool = False, what: str = ""
) -> None:
    """Fail unless shape, dtype and device are equal and the values close; NaN equals nothing."""
    relative, absolute = (GRADIENTS if gradient else VALUES)[expected.dtype]
    torch.testing.assert_close(
        actual,
        expected,
        rtol=relative,
        atol=absolute,
        msg=(lambda text: f"{what}: {text}") if what else None,
    )
