"""Many vectors as a map: their two directions of largest variance (PCA). Knows tensors only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.errors import DataError


@dataclass(frozen=True, eq=False)
class Map:
    """Where vectors lie on a plane.

    Args:
        points: (n, 2) float64.
        shares: of the whole variance, along each axis.
    """

    points: Tensor
    shares: tuple[float, float]

    def inside(self, region: tuple[float, float, float, float]) -> list[int]:
        """The points with x0 <= x <= x1 and y0 <= y <= y1."""
        x0, x1, y0, y1 = region
        x, y = self.points.unbind(1)
        return torch.nonzero((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))[:, 0].tolist()


def principal_map(vectors: Tensor) -> Map:
    """The map of vectors (n, H): the same each time, the largest weight of each direction positive.

    Raises:
        DataError: if there are fewer than two vectors, or they are all the same.
    """
    if vectors.dim() != 2 or len(vectors) < 2:
        raise DataError(f"expected at least 2 vectors for a map, found {len(vectors)}")
    centred = vectors.double() - vectors.double().mean(0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    total = float(sizes.square().sum())
    if total == 0:
        raise DataError(f"expected vectors that differ, found {len(vectors)} equal ones")
    two = directions[:2]
    if len(two) < 2:
        two = torch.cat((two, torch.zeros_like(two)))
        sizes = torch.cat((sizes, sizes.new_zeros(1)))
    largest = two.gather(1, two.abs().argmax(1, keepdim=True))
    two = two * torch.where(largest < 0, -1.0, 1.0)
    shares = (sizes[:2].square() / total).tolist()
    return Map(centred @ two.T, (shares[0], shares[1]))
