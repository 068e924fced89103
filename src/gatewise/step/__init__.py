"""Generation and streaming in whole steps of machine code: packed weights, states as plain tensors.

Everything is imported on first use: the compiler is loaded where a model is packed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "DTYPES": "gatewise.step.choose",
    "Drawing": "gatewise.step.drawing",
    "StepLanguageModel": "gatewise.step.generation",
    "StepModel": "gatewise.step.model",
    "StepStack": "gatewise.step.model",
    "refusal": "gatewise.step.choose",
}

__all__ = ["DTYPES", "Drawing", "StepLanguageModel", "StepModel", "StepStack", "refusal"]

if TYPE_CHECKING:
    from gatewise.step.choose import DTYPES, refusal
    from gatewise.step.drawing import Drawing
    from gatewise.step.generation import StepLanguageModel
    from gatewise.step.model import StepModel, StepStack


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
