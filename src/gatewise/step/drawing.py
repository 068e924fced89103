"""How the kernel draws tokens, as plain checked data."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gatewise.errors import OptionError

_LEAST, _MOST = 1e-30, 3e38
"""Bounds of what divides scores, or is compared with sums, in float32."""


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn; as in `gatewise.generate.SamplingOptions`.

    Args:
        temperature: 0 takes the most probable token.
        top_k: keep the k most probable; 0: all.
        top_p: keep the fewest that together reach this probability.
        min_p: keep those at least this many times as probable as the most probable one.
        offsets: added to the scores (V,), or None; -inf bans a token.
        logprobs: say each token's log-probability, at temperature 1 and without offsets.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    offsets: Tensor | None = None
    logprobs: bool = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, good in (
            ("temperature", self.temperature, self.temperature >= 0),
            ("top_k", self.top_k, self.top_k >= 0),
            ("top_p", self.top_p, 0 < self.top_p <= 1),
            ("min_p", self.min_p, 0 <= self.min_p <= 1),
        ):
            if not good:
                raise OptionError(f"{name}: expected a number in its range, found {value!r}")

    def as_float32(self) -> dict[str, float]:
        """The numbers as the kernel can hold them: what would vanish or overflow there means the same.

        Below the least temperature a draw is the most probable token, whatever the scores are.
        """
        return {
            "temperature": 0.0 if self.temperature < _LEAST else min(self.temperature, _MOST),
            "top_p": max(self.top_p, _LEAST),
            "min_p": self.min_p,
        }
