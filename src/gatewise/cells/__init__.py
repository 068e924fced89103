"""The cells: one file per paper, one line here."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.coupled_lstm import CoupledLSTM
from gatewise.cells.elman import RNN, ReluRNN
from gatewise.cells.gru import GRU, PaperGRU
from gatewise.cells.indrnn import IndRNN
from gatewise.cells.janet import JANET
from gatewise.cells.layer_norm_lstm import LayerNormLSTM
from gatewise.cells.light_gru import LightGRU
from gatewise.cells.lstm import LSTM
from gatewise.cells.minimal import MinGRU, MinLSTM
from gatewise.cells.mogrifier import Mogrifier
from gatewise.cells.peephole_lstm import PeepholeLSTM
from gatewise.cells.slstm import SLSTM
from gatewise.errors import unknown

_ALL: tuple[type[Cell], ...] = (
    RNN,
    ReluRNN,
    LSTM,
    GRU,
    PaperGRU,
    LayerNormLSTM,
    PeepholeLSTM,
    CoupledLSTM,
    JANET,
    LightGRU,
    IndRNN,
    SLSTM,
    MinLSTM,
    MinGRU,
    Mogrifier,
)

REGISTRY: dict[str, type[Cell]] = {cell.law.name: cell for cell in _ALL}
"""Cell name, as in a configuration -> its class."""

__all__ = [
    "GRU",
    "JANET",
    "LSTM",
    "REGISTRY",
    "RNN",
    "SLSTM",
    "Cell",
    "CoupledLSTM",
    "IndRNN",
    "Law",
    "LayerNormLSTM",
    "LightGRU",
    "MinGRU",
    "MinLSTM",
    "Mogrifier",
    "PaperGRU",
    "PeepholeLSTM",
    "ReluRNN",
    "find",
]


def find(cell: str | type[Cell]) -> type[Cell]:
    """The class of a cell given by name or as a class.

    Raises:
        UnknownNameError: if there is no cell of that name.
    """
    if isinstance(cell, str):
        if cell not in REGISTRY:
            raise unknown("cell", cell, REGISTRY)
        return REGISTRY[cell]
    return cell
