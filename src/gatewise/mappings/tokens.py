"""Tokens as a model is given them: checked before they index anything."""

from __future__ import annotations

import torch
from torch import Tensor

from gatewise.errors import DataError, ShapeError


def check_tokens(tokens: Tensor, vocab_size: int) -> None:
    """Raise unless `tokens` are ids (T, B) of a vocabulary.

    Raises:
        ShapeError: if they are not (T, B) of whole numbers.
        DataError: if one is not in the vocabulary.
    """
    if tokens.dim() != 2 or tokens.is_floating_point():
        raise ShapeError(
            f"expected tokens (T, B) of whole numbers, found {tuple(tokens.shape)} of {tokens.dtype}"
        )
    # on an accelerator the check would wait for the device at each step
    if tokens.numel() and tokens.device.type == "cpu":
        low, high = (int(v) for v in torch.aminmax(tokens))
        if low < 0 or high >= vocab_size:
            raise DataError(
                f"expected tokens from 0 to {vocab_size - 1}, found {low if low < 0 else high}: "
                "was another tokenizer used?"
            )
