"""What every loaded run has, whatever its mapping."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gatewise.checkpoint import Checkpoint
from gatewise.errors import CheckpointError, OptionError
from gatewise.probe import Control
from gatewise.stack import control_all

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Run:
    """A trained model with all that belongs to it; `gatewise.load` makes one.

    Args:
        checkpoint: where it comes from.
        model: with its weights, in evaluation mode.

    Attributes:
        mapping: "lm", ...
        verbs: names of the methods that use the model, such as "complete".
        path: the checkpoint's folder.
        step: training steps behind it.
        config: the settings it was trained with.
        model: a torch module.
        notes: what a user should be told once, such as damage found and what was used instead.
    """

    mapping: str = ""
    verbs: tuple[str, ...] = ()

    def __init__(self, checkpoint: Checkpoint, model: nn.Module) -> None:
        self.path: Path = checkpoint.path
        self.step = checkpoint.step
        self.config: dict[str, Any] = checkpoint.config
        self.model = model
        self.notes: list[str] = list(checkpoint.notes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def controlled(self, control: Control) -> AbstractContextManager[None]:
        """A block in which `control` acts in every call of the model."""
        return control_all(self.model, control)

    def require(self, verb: str) -> None:
        """Raise OptionError unless this run has the verb."""
        if verb not in self.verbs:
            raise OptionError(
                f"{self.path}: a run of mapping {self.mapping!r} cannot {verb}: "
                f"expected one of {', '.join(self.verbs)}"
            )

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a run of mapping {self.mapping!r} has no {name!r}; it has {', '.join(self.verbs)}"
        )

    def __repr__(self) -> str:
        size = _size(self.model)
        return f"{type(self).__name__}({str(self.path)!r}, step={self.step}, {size:,} parameters)"

    def _repr_html_(self) -> str:
        from gatewise.run.showing import run_html

        size, config = _size(self.model), self.config
        return run_html(self.mapping, self.path, self.step, size, config, self.verbs, self.notes)


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def place(
    model: nn.Module, device: torch.device | str | None, dtype: torch.dtype | str | None
) -> nn.Module:
    """`model` moved and converted, in evaluation mode.

    Raises:
        OptionError: if there is no such device or dtype.
    """
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise OptionError(f"dtype: expected one of {', '.join(DTYPES)}, found {dtype!r}")
        dtype = DTYPES[dtype]
    try:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        place = torch.device(device or "cpu")
        if place.type not in ("cpu", "cuda"):
            raise RuntimeError(f"gatewise runs on cpu and cuda, not on {place.type}")
        return model.to(device=place, dtype=dtype).eval()
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"expected a device and dtype that exist here: {reason}") from None


def fill(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Give `model`, perhaps built without memory on the meta device, the checkpoint's weights.

    Raises:
        CheckpointError: if names or shapes are not those of the model.
    """
    check_weights(model, checkpoint)
    model.load_state_dict(checkpoint.tensors, strict=True, assign=True)


def check_weights(model: nn.Module, checkpoint: Checkpoint, among: tuple[str, ...] = ("",)) -> None:
    """Raise CheckpointError unless the weights have the model's names and shapes.

    Args:
        model: what is expected.
        checkpoint: what there is.
        among: beginnings of the names that are compared; default: all.
    """
    expected = {name: tuple(part.shape) for name, part in model.state_dict().items()}
    found = {name: tuple(part.shape) for name, part in checkpoint.tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if name.startswith(among) and expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{checkpoint.path}: expected weights {name!r} of shape {expected.get(name)}, "
                f"found {found.get(name)}: config and weights do not belong together"
            )
