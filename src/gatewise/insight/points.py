"""Slow points of a trained net under a constant input, their stability, and paths of states in a plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError, ShapeError
from gatewise.gradients import jacobians
from gatewise.gradients.jacobians import widened
from gatewise.gradients.nets import Net, Steps, flatten, unflatten
from gatewise.modes import evaluating
from gatewise.types import State, map_state, state_tensors

_NEWTON = 6
_ROOM = 1 << 24
"""Numbers that the Jacobians of the points looked at together may hold."""


@dataclass(frozen=True, eq=False)
class SlowPoints:
    """States that one step leaves nearly where they are.

    Args:
        states: (n, S), each as `gatewise.gradients.flatten` lays a state out, the slowest first.
        speeds: (n,), |F(s) - s| of each.
        eigenvalues: (n, S) complex, of the step's Jacobian there, the largest modulus first.
    """

    states: Tensor
    speeds: Tensor
    eigenvalues: Tensor

    def __len__(self) -> int:
        return len(self.states)

    @property
    def unstable(self) -> Tensor:
        """(n,), how many directions grow there: 0 of an attractor, one or a few of a saddle.

        By more than rounding, 1e-4 a step in single precision and 1e-6 in double: what a gate keeps has the eigenvalue 1.
        """
        most = 1 + max(1000 * torch.finfo(self.speeds.dtype).eps, 1e-6)
        return (self.eigenvalues.abs() > most).sum(1)


def slow_points(
    net: Net,
    x: Tensor,
    starts: State,
    *,
    steps: int = 1000,
    lr: float = 0.02,
    tolerance: float = 1e-3,
    apart: float = 1e-2,
) -> SlowPoints:
    """States at which a net under a constant input stands nearly still.

    q(s) = |F(s, x) - s|^2 / 2 goes down by gradient descent (Adam, the rate along a cosine), from many states at once
    (Sussillo & Barak 2013, equation 2.2), then a few steps of Newton's method, where they help. What is not slow enough at the end is left out, and of points that
    are the same the slowest is kept.

    Args:
        net: of one direction.
        x: the constant input, (I,).
        starts: the states to begin at, such as those that a net went through; their columns are the points.
        steps, lr: of the descent.
        tolerance: largest |F(s) - s| of a point.
        apart: distance below which two are the same.
    Raises:
        OptionError: if the net is bidirectional or of half precision, or an option is outside its range.
        ShapeError: if x is not (I,), or the starts are no states in columns.
        DataError: there is no start.
    """
    net_steps = Steps(net)
    if net_steps.bidirectional:
        raise OptionError("expected a net of one direction: a step back in time has no next state")
    if x.shape != (net_steps.input_size,):
        raise ShapeError(f"expected x of shape ({net_steps.input_size},), found {tuple(x.shape)}")
    if steps < 1 or lr <= 0 or tolerance <= 0 or apart < 0:
        raise OptionError(
            "expected steps of 1 or more, lr and tolerance above 0, apart of 0 or more"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise OptionError(f"expected a net in single or double precision, found {x.dtype}")
    columns = next(iter(_parts(starts))).shape[-2]
    places = flatten(starts, columns).detach().clone().requires_grad_()
    inputs = x.detach().expand(1, columns, -1)
    optimizer = torch.optim.Adam([places], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with evaluating(net), torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            moved = _moved(net_steps, inputs, places, starts)
            cost = 0.5 * (moved - places).square().sum()
            (places.grad,) = torch.autograd.grad(cost, places)
            optimizer.step()
            schedule.step()
    parts = [_polished(net_steps, x, part, starts) for part in _chunks(places.detach())]
    found, speeds = (torch.cat(one) for one in zip(*parts, strict=True))
    kept = _different(found, speeds, tolerance, apart)
    return _described(net, x, found[kept], speeds[kept], starts)


def _chunks(places: Tensor) -> Sequence[Tensor]:
    """Places some at a time, so that their Jacobians have room."""
    return torch.split(places, max(1, _ROOM // places.shape[1] ** 2))


def _parts(state: State) -> list[Tensor]:
    found = list(state_tensors(state))
    if not found or not all(part.numel() for part in found):
        raise DataError("expected states to begin at, found none")
    for part in found:
        if part.ndim < 2 or not part.dtype.is_floating_point:
            raise ShapeError(
                "expected starts as states of columns, (B, H) or (L, B, H) of floating-point numbers, found "
                f"{tuple(part.shape)} of {part.dtype}"
            )
    return found


def _moved(steps: Steps, inputs: Tensor, places: Tensor, like: State) -> Tensor:
    """Where one step takes the states."""
    return flatten(steps.run(inputs, unflatten(places, like)).state, len(places))


def _polished(steps: Steps, x: Tensor, places: Tensor, starts: State) -> tuple[Tensor, Tensor]:
    """The states after a few steps of Newton's method, where those make them slower; and their speeds.

    Where no fixed point is near, a step makes it worse and is not taken: a slow point stays one.
    """
    inputs, like = x.detach().expand(1, len(places), -1), _few(starts, len(places))
    eye = torch.eye(places.shape[1], dtype=places.dtype, device=places.device)
    with evaluating(steps.net), torch.no_grad():
        rest = _moved(steps, inputs, places, like) - places
        speeds = torch.linalg.vector_norm(rest, dim=1)
        for _ in range(_NEWTON):
            _, jacobian = next(iter(jacobians(steps.net, inputs, unflatten(places, like))))
            move = torch.linalg.lstsq(eye - jacobian, rest.unsqueeze(2)).solution.squeeze(2)
            tried = places + move
            left = _moved(steps, inputs, tried, like) - tried
            slower = torch.linalg.vector_norm(left, dim=1) < speeds
            places = torch.where(slower[:, None], tried, places)
            rest = torch.where(slower[:, None], left, rest)
            speeds = torch.linalg.vector_norm(rest, dim=1)
    return places, speeds


def _different(places: Tensor, speeds: Tensor, tolerance: float, apart: float) -> list[int]:
    """The slow ones, slowest first, each at least so far from those before."""
    kept: list[int] = []
    for k in speeds.argsort().tolist():
        if not speeds[k] <= tolerance:
            break
        if all(torch.linalg.vector_norm(places[k] - places[j]) > apart for j in kept):
            kept.append(k)
    return kept


def _described(net: Net, x: Tensor, places: Tensor, speeds: Tensor, like: State) -> SlowPoints:
    if not len(places):
        return SlowPoints(places, speeds, places.to(places.dtype.to_complex()))
    several = []
    for part in _chunks(places):
        given = unflatten(part, _few(like, len(part)))
        _, found = next(iter(jacobians(net, x.expand(1, len(part), -1), given)))
        several.append(torch.linalg.eigvals(found))
    values = torch.cat(several)
    order = values.abs().argsort(dim=1, descending=True)
    return SlowPoints(places, speeds, values.gather(1, order))


def _few(state: State, columns: int) -> State:
    """A state of the same form with so many columns."""
    return map_state(lambda part: part[..., :1, :].expand(*part.shape[:-2], columns, -1), state)


@dataclass(frozen=True, eq=False)
class Plane:
    """The directions in which states differ most.

    Args:
        mean: (S,).
        axes: (n, S), orthonormal, the most important first.
        shares: (n,), of the variance.
    """

    mean: Tensor
    axes: Tensor
    shares: Tensor

    def project(self, states: Tensor) -> Tensor:
        """States (..., S) as coordinates, (..., n)."""
        return (states - self.mean) @ self.axes.T


def principal_plane(states: Tensor, dimensions: int = 2) -> Plane:
    """The principal components of states (n, S); signs such that the largest weight of each is positive.

    Raises:
        DataError: fewer than two states.
        ShapeError: the states are no matrix.
        OptionError: more dimensions than states or numbers.
    """
    if states.ndim != 2:
        raise ShapeError(f"expected states (n, S), found {tuple(states.shape)}: use flatten(0, -2)")
    if len(states) < 2:
        raise DataError(f"expected at least two states, found {len(states)}")
    most = min(states.shape)
    if not 1 <= dimensions <= most:
        raise OptionError(f"dimensions: expected 1 to {most}, found {dimensions}")
    states = widened(states)
    mean = states.mean(0)
    _, sizes, axes = torch.linalg.svd(states - mean, full_matrices=False)
    axes = axes[:dimensions]
    largest = axes.abs().argmax(1, keepdim=True)
    axes = axes * axes.gather(1, largest).sign()
    total = sizes.square().sum().clamp_min(torch.finfo(sizes.dtype).tiny)
    return Plane(mean, axes, sizes[:dimensions].square() / total)
