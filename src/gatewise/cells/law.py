"""The law of a cell: its gates, states, equations and controls. No weights."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from gatewise.cells.graph import Function, Graph, trace
from gatewise.cells.origin import pointing_at
from gatewise.cells.rounds import Round
from gatewise.errors import UnknownNameError


@dataclass(frozen=True, eq=False)
class Law:
    """Everything that makes one kind of cell; two laws are equal only if they are the same object.

    Args:
        name: how it is called in a configuration.
        function: the equations, ``(a, s[, p]) -> (next states, gates)``.
        pre: the pre-activations in stacking order: row blocks of weight_ih (and of weight_hh).
        states: state name -> start value; h first, and the output is h.
        recurrent: the blocks that weight_hh has, in order; () for none. Default: all of `pre`.
        params: further parameters, name -> "vector" (H,), "matrix" or "recurrent" (H, H; a
            recurrent one is what DropConnect drops).
        starts: parameter name -> its initial value. Default: as every other weight.
        controls: memory control ("keep", "reset", "write") -> gate -> the value it is set to.
        rounds: what x and h[t-1] do to each other before the pre-activations are made of them, their
            matrices among `params`. The equations' own s.h is h[t-1] as it was.
        paper: where the equations come from.
    """

    name: str
    function: Function
    pre: tuple[str, ...]
    states: Mapping[str, float]
    recurrent: tuple[str, ...] | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)
    controls: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rounds: tuple[Round, ...] = ()
    paper: str = ""

    def __post_init__(self) -> None:
        _LAWS.add(self)

    @cached_property
    def graph(self) -> Graph:
        """The traced equations."""
        with pointing_at(self.function):
            return trace(self.function, self.pre, self.states, self.params, name=self.name)

    @cached_property
    def key(self) -> str:
        """The same text for the same equations, blocks and states, in every process."""
        return f"{self.name}:{hashlib.sha256(self.exact.encode()).hexdigest()[:20]}"

    @cached_property
    def exact(self) -> str:
        """The equations, blocks and states with every number in full."""
        parts = (self.pre, self.recurrent_blocks, dict(self.states), dict(self.params), self.rounds)
        return f"{parts}\n{self.graph.exact}"

    @property
    def recurrent_blocks(self) -> tuple[str, ...]:
        """The row blocks of weight_hh."""
        return self.pre if self.recurrent is None else self.recurrent

    def names(self, projected: bool = False) -> tuple[str, ...]:
        """Every name that can be recorded and controlled: pre-activations, gates, states.

        ``f.pre`` is the pre-activation of f (``n.x`` and ``n.h`` where the equations read its parts
        apart), ``c.new`` the next state before zoneout, ``c`` after it.
        """
        graph = self.graph
        blocks, inputs = self.recurrent_blocks, graph.inputs.items()
        names = [one.name for one in self.rounds]
        names += [name for (kind, n), name in inputs if kind != "pre.h" or n in blocks]
        names += graph.gates
        for name in [*(n for n in self.states if n != "h"), "h"]:
            if not (name == "h" and projected):
                names.append(f"{name}.new")
            names.append(name)
        return tuple(names + ["proj.new", "proj"] * projected)


_LAWS: weakref.WeakSet[Law] = weakref.WeakSet()


def law_of(key: str) -> Law:
    """The law with this `Law.key`.

    Raises:
        UnknownNameError: if no cell of this process has it.
    """
    for law in list(_LAWS):
        if law.name == key.partition(":")[0] and law.key == key:
            return law
    raise UnknownNameError(
        f"no cell {key}: expected that the module which defines it is imported, with the equations "
        "that the program was made from"
    )
