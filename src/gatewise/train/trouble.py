"""Steps that must not be taken, and losses that should worry: noticing and naming them."""

from __future__ import annotations

import torch
from torch import nn

from gatewise.errors import DivergedError
from gatewise.mappings.learner import Batch
from gatewise.train.state import Counters
from gatewise.types import State, state_tensors

WINDOW = 50  # steps over which the loss is averaged before it is judged
PATIENCE = 3  # windows above the limit before it is said
MARGIN = 0.1  # nats above the start
EXPLOSION = 1.0  # nats above the lowest window


def is_finite(state: State) -> bool:
    """Whether no tensor of `state` holds a NaN or an infinity."""
    return all(bool(torch.isfinite(part).all()) for part in state_tensors(state))


def first_bad_weight(model: nn.Module) -> str | None:
    """The name of the first parameter that is not finite."""
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            return name
    return None


def blame(model: nn.Module, nats: float) -> str:
    """What is not finite, in words: a weight, the loss, a gradient."""
    weight = first_bad_weight(model)
    if weight is not None:
        return f"weight {weight} is not finite"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            return f"loss {nats:g}, first bad gradient in {name}"
    return f"loss {nats:g}"


def check_skips(counters: Counters, limit: int, batch: Batch, cause: str, mixed: bool) -> str:
    """The line about a skipped step.

    Args:
        counters: the run's.
        limit: skipped steps in a row that end it.
        batch: what was skipped.
        cause: see `blame`.
        mixed: whether matrix products run in bfloat16: then float32 is worth a try.

    Raises:
        DivergedError: if `limit` steps in a row were skipped.
    """
    row = counters.skips_in_a_row
    line = f"step {counters.step:,} skipped, weights unchanged ({batch.name}): {cause}"
    if row >= limit:
        raise DivergedError(
            f"stopped after {row} skipped steps in a row, the last on {batch.name}: {cause}; "
            "resume from the last checkpoint with a smaller --lr"
            + (", a smaller --clip-norm or --dtype float32" if mixed else " or --clip-norm")
        )
    return line


def judge(counters: Counters, nats: float, uniform: float | None) -> str | None:
    """Count a step's loss; a line, once in a run, if the loss diverges.

    The mean over `WINDOW` steps is high if it is above the first window's or above a uniform
    guess (ln V), or far above the lowest; `PATIENCE` high windows in a row are said.
    """
    counters.window_nats += nats
    counters.window_steps += 1
    if counters.window_steps < WINDOW:
        return None
    mean = counters.window_nats / counters.window_steps
    counters.window_nats, counters.window_steps = 0.0, 0
    if counters.first_nats != counters.first_nats:
        counters.first_nats = mean
    start = counters.first_nats if uniform is None else min(counters.first_nats, uniform)
    high = mean > start + MARGIN or mean > counters.lowest_nats + EXPLOSION
    counters.lowest_nats = min(counters.lowest_nats, mean)
    counters.high_windows = counters.high_windows + 1 if high else 0
    if counters.high_windows < PATIENCE or counters.warned:
        return None
    counters.warned = True
    guess = "" if uniform is None else f" (a uniform guess: {uniform:.2f})"
    return (
        f"the loss diverges: {mean:.3f} nats after {counters.step:,} steps, "
        f"lowest {counters.lowest_nats:.3f}{guess}; try a smaller --lr, "
        "a smaller --clip-norm or a longer --warmup"
    )
