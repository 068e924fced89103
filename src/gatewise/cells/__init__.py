"""The cells: one file per paper, one line here."""

from __future__ import annotations

from gatewise.cells.base import Cell, Law
from gatewise.cells.elman import RNN, ReluRNN
from gatewise.cells.gru import GRU, PaperGRU
from gatewise.cells.layer_norm_lstm import LayerNormLSTM
from gatewise.cells.lstm import LSTM
from gatewise.errors import unknown

_ALL: tuple[type[Cell], ...] = (RNN, ReluRNN, LSTM, GRU, PaperGRU, LayerNormLSTM)

REGISTRY: dict[str, type[Cell]] = {cell.law.name: cell for cell in _ALL}
"""Cell name, as in a configuration -> its class."""

__all__ = [
    "GRU",
    "LSTM",
    "REGISTRY",
    "RNN",
    "Cell",
    "Law",
    "LayerNormLSTM",
    "PaperGRU",
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
