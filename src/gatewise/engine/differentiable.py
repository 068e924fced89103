"""A pair of passes, forward and backward, as one function with gradients of any order. Knows autograd only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from gatewise.engine.cpu import forks


class Passes(Protocol):
    """One run forward, and the way back through it."""

    def forward(self, inputs: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """The results."""

    def backward(
        self,
        inputs: Sequence[Tensor | None],
        gradients: Sequence[Tensor | None],
        wanted: Sequence[bool],
    ) -> list[Tensor | None]:
        """The gradients of the inputs that are wanted, from those of the results."""


Again = Callable[[Sequence["Tensor | None"]], "tuple[Tensor, ...]"]
"""The same results from the same inputs by torch's operators."""


def differentiable(
    make: Callable[[Sequence[Tensor | None]], Passes],
    again: Again,
    inputs: Sequence[Tensor | None],
) -> tuple[Tensor, ...]:
    """The results of the passes that `make` makes for the inputs, with their gradients.

    Autocast is off within the passes: they know their dtypes. Gradients of gradients go through `again`.
    """
    if not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in inputs):
        with _without_autocast(inputs):
            return make(inputs).forward(inputs)
    return _Function.apply(make, again, *inputs)  # type: ignore[no-untyped-call, no-any-return]


def _without_autocast(inputs: Sequence[Tensor | None]) -> AbstractContextManager[object]:
    """A block in which autocast is off; entering one costs more than asking."""
    kind = next(t for t in inputs if t is not None).device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        make: Callable[[Sequence[Tensor | None]], Passes],
        again: Again,
        *inputs: Tensor | None,
    ) -> tuple[Tensor, ...]:
        ctx.again, ctx.device = again, next(t for t in inputs if t is not None).device.type
        ctx.save_for_backward(*inputs)
        with _without_autocast(inputs):
            ctx.passes = make(inputs)
            return ctx.passes.forward(inputs)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs: tuple[Tensor | None, ...] = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            return None, None, *_through_operators(ctx.again, inputs, gradients, wanted)
        with forks.alive(), torch.autocast(ctx.device, enabled=False):
            return None, None, *ctx.passes.backward(inputs, gradients, wanted)


def _through_operators(
    again: Again,
    inputs: Sequence[Tensor | None],
    gradients: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients as a graph of their own."""
    outputs = again(inputs)
    pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None]
    pairs = [(o, g) for o, g in pairs if o.requires_grad]
    leaves = [t for t, want in zip(inputs, wanted, strict=True) if want]
    if not pairs:
        return [None] * len(inputs)
    found = iter(
        torch.autograd.grad(
            [o for o, _ in pairs],
            leaves,  # type: ignore[arg-type]
            [g for _, g in pairs],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if want else None for want in wanted]
