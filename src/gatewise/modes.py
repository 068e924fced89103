"""Evaluation mode for the length of a block: a call that only looks leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Evaluation mode inside, and each module's own mode as it was afterwards."""
    changed = []
    if isinstance(model, nn.Module):
        changed = [part for part in model.modules() if part.training]
    for part in changed:
        part.training = False
    try:
        yield
    finally:
        for part in changed:
            part.training = True
