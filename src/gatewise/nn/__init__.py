"""Drop-ins for torch.nn's RNN, LSTM, GRU and their cells: same signature, keys and results, gates open.

What they take beyond torch's: ``forward(x, state, lengths=, reset=, start=, engine=, record=, control=)``,
the cells all but lengths and reset. With ``record=`` there is one result more, the records. This module
alone knows batch-first and packed input.
"""

from __future__ import annotations

from gatewise.nn.cells import GRUCell, LSTMCell, RNNCell
from gatewise.nn.layers import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]
