"""The Mogrifier LSTM (Melis, Kocisky & Blunsom 2020): x and h gate each other before the LSTM's step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from gatewise.cells import lstm
from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations
from gatewise.cells.rounds import Round
from gatewise.errors import OptionError


def equations(a: PreActivations, s: Names, p: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
    """The LSTM's; the rounds before them are in the law."""
    return lstm.equations(a, s)


@cache
def law(rounds: int, rank: int | None) -> Law:
    """The law with so many rounds, their matrices full or of a rank.

    Raises:
        OptionError: if rounds is not a whole number from 0 on, or rank none from 1 on.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 0:
        raise OptionError(f"rounds: expected a whole number from 0 on, found {rounds!r}")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise OptionError(f"rank: expected None or a whole number from 1 on, found {rank!r}")
    kinds: dict[str, str] = {}
    made = []
    for number in range(1, rounds + 1):
        name, changed = (f"q{number}", "x") if number % 2 else (f"r{number}", "h")
        factors = (name,) if rank is None else (f"{name}_left", f"{name}_right")
        made.append(Round(f"{changed}.mog{number}", factors, rank))
        kinds |= dict.fromkeys(factors, "matrix")
        if changed == "x":  # what multiplies h is recurrent
            kinds[factors[-1]] = "recurrent"
    return Law(
        "mogrifier",
        equations if kinds else lstm.equations,
        ("i", "f", "g", "o"),
        {"h": 0.0, "c": 0.0},
        params=kinds,
        controls=lstm.MEMORY,
        rounds=tuple(made),
        paper="Melis, Kočiský & Blunsom 2020, arXiv 1909.01792",
    )


class Mogrifier(Cell):
    """x and h' modulate each other in rounds, then the LSTM's step follows on both.

    x.mog1 = 2 sigmoid(q1 h') x, h.mog2 = 2 sigmoid(r2 x.mog1) h', x.mog3 = 2 sigmoid(q3 h.mog2) x.mog1, ...:
    eq. 1 and 2, q for odd and r for even rounds, without biases. The gates read the last x and the last h;
    c' is the LSTM's. q is (I, H), r (H, I); with a rank k each is the product of a left (.., k) and a right
    (k, ..) matrix, named ``q1_left`` and ``q1_right``. With a projection h is what it gives. DropConnect
    drops, beside weight_hh, the matrices that multiply h: q, or its right factor. Memory controls
    as of the LSTM, and as exact.

    Args:
        rounds: their number; 0 is the LSTM. Default: 5.
        rank: of the matrices; default: full. In a `Stack` and in a config both are the class's: a subclass
            with ``rounds = 3`` is a cell of its own.
        others: as of every `Cell`.
    """

    rounds: int = 5
    rank: int | None = None
    law = law(5, None)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.law = law(cls.rounds, cls.rank)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        rounds: int | None = None,
        rank: int | None = None,
        bias: bool = True,
        proj_size: int = 0,
        zoneout: float | Mapping[str, float] = 0.0,
        weight_drop: float = 0.0,
        learned_state: bool = False,
        init_bias: Mapping[str, float] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.rounds = type(self).rounds if rounds is None else rounds
        self.rank = type(self).rank if rank is None else rank
        self.law = law(self.rounds, self.rank)  # type: ignore[misc]
        super().__init__(
            input_size,
            hidden_size,
            bias=bias,
            proj_size=proj_size,
            zoneout=zoneout,
            weight_drop=weight_drop,
            learned_state=learned_state,
            init_bias=init_bias,
            device=device,
            dtype=dtype,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without the law, which holds functions: it follows from rounds and rank."""
        return {name: value for name, value in self.__dict__.items() if name != "law"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.law = law(self.rounds, self.rank)  # type: ignore[misc]

    def extra_repr(self) -> str:
        """Sizes and what differs from the defaults."""
        parts = [super().extra_repr()]
        if self.rounds != Mogrifier.rounds:
            parts.append(f"rounds={self.rounds}")
        if self.rank is not None:
            parts.append(f"rank={self.rank}")
        return ", ".join(parts)
