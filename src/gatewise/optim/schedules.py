"""Learning-rate schedules over steps or over a time budget. They know an optimizer's groups only.

A schedule multiplies the learning rate each group had when it was built:

    lr = lr_0 * min(1, (steps + 1) / warmup) * shape(progress)

where progress runs from 0 to 1: over `total_steps`, or as told by `.at(progress)` for a time budget.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from torch.optim import Optimizer

from gatewise.errors import CheckpointError, OptionError, unknown


class Schedule:
    """Base of all schedules: constant after the warm-up.

    Call `step()` after each step of the optimizer, `validation(loss)` after each validation.

    Args:
        optimizer: its groups' learning rates are set.
        total_steps: steps of the whole training; None where only `.at` tells the progress.
        warmup: steps over which the learning rate rises linearly from lr_0 / warmup to lr_0.
    """

    name = ""
    known: ClassVar[tuple[str, ...]] = ()
    """The options that it takes beyond total_steps and warmup."""

    def __init__(
        self, optimizer: Optimizer, *, total_steps: int | None = None, warmup: int = 0
    ) -> None:
        if total_steps is not None and total_steps < 1:
            raise OptionError(f"total_steps: expected at least 1, found {total_steps}")
        if warmup < 0 or (total_steps is not None and warmup > total_steps):
            end = "" if total_steps is None else f" to {total_steps}"
            raise OptionError(f"warmup: expected 0{end} steps or more, found {warmup}")
        self.optimizer, self.total_steps, self.warmup = optimizer, total_steps, warmup
        self.steps = 0
        self.progress = 0.0
        self.best: float | None = None
        self.stale = 0  # validations since the best one
        self._base = [float(group["lr"]) for group in optimizer.param_groups]
        self._apply()

    @property
    def lr(self) -> float:
        """The learning rate of the first group now, without `scaled`."""
        return self._base[0] * self._factor()

    def step(self) -> None:
        """One step of the optimizer was made."""
        self.steps += 1
        if self.total_steps is not None:
            self.progress = min(1.0, self.steps / self.total_steps)
        self._apply()

    def at(self, progress: float) -> None:
        """The training has come this far, 0 to 1 (beyond is taken as the end)."""
        if not progress >= 0:
            raise OptionError(f"progress: expected 0 to 1, found {progress}")
        self.progress = min(1.0, progress)
        self._apply()

    def validation(self, loss: float) -> bool:
        """Take note of a validation loss; True if it is the best so far. NaN never is."""
        better = not math.isnan(loss) and (self.best is None or loss < self.best)
        self.best, self.stale = (loss, 0) if better else (self.best, self.stale + 1)
        return better

    @contextmanager
    def scaled(self, ratio: float) -> Iterator[None]:
        """Learning rates times `ratio` for one step: windows of random length scale theirs so."""
        self._apply(ratio)
        try:
            yield
        finally:
            self._apply()

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as JSON values."""
        return {
            "name": self.name,
            "steps": self.steps,
            "progress": self.progress,
            "best": self.best,
            "stale": self.stale,
            "base": list(self._base),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, and set the learning rates to what they were.

        Raises:
            CheckpointError: if it is the state of another schedule, or of other groups.
        """
        if state.get("name") != self.name:
            raise CheckpointError(f"schedule: expected {self.name!r}, found {state.get('name')!r}")
        try:
            base = [float(lr) for lr in state["base"]]
            self.steps, self.progress = int(state["steps"]), float(state["progress"])
            self.best, self.stale = state["best"], int(state["stale"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"schedule: its stored state is broken ({error!r})") from error
        if len(base) != len(self._base):
            raise CheckpointError(
                f"schedule: expected {len(self._base)} parameter groups, found {len(base)}"
            )
        self._base = base
        self._apply()

    def _shape(self) -> float:
        return 1.0

    def _factor(self) -> float:
        warm = min(1.0, (self.steps + 1) / self.warmup) if self.warmup else 1.0
        return warm * self._shape()

    def _apply(self, ratio: float = 1.0) -> None:
        factor = self._factor() * ratio
        for group, base in zip(self.optimizer.param_groups, self._base, strict=True):
            group["lr"] = base * factor


class ConstantSchedule(Schedule):
    """shape = 1."""

    name = "constant"


class CosineSchedule(Schedule):
    """shape = final + (1 - final) (1 + cos(pi p)) / 2 (Loshchilov and Hutter 2017, SGDR, equation 5).

    p is the progress after the warm-up where `total_steps` is known, else the progress.

    Args:
        final: share of lr_0 at the end.
    """

    name = "cosine"
    known = ("final",)

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int | None = None,
        warmup: int = 0,
        final: float = 0.0,
    ) -> None:
        if not 0 <= final <= 1:
            raise OptionError(f"final: expected a share of lr from 0 to 1, found {final}")
        self.final = final
        super().__init__(optimizer, total_steps=total_steps, warmup=warmup)

    def _shape(self) -> float:
        warm = self.warmup / self.total_steps if self.total_steps else 0.0
        p = min(1.0, max(0.0, (self.progress - warm) / (1 - warm))) if warm < 1 else 0.0
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * p)) / 2


class StepSchedule(Schedule):
    """shape = gamma^(milestones passed).

    Args:
        milestones: rising progress in (0, 1) at which the learning rate falls.
        gamma: factor of each fall.
    """

    name = "step"
    known = ("milestones", "gamma")

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int | None = None,
        warmup: int = 0,
        milestones: Sequence[float] = (0.5, 0.75),
        gamma: float = 0.1,
    ) -> None:
        rising = all(a < b for a, b in itertools.pairwise(milestones))
        if not rising or any(not 0 < m < 1 for m in milestones):
            found = list(milestones)
            raise OptionError(f"milestones: expected rising numbers in (0, 1), found {found}")
        if not 0 < gamma <= 1:
            raise OptionError(f"gamma: expected more than 0, at most 1, found {gamma}")
        self.milestones, self.gamma = tuple(milestones), gamma
        super().__init__(optimizer, total_steps=total_steps, warmup=warmup)

    def _shape(self) -> float:
        return float(self.gamma ** sum(self.progress >= m for m in self.milestones))


class PlateauSchedule(Schedule):
    """The learning rate is divided whenever validation does not improve, as word_language_model does.

    Args:
        divisor: each fall divides by this.
        patience: validations without a new best that are let pass before a fall.
        final: the learning rate never falls below this share of lr_0.
    """

    name = "plateau"
    known = ("divisor", "patience", "final")

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int | None = None,
        warmup: int = 0,
        divisor: float = 4.0,
        patience: int = 0,
        final: float = 0.0,
    ) -> None:
        if not (math.isfinite(divisor) and divisor > 1):
            raise OptionError(f"divisor: expected a finite number above 1, found {divisor}")
        if patience < 0 or not 0 <= final <= 1:
            found = f"patience {patience}, final {final}"
            raise OptionError(f"plateau: expected patience >= 0 and final in 0 to 1, found {found}")
        self.divisor, self.patience, self.final = divisor, patience, final
        self.falls = 0
        self._waited = 0
        super().__init__(optimizer, total_steps=total_steps, warmup=warmup)

    def validation(self, loss: float) -> bool:
        """Take note of a validation loss; the learning rate falls if it is not the best so far."""
        better = super().validation(loss)
        self._waited = 0 if better else self._waited + 1
        if self._waited > self.patience:
            self.falls, self._waited = self.falls + 1, 0
        self._apply()
        return better

    def state_dict(self) -> dict[str, Any]:
        """All that changes, as JSON values."""
        return {**super().state_dict(), "falls": self.falls, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, and set the learning rates to what they were."""
        if not {"falls", "waited"} <= state.keys() and state.get("name") == self.name:
            raise CheckpointError("schedule: its stored state is broken (falls or waited missing)")
        self.falls, self._waited = int(state.get("falls", 0)), int(state.get("waited", 0))
        super().load_state_dict(state)

    def _shape(self) -> float:
        return max(self.final, self.divisor**-self.falls)


SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind for kind in (ConstantSchedule, CosineSchedule, StepSchedule, PlateauSchedule)
}


def build_schedule(
    name: str,
    optimizer: Optimizer,
    *,
    total_steps: int | None = None,
    warmup: int = 0,
    final: float | None = None,
    milestones: Sequence[float] | None = None,
    gamma: float | None = None,
    divisor: float | None = None,
    patience: int | None = None,
) -> Schedule:
    """The schedule `name` over the optimizer's learning rates as they are now.

    Args:
        name: "constant", "cosine", "step" or "plateau".
        optimizer: its groups' learning rates are taken as lr_0 and set from now on.
        total_steps: steps of the whole training, or None for a time budget (`.at`).
        warmup: steps of linear warm-up.
        final: cosine, plateau. Default: 0.
        milestones: step. Default: (0.5, 0.75).
        gamma: step. Default: 0.1.
        divisor: plateau. Default: 4.
        patience: plateau. Default: 0.
    Returns:
        schedule with `.step()`, `.at(progress)`, `.validation(loss)`, `.scaled(ratio)`, `.lr` and
        `.state_dict()` / `.load_state_dict()`.
    Raises:
        UnknownNameError: if there is no such schedule.
        OptionError: if an option is out of range, or the schedule does not know it.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    given = {
        "final": final,
        "milestones": milestones,
        "gamma": gamma,
        "divisor": divisor,
        "patience": patience,
    }
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    for option in options:
        if option not in SCHEDULES[name].known:
            takes = ", ".join(("total_steps", "warmup", *SCHEDULES[name].known))
            raise OptionError(f"{name} schedule: expected {takes}, found {option}; leave it out")
    return SCHEDULES[name](optimizer, total_steps=total_steps, warmup=warmup, **options)
