"""TensorBoard events from a run, if the tensorboard package is there."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

from gatewise.errors import OptionError
from gatewise.train.watch import Evaluated, Watcher


class TensorBoardWatcher(Watcher):
    """Writes the log's numbers as scalars.

    Args:
        folder: where the events go, usually RUN/tensorboard.
    Raises:
        OptionError: if the tensorboard package is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            module = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise OptionError(
                "--tensorboard: expected the tensorboard package, found none: "
                "install it with `pip install tensorboard`"
            ) from error
        self._writer: Any = module.SummaryWriter(str(folder))

    def logged(self, record: dict[str, Any]) -> None:
        if record.get("kind") != "train":
            return
        for name in ("nats", "lr", "gradient_norm", "tokens_per_second"):
            value = record.get(name)
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(f"train/{name}", value, record["step"])

    def evaluated(self, event: Evaluated) -> None:
        for name, value in event.figures.items():
            if value is not None:
                self._writer.add_scalar(f"valid/{name}", value, event.step)

    def finished(self, result: Any) -> None:
        self._writer.close()
