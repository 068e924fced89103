"""A model without weights that obeys the forward contract of language models, and its tokenizer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class FakeModel(nn.Module):
    """Scores that depend on all tokens read, through a state of one number per column.

    Args:
        vocab_size: V.
        seed: of the table of scores.
        order: the state is a number of this many last tokens.
        scale: the larger, the surer is the model.
    """

    def __init__(self, vocab_size: int = 7, seed: int = 0, order: int = 2, scale: float = 2.0):
        super().__init__()
        self.vocab_size = vocab_size
        self._states = (vocab_size + 1) ** order
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(self._states, vocab_size, generator=generator) * scale
        self.table = nn.Parameter(table, requires_grad=False)
        self.calls: list[tuple[int, int, int]] = []  # T, B, start
        self.modes: list[bool] = []

    def forward(
        self,
        tokens: Tensor,
        state: Any = None,
        *,
        logits: str = "all",
        start: int = 0,
        engine: str = "auto",
        control: Any = None,
    ) -> SimpleNamespace:
        time, batch = tokens.shape
        self.calls.append((time, batch, start))
        self.modes.append(self.training)
        number = torch.zeros(batch) if state is None else state[0][:, 0]
        assert len(number) == batch
        rows = []
        for t in range(time):
            number = (number * (self.vocab_size + 1) + tokens[t] + 1) % self._states
            rows.append(self.table[number.long()])
        scores = torch.stack(rows[-1:] if logits == "last" else rows)
        return SimpleNamespace(logits=scores, state=(number.unsqueeze(1), None), record=None)


class FakeDecoder:
    """Texts of ids, with bytes that wait for the rest of their character."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._held = ""

    def push(self, id: int) -> str:
        text, self._held = self._held + self._tokens[id], ""
        if text.endswith("~"):  # stands for an unfinished character
            self._held, text = text, ""
        return text

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


class FakeTokenizer:
    """One id for each of the given texts; encodes single characters only."""

    def __init__(self, tokens: list[str], unknown_id: int | None = None, eos_id: int | None = None):
        self.tokens = tokens
        self.vocab_size = len(tokens)
        self.unknown_id = unknown_id
        self.eos_id = eos_id

    def encode(self, text: str) -> list[int]:
        return [
            self.tokens.index(c) if c in self.tokens else self.unknown_id
            for c in text
            if c in self.tokens or self.unknown_id is not None
        ]

    def unknowns(self, text: str) -> list[str]:
        return [c for c in dict.fromkeys(text) if c not in self.tokens]

    def decode(self, ids: Any) -> str:
        return "".join(self.tokens[i] for i in ids)

    def decoder(self) -> FakeDecoder:
        return FakeDecoder(self.tokens)
