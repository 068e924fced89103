"""What a forecaster's numbers at a step say of the next value: a point, or a distribution.

A head knows the numbers (..., P) that a decoder gives, and values in the scale of training. Everything that is
drawn is drawn by `at`: the quantile at a uniform number is a sample.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.errors import OptionError
from gatewise.losses.numbers import COSTS, Cost, pinball

_NARROWEST = 1e-4
"""Least deviation, in units of the series' own: a constant stretch must not make the cost endless."""


class Head(ABC):
    """From numbers (..., P) to what they say.

    Attributes:
        size: P.
        spread: whether it says how sure it is.
    """

    size: int
    spread = True

    @abstractmethod
    def cost(self, numbers: Tensor, targets: Tensor) -> Tensor:
        """What is minimised, for each target."""

    @abstractmethod
    def at(self, numbers: Tensor, levels: Tensor) -> Tensor:
        """The quantile of each at a level of its own in (0, 1), of the targets' shape."""

    @abstractmethod
    def described(self, numbers: Tensor) -> Tensor:
        """The numbers as one would read them: location and scale, the quantiles, or the point."""

    def point(self, numbers: Tensor) -> Tensor:
        """The median."""
        return self.at(numbers, torch.full_like(numbers[..., 0], 0.5))

    def quantiles(self, numbers: Tensor, levels: Sequence[float]) -> Tensor:
        """The quantiles at several levels, (..., Q)."""
        wide = numbers.unsqueeze(-2).expand(*numbers.shape[:-1], len(levels), numbers.shape[-1])
        at = torch.tensor(levels, dtype=numbers.dtype, device=numbers.device)
        return self.at(wide, at.expand(wide.shape[:-1]))


class _Located(Head):
    """A location and a scale, softplus(s) and a little."""

    size = 2

    def described(self, numbers: Tensor) -> Tensor:
        return torch.stack(self._parts(numbers), -1)

    def point(self, numbers: Tensor) -> Tensor:
        return numbers[..., 0]

    def _parts(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        return numbers[..., 0], F.softplus(numbers[..., 1]) + _NARROWEST


class Gaussian(_Located):
    """A normal distribution; the cost is -log p(y) in nats."""

    def cost(self, numbers: Tensor, targets: Tensor) -> Tensor:
        mean, deviation = self._parts(numbers)
        z = (targets - mean) / deviation
        return z.square() / 2 + deviation.log() + math.log(2 * math.pi) / 2

    def at(self, numbers: Tensor, levels: Tensor) -> Tensor:
        mean, deviation = self._parts(numbers)
        found: Tensor = mean + deviation * torch.special.ndtri(levels)
        return found


class Student(_Located):
    """Student's t with 4 degrees of freedom, for heavy tails; the cost is -log p(y) in nats.

    With 4 the quantile has a closed form (Shaw 2006, "Sampling Student's T distribution", eq. 37).
    """

    def cost(self, numbers: Tensor, targets: Tensor) -> Tensor:
        mean, scale = self._parts(numbers)
        z = (targets - mean) / scale
        return 2.5 * torch.log1p(z.square() / 4) + scale.log() + math.log(8 / 3)

    def at(self, numbers: Tensor, levels: Tensor) -> Tensor:
        mean, scale = self._parts(numbers)
        root = (4 * levels * (1 - levels)).clamp(min=1e-12).sqrt()
        z = 2 * ((root.acos() / 3).cos() / root - 1).clamp(min=0).sqrt()
        return mean + scale * z * (levels - 0.5).sign()


class Quantiles(Head):
    """Several quantiles that cannot cross; the cost is the mean pinball loss, twice: an estimate of the CRPS.

    Args:
        levels: rising, each in (0, 1), at least two.
    Raises:
        OptionError: if they are not.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        rising = len(levels) > 1 and list(levels) == sorted(set(levels))
        if not rising or not 0 < min(levels) <= max(levels) < 1:
            raise OptionError(
                f"--levels: expected at least two rising levels between 0 and 1, found {list(levels)}"
            )
        self.levels = tuple(levels)
        self.size = len(levels)

    def described(self, numbers: Tensor) -> Tensor:
        gaps = F.softplus(numbers[..., 1:])
        return torch.cat((numbers[..., :1], gaps), -1).cumsum(-1)

    def cost(self, numbers: Tensor, targets: Tensor) -> Tensor:
        found = self.described(numbers)
        losses = pinball(found, targets.unsqueeze(-1), self._levels(numbers))
        return 2 * losses.mean(-1)

    def at(self, numbers: Tensor, levels: Tensor) -> Tensor:
        """Linear between the levels, and beyond the outer ones with the slope of the last piece."""
        found, known = self.described(numbers), self._levels(numbers)
        right = torch.searchsorted(known, levels.contiguous()).clamp(1, len(known) - 1)
        below, above = known[right - 1], known[right]
        low = found.gather(-1, (right - 1).unsqueeze(-1)).squeeze(-1)
        high = found.gather(-1, right.unsqueeze(-1)).squeeze(-1)
        return low + (high - low) * (levels - below) / (above - below)

    def _levels(self, like: Tensor) -> Tensor:
        return torch.tensor(self.levels, dtype=like.dtype, device=like.device)


class Point(Head):
    """One number, by any cost; it says nothing of how sure it is.

    Args:
        cost: of predictions and targets, element by element.
    """

    size, spread = 1, False

    def __init__(self, cost: Cost) -> None:
        self._cost = cost

    def described(self, numbers: Tensor) -> Tensor:
        return numbers

    def cost(self, numbers: Tensor, targets: Tensor) -> Tensor:
        return self._cost(numbers[..., 0], targets)

    def at(self, numbers: Tensor, levels: Tensor) -> Tensor:
        return numbers[..., 0].expand(levels.shape)


OUTPUTS = ("gaussian", "student", "quantile", "point")
POINTS = (*COSTS, "pinball")


def build_head(output: str, cost: str, level: float, levels: Sequence[float]) -> Head:
    """The head of those names.

    Args:
        output: one of `OUTPUTS`.
        cost: of a point, one of `POINTS`.
        level: of the cost "pinball".
        levels: of the output "quantile".
    """
    if output == "gaussian":
        return Gaussian()
    if output == "student":
        return Student()
    if output == "quantile":
        return Quantiles(levels)
    if cost == "pinball":
        return Point(lambda predictions, targets: pinball(predictions, targets, level))
    return Point(COSTS[cost])
