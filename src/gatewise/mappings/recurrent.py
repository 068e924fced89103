"""The recurrent part that every mapping has: its options, and the stack that is built from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.mappings.config import MAX_LAYERS, check_cell, check_rate, check_size
from gatewise.noise import Noise
from gatewise.stack import Stack


@dataclass(frozen=True, kw_only=True)
class RecurrentOptions:
    """Sizes and regularisation of the recurrent layers."""

    cell: str = "lstm"
    """Recurrent cell: lstm, gru, gru_paper, rnn_tanh, rnn_relu, lstm_layer_norm, ..."""

    hidden_size: int = 256
    """Units per layer."""

    num_layers: int = 1
    """Recurrent layers."""

    dropout: float = 0.0
    """Dropout on what goes into the layers, between them, and on what comes out."""

    weight_drop: float = 0.0
    """DropConnect: share of recurrent weights dropped, drawn once per batch."""

    zoneout: float = 0.0
    """Share of state units that keep their previous value, drawn per step."""

    forget_bias: float | None = None
    """Start value of the forget gate's bias (cells that have one); default: as other biases."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_cell(self.cell, self.forget_bias)
        check_size("hidden_size", self.hidden_size)
        check_size("num_layers", self.num_layers, MAX_LAYERS)
        for name in ("dropout", "weight_drop", "zoneout"):
            check_rate(name, getattr(self, name))


def build_stack(
    options: RecurrentOptions,
    input_size: int,
    *,
    bidirectional: bool = False,
    device: torch.device | str | None = None,
) -> Stack:
    """The stack that the options describe."""
    return Stack(
        options.cell,
        input_size,
        options.hidden_size,
        options.num_layers,
        dropout=options.dropout if options.num_layers > 1 else 0.0,
        bidirectional=bidirectional,
        weight_drop=options.weight_drop,
        zoneout=options.zoneout,
        init_bias=None if options.forget_bias is None else {"f": options.forget_bias},
        device=device,
    )


def dropped(x: Tensor, rate: float, training: bool) -> Tensor:
    """`x` with dropout in training: the seed comes from torch's generator, the mask from it alone."""
    if not training or not rate:
        return x
    mask = Noise.draw().keep("dropout", tuple(x.shape), rate, dtype=x.dtype, device=x.device)
    return x * mask
