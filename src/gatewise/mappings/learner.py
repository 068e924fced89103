"""What a mapping offers so that the one training loop can train it.

The loop knows steps, positions and a state that it carries without looking inside; the mapping knows
what a batch is. Everything here is a function of its arguments: a batch is found by its epoch and
position alone, so that a run can be taken up again at any step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from gatewise.types import State


@dataclass(frozen=True)
class Batch:
    """One training step's data.

    Attributes:
        inputs: tensors that only the mapping understands.
        stop: position at which the next batch begins; `Learner.positions` ends the epoch.
        start: time of the first step, counted from where the state was last reset.
        tokens: predictions in the batch (the unit of speed).
        lr_scale: factor on this step's learning rate.
        name: what a message calls it.
        enter: what the carried state becomes before the step; None: it stays as it is.
    """

    inputs: tuple[Tensor, ...]
    stop: int
    start: int
    tokens: int
    lr_scale: float = 1.0
    name: str = "batch"
    enter: Callable[[State], State] | None = None


@dataclass(frozen=True)
class Loss:
    """What a step minimises, and what it reports.

    Attributes:
        loss: scalar with its graph, regularisation included.
        nats: scalar without a graph, mean nats per prediction, no regularisation.
        state: what the next batch of the same epoch starts from, or None.
        engine: name of the engine that ran.
    """

    loss: Tensor
    nats: Tensor
    state: State
    engine: str = ""


class Figures(Protocol):
    """What an evaluation found; `metrics.Tally` is one."""

    @property
    def cost(self) -> float:
        """Mean cost of a prediction: the lower the better; what the best checkpoint is chosen by."""

    def summary(self) -> dict[str, Any]:
        """All figures by name, JSON-able; None where one is not a finite number."""


class Learner(Protocol):
    """A model together with its data, as the training loop sees them.

    Attributes:
        kind: the mapping's name on the command line ("lm").
        model: what is trained.
        positions: length of an epoch, in the units of `Batch.stop`.
        uniform_nats: nats per prediction of a uniform guess, or None.
        engine: name of the engine asked for, or "auto"; set where a run is taken up with its own.
        unit: what `Batch.tokens` counts: "tokens", "examples", ...
    """

    engine: str
    unit: str

    @property
    def kind(self) -> str: ...

    @property
    def model(self) -> nn.Module: ...

    @property
    def positions(self) -> int: ...

    @property
    def uniform_nats(self) -> float | None: ...

    def batch(self, epoch: int, position: int) -> Batch:
        """The batch that begins at `position` of `epoch`; the same whenever it is asked for."""

    def loss(self, batch: Batch, state: State) -> Loss:
        """The loss on `batch`, starting from the detached `state` (None: from the beginning)."""

    def has_part(self, part: str) -> bool:
        """Whether "valid" or "test" can be evaluated."""

    def evaluate(self, part: str, stopped: Callable[[], bool] = ...) -> Figures | None:
        """What a whole part costs; None if `stopped()` became true on the way."""

    def config(self) -> dict[str, Any]:
        """What a checkpoint says about model and data, JSON-able."""

    def tokenizer_json(self) -> str | None:
        """The tokenizer to store beside the weights."""


@runtime_checkable
class Adapting(Protocol):
    """A learner whose further data depend on how well it does: it has a state of its own."""

    def adapt(self, figures: Any) -> str | None:
        """Take note of a regular evaluation; a line to be told if that changes what follows."""

    def adapted(self) -> dict[str, Any]:
        """What a resumed run needs to know of it, JSON-able."""

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from what `adapted` gave."""


@runtime_checkable
class Ending(Protocol):
    """A learner that knows when there is nothing left to learn."""

    @property
    def ended(self) -> str:
        """Why training is to end, in a word; "" while it is not."""
