"""A packed net: what all its sessions share. It knows layers and a decoder; it knows no state."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gatewise.engine.base import Direction
from gatewise.engine.cpu.layout import Variant
from gatewise.engine.cpu.step.formats import Format
from gatewise.engine.cpu.step.layer import LayerKind
from gatewise.engine.cpu.step.linear import WIDE
from gatewise.engine.cpu.step.program import REALS, ROWS, TABLE, Design
from gatewise.engine.cpu.step.tiles import Target
from gatewise.step.pace import Pace
from gatewise.step.weights import Part, rows_of, state_places

_ALONE = 1 << 18
"""Bytes of weights that a step reads, below which a second thread costs more than it does."""


@dataclass(frozen=True, eq=False)
class Core:
    """The packed net.

    Args:
        directions: the layers.
        form: of the weights.
        target: the processor that they are packed for.
        entry: what a step reads: TABLE, ROWS or REALS.
        layers: a part for each layer.
        embedding: with ROWS: each token's activation row.
        decode: the decoder, or None.
        decoder: activation of the scores.
        project: what stands before the decoder, or None.
        threads: at most so many; None: as many as torch uses.
    """

    directions: tuple[Direction, ...]
    form: Format
    target: Target
    entry: str
    layers: tuple[Part, ...]
    embedding: Tensor | None = None
    decode: Part | None = None
    decoder: str = "linear"
    project: Part | None = None
    threads: int | None = None
    _paces: dict[tuple[int, int], Pace] = field(default_factory=dict, repr=False)

    @property
    def places(self) -> tuple[list[dict[str, int]], int]:
        """Where each state begins in a column's row, and how long the row is."""
        return state_places(self.directions, self.target.lanes)

    @property
    def input_size(self) -> int:
        """Numbers of an input."""
        return self.directions[0].weights.ih.shape[1]

    @property
    def outputs(self) -> int:
        """Scores of a step; 0 without a decoder."""
        return 0 if self.decode is None else self.decode.numbers["outputs"]

    def design(self, variants: tuple[Variant, ...]) -> Design:
        """What the kernel is made for."""
        kinds = tuple(
            LayerKind(d.law, variant, table=self.entry == TABLE and number == 0)
            for number, (d, variant) in enumerate(zip(self.directions, variants, strict=True))
        )
        decoder = None if self.decode is None else self.decoder
        return Design(
            self.form.name, self.target, kinds, self.entry, decoder, self.project is not None
        )

    def rows(self) -> dict[str, int]:
        """How the activation rows of the main function lie."""
        found: dict[str, int] = {}
        if self.entry in (ROWS, REALS):
            found |= rows_of("x", self.input_size, self.form)
        for number, direction in enumerate(self.directions):
            found |= rows_of(f"h{number}", direction.weights.hidden_size, self.form)
        if self.project is not None:
            found |= rows_of("y", self.project.numbers["outputs"], self.form)
        return found

    def panels(self) -> dict[str, int]:
        """How many panels there are for the threads to share."""
        lanes = self.target.lanes
        found = {f"panels:{n}": p.numbers["Hp"] // lanes for n, p in enumerate(self.layers)}
        for name, part in (("project", self.project), ("decode", self.decode)):
            if part is not None:
                found[f"panels:{name}"] = part.numbers["row"] // (WIDE * lanes)
        return found

    def resident(self) -> int:
        """Bytes of all packed tensors."""
        parts = [*self.layers, self.project, self.decode]
        whole = sum(part.bytes() for part in parts if part is not None)
        return whole + (0 if self.embedding is None else self.embedding.numel())

    def read(self) -> int:
        """Bytes of weights that one step of one column reads: the roofline's."""
        parts = [*self.layers, self.project, self.decode]
        whole = sum(p.tensors["weights"].numel() for p in parts if p is not None)
        if self.embedding is not None:
            whole += self.embedding.shape[1]
        if self.entry == TABLE:
            whole += 4 * self.layers[0].numbers["table_row"]
        return whole

    def pace(self, batch: int) -> Pace:
        """What is known of the speed at this width of the batch; shared by all sessions."""
        wanted = torch.get_num_threads() if self.threads is None else self.threads
        if self.threads is None and self.read() * min(batch, 4) < _ALONE:
            wanted = 1
        key = (batch, wanted)
        if key not in self._paces:
            self._paces[key] = Pace(max(1, wanted), self.threads is not None)
        return self._paces[key]
