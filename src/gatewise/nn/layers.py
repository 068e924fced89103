"""Drop-ins for torch.nn.RNN, LSTM and GRU."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gatewise import cells
from gatewise.cells.base import Cell
from gatewise.errors import OptionError, ShapeError
from gatewise.nn.packed import NO_TIMES, add_batch, plain, repack, unpack
from gatewise.probe import Control, Record, Records
from gatewise.stack import Layers
from gatewise.types import State, map_state
from gatewise.unrolling import Unrolled


class _DropIn(Layers):
    """What RNN, LSTM and GRU share."""

    batch_first: bool

    def __init__(
        self,
        cell: type[Cell],
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(
            cell,
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=proj_size,
            device=device,
            dtype=dtype,
        )
        self.batch_first = batch_first
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero "
                f"dropout expects num_layers greater than 1, but got dropout={dropout} and "
                f"num_layers={num_layers}",
                stacklevel=3,
            )

    @property
    def mode(self) -> str:
        """torch.nn's name of the kind: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU"."""
        return self._law.name.upper()

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The weights of each layer and direction."""
        return [[getattr(self, n) for n in names.values()] for _, names in self._weight_names]

    def flatten_parameters(self) -> None:
        """Lay the weights out as one block, which cuDNN wants; nothing to do on other devices."""
        flat: list[Tensor] = [p for group in self.all_weights for p in group]
        if not flat or not all(p.is_cuda and _cudnn_takes(p) for p in flat):
            return
        with torch.no_grad(), torch.cuda.device(flat[0].device):
            torch._cudnn_rnn_flatten_weight(
                flat,
                4 if self.bias else 2,
                self.input_size,
                {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}[self._law.name],
                self.hidden_size,
                self.proj_size,
                self.num_layers,
                False,
                self.bidirectional,
            )

    def forward(
        self,
        input: Tensor | PackedSequence,  # torch's name, so that keyword calls work
        hx: State = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        start: int | Tensor = 0,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> Any:
        """Run over time, as torch.nn does.

        Args:
            input: (T, B, I), (T, I) without a batch, (B, T, I) where batch_first, or packed.
            hx: the first state, (L D, B, H) each; (L D, H) without a batch. Default: zeros.
            lengths, reset, start, engine, record, control: as in `gatewise.unroll`; lengths, reset
                and records are time first, whatever batch_first says.
        Returns:
            (y, state), and the records as a third where `record` is given.
        """
        options: dict[str, Any] = {"start": start, "engine": engine}
        options |= {"record": record, "control": control}
        if isinstance(input, PackedSequence):
            if lengths is not None or reset is not None:
                raise OptionError("a PackedSequence has its own lengths: leave lengths= and reset=")
            x, lengths = unpack(input)
            out = self.run(x, plain(hx), lengths=lengths, **options)
            y: Any = repack(out.h, input)
        else:
            batched = self._check_rank(input)
            x = input if batched else input.unsqueeze(1)
            if batched and self.batch_first:
                x = x.transpose(0, 1)
            given = plain(hx) if batched else map_state(add_batch, plain(hx))
            out = self.run(x, given, lengths=lengths, reset=reset, **options)
            y, out = self._give_back(out, batched)
        return (
            (y, out.state)
            if record is None
            else (y, out.state, out.record or Records({}, NO_TIMES))
        )

    def _check_rank(self, x: Tensor) -> bool:
        if not isinstance(x, Tensor):
            raise ShapeError(f"expected a tensor or a PackedSequence, found {type(x).__name__}")
        if x.ndim not in (2, 3):
            raise ShapeError(
                f"{type(self).__name__}: expected input to be 2D or 3D, got {x.ndim}D instead"
            )
        return x.ndim == 3

    def _give_back(self, out: Unrolled, batched: bool) -> tuple[Tensor, Unrolled]:
        if not batched:
            state = map_state(lambda s: s.squeeze(1), out.state)
            record = out.record
            if record is not None:
                record = Records({n: v.squeeze(1) for n, v in record.items()}, record.times)
            return out.h.squeeze(1), Unrolled(out.h, state, record, out.engine)
        return (out.h.transpose(0, 1) if self.batch_first else out.h), out

    def extra_repr(self) -> str:
        """As torch.nn's."""
        s = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size != 0:
            s += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            s += f", num_layers={self.num_layers}"
        if self.bias is not True:
            s += f", bias={self.bias}"
        if self.batch_first is not False:
            s += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            s += f", dropout={self.dropout}"
        if self.bidirectional is not False:
            s += f", bidirectional={self.bidirectional}"
        return s


def _cudnn_takes(p: Tensor) -> bool:
    return bool(torch.backends.cudnn.is_acceptable(p))  # type: ignore[no-untyped-call]


class RNN(_DropIn):
    """torch.nn.RNN with its values open: h = tanh (or relu) of W x + b_ih + R h' + b_hh."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As torch.nn.RNN: (input_size, hidden_size, num_layers, nonlinearity, bias, ...)."""
        given = dict(zip(_RNN_ARGUMENTS, args, strict=False))
        if len(args) > len(_RNN_ARGUMENTS) or set(given) & set(kwargs):
            raise TypeError(f"RNN takes ({', '.join(_RNN_ARGUMENTS)}), each once")
        options: dict[str, Any] = {**_RNN_DEFAULTS, **given, **kwargs}
        if kwargs.keys() - set(_RNN_ARGUMENTS) or not {"input_size", "hidden_size"} <= set(options):
            raise TypeError(f"RNN takes ({', '.join(_RNN_ARGUMENTS)}), the first two required")
        self.nonlinearity = options.pop("nonlinearity")
        if self.nonlinearity not in ("tanh", "relu"):
            raise OptionError(
                f"unknown nonlinearity {self.nonlinearity!r}: expected 'tanh' or 'relu'"
            )
        law: type[Cell] = cells.RNN if self.nonlinearity == "tanh" else cells.ReluRNN
        super().__init__(law, **options, proj_size=0)


_RNN_DEFAULTS: dict[str, Any] = {
    "num_layers": 1,
    "nonlinearity": "tanh",
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "device": None,
    "dtype": None,
}
_RNN_ARGUMENTS = ("input_size", "hidden_size", *_RNN_DEFAULTS)


class LSTM(_DropIn):
    """torch.nn.LSTM with its gates open.

    >>> lstm = LSTM(3, 4)
    >>> y, (h, c), record = lstm(torch.zeros(5, 2, 3), record=Record("f"))
    >>> y.shape, h.shape, record["layers.0.f"].shape
    (torch.Size([5, 2, 4]), torch.Size([1, 2, 4]), torch.Size([5, 2, 4]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            cells.LSTM,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )


class GRU(_DropIn):
    """torch.nn.GRU with its gates open."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            cells.GRU,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
        )
