"""Jacobians of one step, along a sequence, and their singular values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.errors import OptionError
from gatewise.gradients.nets import Net, Steps, flatten, unflatten
from gatewise.modes import evaluating
from gatewise.types import State


@dataclass(frozen=True, eq=False)
class Spectrum:
    """What the steps of a net do to small changes of its state.

    Args:
        times: (n,), the steps looked at.
        singular: (n, B, S), singular values of the step's Jacobian, the largest first: how far it stretches.
        radius: (n, B), the largest modulus of its eigenvalues.
    """

    times: Tensor
    singular: Tensor
    radius: Tensor

    def _repr_html_(self) -> str:
        from gatewise.gradients.showing import spectrum_html

        return spectrum_html(self.times, self.singular, self.radius)


def jacobians(
    net: Net, x: Tensor, state: State = None, *, every: int = 1, start: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """The Jacobian of the carried state by the one before, along a sequence.

    The state is that of all layers, as what the next step starts from: one vector a column, its parts
    in order (h of all layers, then c). Noise is off.

    Args:
        net: of one direction.
        x: inputs, (T, B, I).
        state: before the first step. Default: the start's.
        every: only each so manieth step.
        start: the time of x[0].
    Yields:
        The step k from 0, and d state[k] / d state[k-1], (B, S, S).
    Raises:
        OptionError: if the net is bidirectional, or `every` is less than 1.
    """
    steps = Steps(net)
    if steps.bidirectional:
        raise OptionError("expected a net of one direction: a step back in time has no next state")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise OptionError(f"every: expected a whole number of 1 or more, found {every!r}")
    steps.check(x, state)
    return _along(steps, x.detach(), state, every, start)


def _along(
    steps: Steps, x: Tensor, state: State, every: int, start: int
) -> Iterator[tuple[int, Tensor]]:
    columns = x.shape[1]
    before = steps.begin(x, state)
    for k in range(len(x)):
        # evaluation mode ends before each yield: what is done in between is the caller's
        with evaluating(steps.net):
            if k % every:
                with torch.no_grad():
                    before = steps.run(x[k : k + 1], before, start=start + k).state
                continue
            given = flatten(before, columns).detach().requires_grad_()
            with torch.enable_grad():
                out = steps.run(x[k : k + 1], unflatten(given, before), start=start + k)
                after = flatten(out.state, columns)
            size = given.shape[1]
            eye = torch.eye(size, dtype=x.dtype, device=x.device)
            rows = eye[:, None].expand(size, columns, size)
            (found,) = torch.autograd.grad(after, given, rows, is_grads_batched=True)
            before = unflatten(after.detach(), before)
        yield k, found.transpose(0, 1)


def spectra(
    net: Net, x: Tensor, state: State = None, *, every: int = 1, start: int = 0
) -> Spectrum:
    """Singular values and spectral radius of the step's Jacobian along a sequence.

    Arguments and errors as for `jacobians`. A radius below 1 all along means that what is there fades, one
    above 1 that it grows (Pascanu et al. 2013, section 2.1).
    """
    times, singular, radius = [], [], []
    for k, jacobian in jacobians(net, x, state, every=every, start=start):
        jacobian = widened(jacobian)
        times.append(start + k)
        singular.append(torch.linalg.svdvals(jacobian))
        radius.append(torch.linalg.eigvals(jacobian).abs().amax(dim=-1))
    return Spectrum(torch.tensor(times), torch.stack(singular), torch.stack(radius))


def widened(matrix: Tensor) -> Tensor:
    """A matrix in single precision at least: decompositions know no less."""
    return matrix if matrix.dtype == torch.float64 else matrix.float()
