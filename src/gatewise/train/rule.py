"""The update rule of a run: clipping, optimizer, schedule and averaging behind one face."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import RMSprop

from gatewise.optim import (
    NTASGD,
    OPTIMIZERS,
    SCHEDULES,
    Schedule,
    averaged_weights,
    build_optimizer,
    build_schedule,
    clip_gradients,
)
from gatewise.train.options import TrainOptions


class Rule:
    """How gradients change the weights of `model`, as `options` say."""

    def __init__(self, model: nn.Module, options: TrainOptions) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._options = options
        self.optimizer = build_optimizer(
            options.optimizer,
            model.named_parameters(),
            lr=options.lr,
            weight_decay=options.weight_decay,
            **_optimizer_options(options),
        )
        self.schedule: Schedule = build_schedule(
            options.schedule,
            self.optimizer,
            warmup=options.warmup,
            **_schedule_options(options),
        )

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return self.schedule.lr

    def clip(self) -> Tensor:
        """Clip the gradients; their norm before, a scalar."""
        options = self._options
        report = clip_gradients(
            self._parameters, options.clip_norm or None, options.clip_value or None
        )
        return report.norm

    def update(self, lr_scale: float, progress: float) -> None:
        """Take the step; the run is `progress` (0 to 1) done after it."""
        if lr_scale == 1.0:
            self.optimizer.step()
        else:
            with self.schedule.scaled(lr_scale):
                self.optimizer.step()
        self.schedule.step()
        self.schedule.at(progress)

    def clear(self) -> None:
        """Let go of the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def validation(self, nats: float) -> str | None:
        """Take note of a validation loss; a line if that changes the rule."""
        before = self.lr
        self.schedule.validation(nats)
        if isinstance(self.optimizer, NTASGD) and self.optimizer.validation(nats):
            return "validation no longer improves: the weights are averaged from here on"
        if self.lr != before:
            return f"validation did not improve: learning rate {before:g} -> {self.lr:g}"
        return None

    @contextmanager
    def averaged(self) -> Iterator[bool]:
        """The averaged weights in place, if there are any; whether there are."""
        averaging = isinstance(self.optimizer, NTASGD) and self.optimizer.averaging
        with averaged_weights(self.optimizer):
            yield averaging

    def state(self) -> dict[str, Any]:
        """What a resumed run needs; taken inside `averaged` it holds the raw weights too."""
        return {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`; raw weights in it go into the model."""
        groups = [(g["lr"], g["weight_decay"]) for g in self.optimizer.param_groups]
        base = list(self.schedule.state_dict()["base"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, (lr, weight_decay) in zip(self.optimizer.param_groups, groups, strict=True):
            # what this run's options say counts, also where they were changed
            group["lr"], group["weight_decay"] = lr, weight_decay
            group |= {k: v for k, v in self.optimizer.defaults.items() if k in _CHANGEABLE}
        self._take_up_changes()
        self.schedule.load_state_dict(state["schedule"] | {"base": base})

    def _take_up_changes(self) -> None:
        """What torch does not do for options that were changed since the state was stored."""
        if isinstance(self.optimizer, NTASGD):
            self.optimizer.non_monotone = self._options.nonmono
        if isinstance(self.optimizer, RMSprop):
            for group in self.optimizer.param_groups:
                for p in group["params"]:
                    known = self.optimizer.state.get(p)
                    if group["momentum"] > 0 and known and "momentum_buffer" not in known:
                        known["momentum_buffer"] = torch.zeros_like(p)


_CHANGEABLE = frozenset({"momentum", "betas", "alpha"})


def _optimizer_options(options: TrainOptions) -> dict[str, Any]:
    """Those of the options that the optimizer knows."""
    known = OPTIMIZERS[options.optimizer].known
    values = {
        "betas": (options.beta1, options.beta2),
        "momentum": options.momentum,
        "alpha": options.alpha,
        "non_monotone": options.nonmono,
    }
    return {name: value for name, value in values.items() if name in known}


def _schedule_options(options: TrainOptions) -> dict[str, Any]:
    """Those of the options that the schedule knows."""
    known = SCHEDULES[options.schedule].known
    values = {
        "final": options.min_lr / options.lr,
        "divisor": options.decay,
        "gamma": 1 / options.decay,
        "milestones": _milestones(options) if "milestones" in known else (),
    }
    return {name: value for name, value in values.items() if name in known}


def _milestones(options: TrainOptions) -> tuple[float, ...]:
    """Shares of the run, or of its epochs, at which the step schedule falls."""
    every, epochs = options.decay_every, options.epochs
    if every is None or epochs is None:
        return (0.5, 0.75)
    falls = (k * every for k in range(1, int(epochs / every) + 1))
    return tuple(at / epochs for at in falls if at < epochs)
