"""How far back a net looks that was trained on a memory task."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.errors import DataError, OptionError
from gatewise.gradients import Profile, lag_profile
from gatewise.insight.sensitivity import Sensitivity, with_dynamics
from gatewise.mappings.memory import MemoryNet
from gatewise.modes import evaluating
from gatewise.run import TaskRun
from gatewise.tasks.memory import MemoryBatch, MemoryTask

_BATCHES = 64


def task_sensitivity(
    run: TaskRun,
    *,
    model: MemoryNet | None = None,
    lags: int | None = None,
    windows: int = 64,
    layer: int = -1,
    wrt: str = "state",
    exponents: int = 0,
    spectrum: int = 0,
) -> Sensitivity:
    """How the cost at the end of a test sequence depends on the state so many steps before.

    All sequences that are looked at have one length, the most frequent, and are asked at their last step.

    Args:
        run: of a memory task.
        model: another of the same form, such as the untrained one. Default: the run's.
        lags: how far back; default: to the beginning.
        windows: how many sequences.
        layer, wrt, exponents, spectrum: as for `sensitivity`; these along the first sequence.
    Raises:
        OptionError: an option is outside its range; the state is too large for exponents.
    """
    least = {"windows": (windows, 1), "exponents": (exponents, 0), "spectrum": (spectrum, 0)}
    least |= {} if lags is None else {"lags": (lags, 1)}
    for name, (value, allowed) in least.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < allowed:
            raise OptionError(
                f"{name}: expected a whole number of {allowed} or more, found {value!r}"
            )
    model = run.model if model is None else model
    weight = next(model.parameters())
    batch = same_length(run.task, windows, run.seed)
    x = batch.x.to(weight)
    targets = batch.targets[-1].to(weight.device)

    def cost(h: Tensor) -> Tensor:
        return step_costs(run.task, model.decoder(h), targets)

    with evaluating(model):
        with torch.no_grad():
            nats = float(cost(model.stack(x).h)[-1].mean())
        profile = lag_profile(model.stack, x, cost, layer=layer, wrt=wrt)
        unit = "nats" if run.task.classes else "squared errors"
        found = Sensitivity(_cut(profile, lags), x.shape[1], nats, unit=unit)
        if not exponents and not spectrum:
            return found
        return with_dynamics(found, model.stack, x, exponents, spectrum)


def step_costs(task: MemoryTask, outputs: Tensor, targets: Tensor) -> Tensor:
    """Nats, or squared errors, of outputs (T, B, K) were each step asked for the targets (B,) or (B, K): (T, B)."""
    if not task.classes:
        return (outputs - targets).square().sum(-1)
    scores = outputs.log_softmax(-1)
    return F.nll_loss(
        scores.flatten(0, 1), targets.expand(len(outputs), -1).flatten(), reduction="none"
    ).view(scores.shape[:2])


def same_length(task: MemoryTask, count: int, seed: int) -> MemoryBatch:
    """Test sequences of the length that most have, each asked at its last step.

    Raises:
        DataError: too few of them end with what is asked.
    """
    kept: list[MemoryBatch] = []
    found, length = 0, 0
    for index in range(_BATCHES):
        batch = task.batch("test", index, count, seed=seed)
        if not index:
            length = int(batch.lengths.mode().values)
        own = (batch.lengths == length).nonzero().flatten()
        own = own[batch.mask[length - 1, own]]
        x, targets, mask = (one[:length, own] for one in (batch.x, batch.targets, batch.mask))
        kept.append(MemoryBatch(x, targets, mask, batch.lengths[own]))
        found += len(own)
        if found >= count:
            break
    if not found:
        raise DataError(f"{task.name}: expected sequences that are asked at their end, found none")
    x, targets, mask = (
        torch.cat(same, dim=1)[:, :count] for same in list(zip(*kept, strict=True))[:3]
    )
    return MemoryBatch(x, targets, mask, torch.full((x.shape[1],), length))


def _cut(profile: Profile, lags: int | None) -> Profile:
    """The first lags."""
    if lags is None:
        return profile
    return replace(profile, norms=profile.norms[: lags + 1])
