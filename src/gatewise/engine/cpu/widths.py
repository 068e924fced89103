"""How many units each value of a step has: those of the cell, or those that its projection leaves. Knows graphs.

A width is the name of the number: ``H`` the units of the cell, ``P`` those of a projected h.
"""

from __future__ import annotations

from functools import cache

from gatewise.cells.base import Law
from gatewise.cells.equations import Expr, Names, PreActivations
from gatewise.cells.graph import Graph

WEIGHT = "weight_hr"
_PROJECTION = "projection"
_MATRICES = {"matrix": ("H", "H"), "recurrent": ("H", "H"), _PROJECTION: ("P", "H")}


@cache
def with_projection(law: Law) -> Law:
    """The law whose equations say the projection: the state ``proj`` is the product of weight_hr and ``h``.

    So both have the names under which they are recorded and controlled.
    """

    def equations(a: PreActivations, s: Names, p: Names) -> tuple[dict[str, Expr], dict[str, Expr]]:
        states, gates = law.function(a, s, *([p] if law.params else []))
        h = states["h"]
        if h.op in ("input", "const"):
            h = Expr("identity", (h,))
        others = {name: value for name, value in states.items() if name != "h"}
        return {"proj": p.weight_hr @ h, **others}, {**gates, "h": h}

    states = {"proj" if name == "h" else name: start for name, start in law.states.items()}
    return Law(
        f"{law.name}_projected",
        equations,
        law.pre,
        states,
        recurrent=law.recurrent,
        params={**law.params, WEIGHT: _PROJECTION},
        paper=law.paper,
    )


def refusal_of_projection(law: Law) -> str | None:
    """Why a projection cannot be said in the law's equations, or None."""
    if "proj" in (*law.states, *law.graph.names.values()):
        return "a value is named proj, as the projected h is"
    if set(law.params.values()) & {*_MATRICES}:
        return "there are matrices beside the projection"
    return None


class Widths:
    """The widths of a law's values."""

    def __init__(self, law: Law) -> None:
        self._law = law
        self._known: dict[int, str] = {}
        self._alive: list[Expr] = []  # so that no id is given twice
        self.hidden = next(iter(law.states))
        """The state that is the output."""

    def matrix(self, name: str) -> tuple[str, str]:
        """Of a matrix its rows and columns."""
        return _MATRICES[self._law.params[name]]

    def state(self, name: str) -> str:
        """Of a state."""
        projected = name == self.hidden and self._law.params.get(WEIGHT) == _PROJECTION
        return "P" if projected else "H"

    @property
    def all(self) -> tuple[str, ...]:
        """Those that there are."""
        return tuple(dict.fromkeys(("H", self.state(self.hidden))))

    def __call__(self, node: Expr) -> str:
        """Of a node of the equations or of their gradients."""
        if id(node) not in self._known:
            self._alive.append(node)
            self._known[id(node)] = self._find(node)
        return self._known[id(node)]

    def _find(self, node: Expr) -> str:
        if node.op == "input" and node.key is not None:
            kind, name = node.key
            return self.state(name) if kind in ("state", "grad") else "H"
        if node.op in ("matmul", "matmul_back"):
            key = node.args[0].key
            assert key is not None
            return self.matrix(key[1])[node.op == "matmul_back"]
        found = {self(arg) for arg in node.args if arg.op != "const"}
        return "H" if not found else max(found)


def refusal_of_matrices(law: Law, graph: Graph) -> str | None:
    """Why the products in the equations cannot be computed for whole rows, or None."""
    matrices = {name for name, kind in law.params.items() if kind in _MATRICES}
    for place, node in enumerate(graph.nodes):
        operands = [graph.nodes[i] for i in graph.operands(place)]
        if node.op == "matmul":
            left, right = operands
            if left.key is None or left.key[1] not in matrices or left.key[0] != "param":
                return "a product's left side is no matrix"
            if right.op == "const":
                return "a matrix is multiplied with a number"
            operands = [right]
        for operand in operands:
            if operand.key and operand.key[0] == "param" and operand.key[1] in matrices:
                return f"the matrix {operand.key[1]} stands outside a product"
    return None
