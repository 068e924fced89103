"""What a model makes of a memory task: sequences that are right, steps that are, and how far off the rest is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gatewise.tasks.memory import MemoryBatch, MemoryTask


@dataclass
class MemoryTally:
    """Sums over sequences, of one task.

    Args:
        task: what is judged.
        sequences, right: all, and those right at every step that counts.
        steps, hits: that count, and of those the ones where the right class has the largest score.
        total: cost of all steps: nats, or squared errors.
        error: sum of the steps' largest absolute errors.
    """

    task: MemoryTask
    sequences: int = 0
    right: int = 0
    steps: int = 0
    hits: int = 0
    total: float = 0.0
    error: float = 0.0

    def add(self, outputs: Tensor, batch: MemoryBatch) -> None:
        """Add a batch.

        Args:
            outputs: (T, B, K), on the batch's device.
            batch: what was asked.
        """
        outputs, mask = outputs.double(), batch.mask
        asked, wanted = outputs[mask], batch.targets[mask]
        if self.task.classes:
            self.total += float(F.cross_entropy(asked, wanted, reduction="sum"))
            self.hits += int((asked.argmax(-1) == wanted).sum())
        else:
            self.total += float((asked - wanted).square().sum())
        self.error += float(self.task.errors(outputs, batch)[mask].sum())
        self.right += int(self.task.right(outputs, batch).sum())
        self.sequences += outputs.shape[1]
        self.steps += int(mask.sum())

    @property
    def cost(self) -> float:
        """Mean nats, or mean squared error, of a step that counts."""
        return self.total / self.steps if self.steps else math.nan

    @property
    def share(self) -> float:
        """Sequences that are right, of all; NaN without any."""
        return self.right / self.sequences if self.sequences else math.nan

    @property
    def mean_error(self) -> float:
        """Mean of the steps' largest absolute errors; NaN without any."""
        return self.error / self.steps if self.steps else math.nan

    def solved(self, share: float) -> bool:
        """Whether so many sequences are right, and the error is below what the task allows."""
        most = self.task.success.error
        return self.share >= share and (most is None or self.mean_error < most)

    def summary(self) -> dict[str, Any]:
        """All figures by name; None where one is not a finite number."""
        figures = {"nats" if self.task.classes else "mse": self.cost, "sequences_right": self.share}
        if self.task.classes:
            figures["accuracy"] = self.hits / self.steps if self.steps else math.nan
        figures["mean_error"] = self.mean_error
        finite = {k: v if math.isfinite(v) else None for k, v in figures.items()}
        return {"sequences": self.sequences, "steps": self.steps} | finite


__all__ = ["MemoryTally"]
