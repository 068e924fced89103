"""NT-ASGD: SGD that begins to average its weights when validation stops improving."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gatewise.errors import CheckpointError, FailedError, OptionError


class NTASGD(Optimizer):
    """Non-monotonically triggered averaged SGD.

    w[k+1] = w[k] - lr (dw[k] + weight_decay w[k]). After the t-th validation with loss v, the loop of
    averaging starts, T = k, once t > n and v > min(logs[0 .. t-n-1]), where logs are the earlier
    losses. From then on the average is (1 / (k - T + 1)) sum_{i=T}^{k} w[i] (Merity, Keskar and
    Socher 2017, algorithm 1). Validate with the averaged weights in place: `with
    optimizer.averaged(): ...`; before averaging starts that changes nothing.

    `state_dict()` taken while the averaged weights are in place carries the raw ones too, and
    loading it puts those into the parameters: a checkpoint may hold the averaged weights for use and
    still continue bit for bit.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        weight_decay: L2 penalty added to the gradient.
        non_monotone: n, validations without a new best before averaging starts.
    """

    def __init__(
        self, params: Any, lr: float, weight_decay: float = 0.0, non_monotone: int = 5
    ) -> None:
        if not (math.isfinite(lr) and lr > 0):
            raise OptionError(f"lr: expected a finite number above 0, found {lr}")
        if not (math.isfinite(weight_decay) and weight_decay >= 0):
            raise OptionError(f"weight_decay: expected a number >= 0, found {weight_decay}")
        if non_monotone < 1:
            raise OptionError(f"non_monotone: expected at least 1, found {non_monotone}")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.non_monotone = non_monotone
        self._logs: list[float] = []
        self._count = 0  # weights in the average; 0 before it starts
        self._swapped = False

    @property
    def averaging(self) -> bool:
        """Whether the weights are being averaged."""
        return self._count > 0

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], Tensor] | None = None
    ) -> Tensor | None:
        """One step of SGD, and of the average once it has started."""
        if self._swapped:
            raise FailedError(
                "NT-ASGD: the averaged weights are in place; leave averaged() to step"
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    grad = p.grad
                    if group["weight_decay"]:
                        grad = grad.add(p, alpha=group["weight_decay"])
                    p.add_(grad, alpha=-group["lr"])
        if self._count:
            self._count += 1
            for p in self._parameters():
                average = self.state[p]["average"]
                average.add_(p - average, alpha=1 / self._count)
        return loss

    @torch.no_grad()
    def validation(self, loss: float) -> bool:
        """Take note of a validation loss (of any monotone unit); True if averaging starts now."""
        if self._swapped:
            raise FailedError("NT-ASGD: leave averaged() before validation() is told its loss")
        loss = sys.float_info.max if math.isnan(loss) else min(loss, sys.float_info.max)  # for JSON
        earlier = self._logs[: -self.non_monotone]
        starts = not self._count and bool(earlier) and loss > min(earlier)
        self._logs.append(float(loss))
        if starts:
            self._count = 1
            for p in self._parameters():
                self.state[p]["average"] = p.detach().clone()
        return starts

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in the parameters; on leaving, the raw ones return bit for bit."""
        if self._swapped:
            raise FailedError("NT-ASGD: averaged() is already in force; it does not nest")
        if not self._count:
            yield
            return
        with torch.no_grad():
            for p in self._parameters():
                self.state[p]["raw"] = p.detach().clone()
                p.copy_(self.state[p]["average"])
        self._swapped = True
        try:
            yield
        finally:
            self._restore()

    @torch.no_grad()
    def _restore(self) -> None:
        for p in self._parameters():
            raw = self.state[p].pop("raw", None)
            if raw is not None:
                p.copy_(raw)
        self._swapped = False

    def _parameters(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def state_dict(self) -> dict[str, Any]:
        """torch's, and under "trigger" the validation losses, n and the length of the average."""
        trigger = {"logs": list(self._logs), "count": self._count, "n": self.non_monotone}
        return {**super().state_dict(), "trigger": trigger}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`; raw weights in it go into the parameters.

        Raises:
            CheckpointError: if it is the state of another optimizer.
        """
        trigger = state_dict.get("trigger")
        if trigger is None:
            raise CheckpointError("NT-ASGD: expected its own state, found another optimizer's")
        super().load_state_dict(state_dict)
        self._logs = [float(v) for v in trigger["logs"]]
        self._count, self.non_monotone = int(trigger["count"]), int(trigger["n"])
        self._restore()

    def __getstate__(self) -> dict[str, Any]:
        own = {k: self.__dict__[k] for k in ("non_monotone", "_logs", "_count", "_swapped")}
        return {**super().__getstate__(), **own}


def averaged_weights(optimizer: Optimizer) -> AbstractContextManager[None]:
    """`optimizer.averaged()` where the optimizer averages; for every other one, nothing happens."""
    return optimizer.averaged() if isinstance(optimizer, NTASGD) else nullcontext()
