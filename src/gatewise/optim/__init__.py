"""Optimizers, learning-rate schedules and clipping: what turns gradients into steps."""

from __future__ import annotations

from gatewise.optim.averaged import NTASGD, averaged_weights
from gatewise.optim.build import OPTIMIZERS, Recipe, build_optimizer
from gatewise.optim.clipping import GradientReport, clip_gradients
from gatewise.optim.schedules import (
    SCHEDULES,
    ConstantSchedule,
    CosineSchedule,
    PlateauSchedule,
    Schedule,
    StepSchedule,
    build_schedule,
)
from gatewise.optim.slots import join_state, split_state

__all__ = [
    "NTASGD",
    "OPTIMIZERS",
    "SCHEDULES",
    "ConstantSchedule",
    "CosineSchedule",
    "GradientReport",
    "PlateauSchedule",
    "Recipe",
    "Schedule",
    "StepSchedule",
    "averaged_weights",
    "build_optimizer",
    "build_schedule",
    "clip_gradients",
    "join_state",
    "split_state",
]
