"""Recurrent networks with their gates open: train, run, read and steer them.

Everything is imported on first use, so that ``import gatewise`` and the command line start at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Control": "gatewise.probe",
    "Record": "gatewise.probe",
    "Run": "gatewise.run",
    "Stack": "gatewise.stack",
    "cell": "gatewise.cells.define",
    "engines": "gatewise.engine",
    "exp": "gatewise.cells.equations",
    "layer_norm": "gatewise.cells.equations",
    "load": "gatewise.run",
    "log": "gatewise.cells.equations",
    "maximum": "gatewise.cells.equations",
    "minimum": "gatewise.cells.equations",
    "relu": "gatewise.cells.equations",
    "show": "gatewise.engine.listing",
    "sigmoid": "gatewise.cells.equations",
    "softplus": "gatewise.cells.equations",
    "sqrt": "gatewise.cells.equations",
    "tanh": "gatewise.cells.equations",
    "unroll": "gatewise.unrolling",
    "where": "gatewise.cells.equations",
}
_MODULES = ("cells", "errors", "gradients", "nn", "tasks")

__all__ = [
    "Control",
    "Record",
    "Run",
    "Stack",
    "cell",
    "cells",
    "engines",
    "errors",
    "exp",
    "gradients",
    "layer_norm",
    "load",
    "log",
    "maximum",
    "minimum",
    "nn",
    "relu",
    "show",
    "sigmoid",
    "softplus",
    "sqrt",
    "tanh",
    "tasks",
    "unroll",
    "where",
]

if TYPE_CHECKING:
    from gatewise import cells, errors, gradients, nn, tasks
    from gatewise.cells.define import cell
    from gatewise.cells.equations import (
        exp,
        layer_norm,
        log,
        maximum,
        minimum,
        relu,
        sigmoid,
        softplus,
        sqrt,
        tanh,
        where,
    )
    from gatewise.engine import engines
    from gatewise.engine.listing import show
    from gatewise.probe import Control, Record
    from gatewise.run import Run, load
    from gatewise.stack import Stack
    from gatewise.unrolling import unroll


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"gatewise.{name}")
    else:
        raise AttributeError(f"module 'gatewise' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
