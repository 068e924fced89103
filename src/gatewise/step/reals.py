"""A session of the step engine that reads vectors: a bare stack."""

from __future__ import annotations

import torch
from torch import Tensor

from gatewise.errors import ShapeError
from gatewise.probe import in_sequence
from gatewise.step.session import Session


class RealSession(Session):
    """Columns of real-valued inputs through a bare stack."""

    def step(self, x: Tensor) -> Tensor:
        """h of the last layer (B, H) after one input (B, I)."""
        x = self._checked(x.unsqueeze(0))
        self._call(1, x=x.data_ptr())
        return self._last()

    def push(self, x: Tensor) -> Tensor:
        """h of the last layer (T, B, H) after each of the inputs (T, B, I)."""
        x = self._checked(x)
        found = torch.empty(len(x), self.batch, self.core.directions[-1].weights.hidden_size)
        records = []
        for t in range(len(x)):
            self._call(1, x=x[t].data_ptr())
            found[t] = self._last()
            records.append(self.record)
        self.record = in_sequence(records)
        return found

    def _last(self) -> Tensor:
        at = self.core.places[0][-1]["h"]
        size = self.core.directions[-1].weights.hidden_size
        return self.memory[:, at : at + size].clone()

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim != 3 or x.shape[1:] != (self.batch, self.core.input_size):
            raise ShapeError(
                f"expected x of shape (T, {self.batch}, {self.core.input_size}), "
                f"found {tuple(x.shape)}"
            )
        if x.device.type != "cpu" or x.dtype == torch.float64:
            raise ShapeError(
                f"expected x of torch.float32 on the CPU, found {x.dtype} on {x.device}: use x.to(...)"
            )
        return x.detach().float().contiguous()
