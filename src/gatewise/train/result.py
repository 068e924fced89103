"""How a run ended."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        steps, epochs: done, earlier parts of a resumed run included.
        valid: figures of the last evaluation, empty without a validation part.
        best_nats: lowest mean nats per prediction on the validation part; NaN without one.
        best_step: when; -1 without one.
        folder: of the run.
        parameters: number of trained numbers.
        seconds: since the start, evaluations and saving included.
        tokens_per_second: of this process's training steps alone.
        skipped: steps without an update.
        engine: name of the engine that ran.
        reason: why it ended: "epochs", "minutes", "steps" or "patience".
    """

    steps: int
    epochs: float
    valid: dict[str, Any]
    best_nats: float
    best_step: int
    folder: Path
    parameters: int
    seconds: float
    tokens_per_second: float
    skipped: int
    engine: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self) | {"folder": str(self.folder)}
