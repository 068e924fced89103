"""Costs C(y, y~) for large vocabularies, and the penalties on activations of AWD-LSTM."""

from __future__ import annotations

from gatewise.losses.adaptive import AdaptiveSoftmax, default_cutoffs
from gatewise.losses.linear import linear_cross_entropy, plain_linear_cross_entropy
from gatewise.losses.penalties import activation_regularisation, temporal_activation_regularisation

__all__ = [
    "AdaptiveSoftmax",
    "activation_regularisation",
    "default_cutoffs",
    "linear_cross_entropy",
    "plain_linear_cross_entropy",
    "temporal_activation_regularisation",
]
