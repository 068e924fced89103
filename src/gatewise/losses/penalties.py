"""The two penalties on activations of AWD-LSTM: they know tensors of hidden states, and no model."""

from __future__ import annotations

import math

from torch import Tensor

from gatewise.errors import OptionError, ShapeError


def activation_regularisation(h: Tensor, alpha: float = 2.0) -> Tensor:
    """AR: alpha times the mean square of the activations.

    AR = alpha * mean_{t,b,j} (m * h)[t, b, j]^2, with m the dropout mask of the output (Merity,
    Keskar and Socher 2017, "Regularizing and Optimizing LSTM Language Models", section 4.6). The
    paper writes an L2 norm; its published program takes the mean of squares, as here, and the
    values of alpha in use (2) belong to that.

    Args:
        h: the last layer's outputs after dropout, (T, B, H).
        alpha: weight of the penalty; 0 gives 0.
    Returns:
        the penalty, a scalar to add to the loss in nats per token.
    Raises:
        OptionError: if alpha is negative or not finite.
    """
    _check_weight("alpha", alpha)
    if alpha == 0 or h.numel() == 0:
        return h.new_zeros(())
    return alpha * h.float().square().mean() if h.itemsize < 4 else alpha * h.square().mean()


def temporal_activation_regularisation(h: Tensor, beta: float = 1.0) -> Tensor:
    """TAR: beta times the mean square of the change from one step to the next.

    TAR = beta * mean_{t,b,j} (h[t+1, b, j] - h[t, b, j])^2 (Merity, Keskar and Socher 2017, section
    4.6), over the T - 1 pairs of the window; 0 where T = 1.

    Args:
        h: the last layer's outputs *before* dropout, (T, B, H).
        beta: weight of the penalty; 0 gives 0.
    Returns:
        the penalty, a scalar to add to the loss in nats per token.
    Raises:
        OptionError: if beta is negative or not finite.
        ShapeError: if h has no time dimension.
    """
    _check_weight("beta", beta)
    if h.dim() < 1:
        raise ShapeError(
            "h: expected (T, B, H), found a scalar; pass the outputs of the last layer"
        )
    if beta == 0 or h.shape[0] < 2 or h.numel() == 0:
        return h.new_zeros(())
    wide = h.float() if h.itemsize < 4 else h
    return beta * (wide[1:] - wide[:-1]).square().mean()


def _check_weight(name: str, value: float) -> None:
    if not math.isfinite(value) or value < 0:
        raise OptionError(f"{name}: expected a finite number >= 0, found {value}; use 0 for none")
