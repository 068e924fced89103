"""Gradient clipping that says what it saw. Knows parameters; it knows no optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gatewise.errors import OptionError

_EPSILON = 1e-6  # of torch.nn.utils.clip_grad_norm_


@dataclass(frozen=True)
class GradientReport:
    """What `clip_gradients` saw, before it clipped. Reading `finite` or `worst` waits for the device.

    Args:
        norm: the 2-norm of all gradients together, a float scalar tensor on their device.
    """

    norm: Tensor
    _names: Sequence[str] = field(repr=False, default=())
    _norms: Tensor | None = field(repr=False, default=None)

    @property
    def finite(self) -> bool:
        """Whether no gradient is NaN or infinite (and their norm is a number)."""
        return bool(torch.isfinite(self.norm))

    @property
    def worst(self) -> str | None:
        """The parameter whose gradient is not finite, else the one of the largest norm."""
        if self._norms is None:
            return None
        return self._names[
            int(torch.where(self._norms.isfinite(), self._norms, torch.inf).argmax())
        ]


def clip_gradients(
    params: Iterable[Tensor] | Iterable[tuple[str, Tensor]],
    norm: float | None = None,
    value: float | None = None,
) -> GradientReport:
    """Clip the gradients in place, by value and then by their common norm; report what they were.

    By value: g <- min(max(g, -value), value). By norm (Pascanu, Mikolov and Bengio 2013, "On the
    difficulty of training recurrent neural networks", algorithm 1): g <- g * min(1, norm / (|g| + 1e-6)),
    |g| over all parameters together; the 1e-6 is torch's, so that the same run gives the same bits. Where the norm is not finite nothing is scaled: skip that step.

    Args:
        params: parameters, or pairs (name, parameter); those without gradient are left out.
        norm: largest norm. None: no clipping by norm.
        value: largest absolute value. None: no clipping by value.
    Returns:
        the norm before clipping, whether all is finite, and the worst parameter's name.
    Raises:
        OptionError: if norm or value is not a finite number above 0.
    """
    _check("clipping norm", norm)
    _check("clipping value", value)
    named = [p if isinstance(p, tuple) else (str(i), p) for i, p in enumerate(params)]
    found = [(name, p.grad) for name, p in named if p.grad is not None]
    if not found:
        return GradientReport(torch.zeros(()))
    grads = [grad for _, grad in found]
    total, norms = _norms(grads)
    if value is not None:
        for grad in grads:
            grad.clamp_(-value, value)
    if norm is not None:
        clipped = total if value is None else _norms(grads)[0]
        _scale(grads, clipped, norm)
    return GradientReport(total, [name for name, _ in found], norms)


def _norms(grads: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The norm of all gradients together, and of each, (parameters,); at least float32."""
    device = grads[0].device
    if _alike(grads):
        norms = torch.stack(torch._foreach_norm(grads, 2, _wide(grads[0])))
    else:
        norms = torch.stack([torch.linalg.vector_norm(g, dtype=_wide(g)).to(device) for g in grads])
    total = torch.linalg.vector_norm(norms)
    if device.type == "cpu" and not bool(total.isfinite()):
        # squares overflow float32 from 1e19 on: finite gradients must not pass for infinite ones
        norms = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64) for g in grads])
        total = torch.linalg.vector_norm(norms)
    return total, norms


def _wide(grad: Tensor) -> torch.dtype:
    return torch.float64 if grad.dtype == torch.float64 else torch.float32


def _scale(grads: list[Tensor], total: Tensor, limit: float) -> None:
    """grads <- grads * min(1, limit / total), without waiting for a GPU; untouched if not finite."""
    factor = (limit / (total + _EPSILON)).clamp(max=1.0)
    factor = torch.where(total.isfinite(), factor, torch.ones_like(factor))
    if factor.device.type == "cpu" and float(factor) == 1:
        return
    if _alike(grads):
        torch._foreach_mul_(grads, factor.to(grads[0].dtype))
        return
    for grad in grads:
        grad.mul_(factor.to(grad.device, grad.dtype))


def _alike(grads: list[Tensor]) -> bool:
    """Whether all are of one dtype and device: few calls then serve them all."""
    return len({(g.dtype, g.device) for g in grads}) == 1


def _check(name: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise OptionError(f"{name}: expected a finite number above 0, found {value}; None is off")
