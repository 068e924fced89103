"""The arithmetic of `linear_cross_entropy` around the compiled softmax: three products and one kernel a chunk.

Same results as `chunks.compute`, which is the truth it is tested against. Scores are kept in the dtype of
the products: in bfloat16 they take half the memory, and the kernel turns them into their gradient in place.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from gatewise.engine.cpu.engine import CompiledEngine
from gatewise.losses.chunks import Gradients, Plan, even

_DTYPES = (torch.float32, torch.bfloat16)
_ALIGN = 16  # numbers; rows of scores begin at multiples of it
_SMALL = 1 << 14  # scores that one thread deals with sooner than two are woken


@cache
def available() -> bool:
    """Whether kernels can be made on this machine."""
    return CompiledEngine().available() is None


def serves(h: Tensor, plan: Plan) -> bool:
    """Whether the compiled kernels compute this."""
    fits = plan.matmul in _DTYPES and plan.accumulate == torch.float32
    return h.device.type == "cpu" and fits and available()


def compute(
    h: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    row_weights: Tensor | None,
    factor: float,
    plan: Plan,
    wants: tuple[bool, ...],
) -> tuple[Tensor, Gradients]:
    """As `chunks.compute`; in bfloat16 the gradient of a bfloat16 h is not widened."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        work = _Work(h, weight, bias, plan, wants)
        losses = torch.empty(len(h))
        mass = (
            torch.full((len(h),), factor) if row_weights is None else row_weights.float() * factor
        )
        rows = max(1, even(len(h), plan.rows))
        target = target.contiguous()
        for start in range(0, len(h), rows):
            span = slice(start, min(start + rows, len(h)))
            work.chunk(span, h[span].to(plan.matmul), target[span], mass[span], losses[span])
        return losses, work.gradients()


class _Work:
    """The buffers of one call, and its gradients as they grow."""

    def __init__(
        self, h: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, wants: tuple[bool, ...]
    ) -> None:
        # llvmlite is loaded by the first cost, not by `import gatewise`
        from gatewise.engine.cpu.softmax import softmax_kernels

        self._kernels = softmax_kernels(plan.matmul)
        self._weight = weight.to(plan.matmul)
        classes, self._wants = len(weight), wants
        self._stride = -(-classes // _ALIGN) * _ALIGN
        rows = min(max(1, even(len(h), plan.rows)), len(h))
        self._scores = torch.empty(rows * self._stride, dtype=plan.matmul)
        self._bias = torch.zeros(self._stride) if bias is None else _padded(bias, self._stride)
        smooth = plan.smoothing
        self._shares = torch.tensor([smooth, 1 - smooth, smooth / classes])
        self._threads = torch.get_num_threads() if rows * classes > _SMALL else 1
        self._sums = torch.zeros(self._threads, self._stride if any(wants) else 0)
        make = torch.empty if len(h) else torch.zeros
        narrow = h.dtype if h.dtype == plan.matmul else torch.float32
        self._dh = make(h.shape, dtype=narrow) if wants[0] else None
        self._dw = make(weight.shape) if wants[1] else None

    def chunk(self, span: slice, h: Tensor, target: Tensor, mass: Tensor, losses: Tensor) -> None:
        """The costs of some rows, and what they have for the gradients."""
        rows, classes = len(h), len(self._weight)
        scores = self._scores[: rows * self._stride].view(rows, self._stride)[:, :classes]
        torch.mm(h, self._weight.t(), out=scores)
        values = {
            "scores": scores, "bias": self._bias, "targets": target, "losses": losses,
            "shares": self._shares, "weights": mass, "sums": self._sums,
        }  # fmt: skip
        addresses = {name: tensor.data_ptr() for name, tensor in values.items()}
        self._kernels[any(self._wants)](
            addresses | {"rows": rows, "classes": classes}, self._threads
        )
        if self._dh is not None:
            _product(self._dh[span], scores, self._weight, first=True)
        if self._dw is not None:
            _product(self._dw, scores.t(), h, first=span.start == 0)

    def gradients(self) -> Gradients:
        """What has been gathered."""
        db = self._sums.sum(0)[: len(self._weight)] if self._wants[2] else None
        return Gradients(self._dh, self._dw, db)


def _padded(bias: Tensor, size: int) -> Tensor:
    """The bias in float32, zeros behind it."""
    wide = bias.to(torch.float32).contiguous()
    return wide if len(bias) == size else torch.nn.functional.pad(wide, (0, size - len(bias)))


def _product(out: Tensor, a: Tensor, b: Tensor, *, first: bool) -> None:
    """out <- out + a @ b; the first time `out` need not be read."""
    if a.dtype != out.dtype:
        part = a @ b
        if first:
            out.copy_(part)
        else:
            out.add_(part)
    elif first:
        torch.mm(a, b, out=out)
    else:
        out.addmm_(a, b)
