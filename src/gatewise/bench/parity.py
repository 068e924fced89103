"""Whether a contestant computes what it should: without that its time means nothing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 3e-2, "int8": 1e-1, "int4": 5e-1}
"""dtype -> the largest relative error; int8 and int4 of weights drawn at random, on scores of a step."""


def error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest of |found - expected| / |expected| over the tensors, norms over all their numbers.

    NaN where something is not a number, infinite where shapes differ.
    """
    if len(found) != len(expected):
        return float("inf")
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            return float("inf")
        one = float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))
        if not one <= worst:  # NaN too
            worst = one
        if worst != worst:
            break
    return worst


def complaint(found: float, dtype: str) -> str:
    """Why a contestant of that error is not timed; empty: it is."""
    limit = TOLERANCE[dtype]
    if found <= limit:
        return ""
    return f"its results are {found:.1e} away, more than {limit:.0e} ({dtype})"
