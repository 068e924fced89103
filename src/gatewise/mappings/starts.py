"""Initial weights that matter for memory: orthogonal, identity and chrono, over what torch.nn would draw.

- orthogonal: every recurrent block an orthogonal matrix, which neither shrinks nor stretches what it
  carries (Saxe et al. 2014, arXiv 1312.6120; Arjovsky et al. 2016).
- identity: of a net of rectifiers, W_hh = I, biases 0, input weights N(0, 0.001^2) (Le, Jaitly & Hinton 2015,
  arXiv 1504.00941, the IRNN).
- chrono: b_f = log u, b_i = -b_f with u uniform on [1, T - 1], so that the gates forget with time constants
  up to T (Tallec & Ollivier 2018, arXiv 1804.11188, section 3.2). A cell's own `keep` says which gate is which:
  of a GRU in torch's form it is z.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gatewise.cells import find
from gatewise.cells.base import Law
from gatewise.errors import OptionError
from gatewise.stack import Stack

INITIALISATIONS = ("torch", "orthogonal", "identity", "chrono")

_SMALL = 0.001


def check_initialisation(name: str, cell: str) -> None:
    """Raise OptionError unless the cell can be begun so.

    Args:
        name: one of `INITIALISATIONS`.
        cell: its registered name.
    """
    if name not in INITIALISATIONS:
        raise OptionError(
            f"--initialisation: expected one of {', '.join(INITIALISATIONS)}, found {name!r}"
        )
    law = find(cell).law
    if name == "identity" and cell != "rnn_relu":
        raise OptionError(f"--initialisation identity: for the cell rnn_relu, found {cell}")
    if name == "orthogonal" and not law.recurrent_blocks:
        raise OptionError(
            f"--initialisation orthogonal: the cell {cell} has no recurrent weights; leave it out"
        )
    if name == "chrono" and not _keeping(law):
        raise OptionError(
            f"--initialisation chrono: the cell {cell} has no gates that keep its memory; leave it out"
        )


def _keeping(law: Law) -> dict[str, float]:
    """Gates that keep the memory where their pre-activation is large (1) or small (-1)."""
    gates = law.controls.get("keep", {})
    if not gates or any(
        gate not in law.pre or value not in (0, 1) for gate, value in gates.items()
    ):
        return {}
    return {gate: 1.0 if value else -1.0 for gate, value in gates.items()}


@torch.no_grad()
def initialise_memory(stack: Stack, name: str, cell: str, longest: int) -> None:
    """Change the initial weights of a stack in place; random numbers come from torch's generator.

    Args:
        stack: of that cell.
        name: one of `INITIALISATIONS`.
        cell: its registered name.
        longest: T, the dependencies that chrono expects.
    """
    check_initialisation(name, cell)
    law = find(cell).law
    if name == "orthogonal":
        for weight in _all(stack, "weight_hh"):
            for block in weight.chunk(len(law.recurrent_blocks)):
                nn.init.orthogonal_(block)
    elif name == "identity":
        for weight in _all(stack, "weight_hh"):
            nn.init.eye_(weight)
        for weight in _all(stack, "weight_ih"):
            nn.init.normal_(weight, std=_SMALL)
        for bias in _all(stack, "bias"):
            bias.zero_()
    elif name == "chrono":
        _chrono(stack, law, max(longest, 3))


def _all(stack: Stack, beginning: str) -> Iterator[Tensor]:
    """The stack's weights of that kind, layer by layer."""
    return (p for name, p in stack.named_parameters() if name.startswith(beginning))


def _chrono(stack: Stack, law: Law, longest: int) -> None:
    for inner, outer in zip(_all(stack, "bias_ih"), _all(stack, "bias_hh"), strict=True):
        size = len(inner) // len(law.pre)
        kept = inner.new_empty(size).uniform_(1, longest - 1).log()
        for gate, sign in _keeping(law).items():
            inner[law.pre.index(gate) * size :][:size] = sign * kept
            if gate in law.recurrent_blocks:
                outer[law.recurrent_blocks.index(gate) * size :][:size] = 0


__all__ = ["INITIALISATIONS", "check_initialisation", "initialise_memory"]
