"""The matrices of the products within a step, packed for both passes, and their gradients after the sequence.

Knows a layout and tensors; no time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gatewise.engine.arguments import Arguments
from gatewise.engine.cpu.kinds import Kind
from gatewise.engine.cpu.layout import Layout
from gatewise.engine.cpu.packing import backward_panels, row_panels
from gatewise.engine.cpu.products import transposed_product
from gatewise.engine.cpu.program import BETWEEN_WIDE

New = Callable[..., Tensor]
"""(name of an argument, number of steps) -> an array for it."""


class Products:
    """Those of one run.

    Args:
        layout: what the kernels compute.
        kind: their numbers.
        matrices: name -> the matrix.
        sizes: width -> its units, padding included.
    """

    def __init__(
        self,
        layout: Layout,
        kind: Kind,
        matrices: Mapping[str, Tensor],
        sizes: Mapping[str, int],
    ) -> None:
        self._layout, self._kind, self._sizes = layout, kind, sizes
        self._matrices = matrices
        self._read: dict[int, Tensor] = {}
        self._back: dict[int, Tensor] = {}

    def point(self, a: Arguments, new: New) -> None:
        """For the forward kernel: the matrices, and what is multiplied, of all steps where a way back follows."""
        steps = None if self._layout.variant.grad else 1
        for place, name in self._layout.products.items():
            matrix = self._matrices[name]
            a.point(f"matrix:{place}", row_panels(matrix, BETWEEN_WIDE, self._kind))
            a.values[f"depth:{place}"] = -(-matrix.shape[1] // self._kind.factors)
            self._read[place] = a.point(f"op:{place}", new(f"op:{place}", steps))

    def point_back(self, a: Arguments, new: New) -> None:
        """For the backward kernel: the transposed matrices, and where the results' gradients go."""
        for place, name in self._layout.products.items():
            size = self._sizes[self._layout.widths.matrix(name)[0]]
            panels = backward_panels(self._matrices[name], 1, size, self._kind)
            a.point(f"matrix:{place}", panels)
            a.values[f"depth:{place}"] = size // self._kind.factors
            if place in self._layout.backward.products:
                self._back[place] = a.point(f"dp:{place}", new(f"dp:{place}"))

    def gradients(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Matrix -> its gradient: those of its products' results times what was multiplied."""
        found = {n: torch.zeros_like(m, dtype=dtype) for n, m in self._matrices.items()}
        for place, d in self._back.items():
            name = self._layout.products[place]
            rows, columns = found[name].shape
            whole = transposed_product(d.flatten(0, 1), self._read[place].flatten(0, 1))
            found[name] += whole[:rows, :columns]
        return found
