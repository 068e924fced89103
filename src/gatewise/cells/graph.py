"""The graph of a cell's equations: how it is traced from a function, evaluated, and written as text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from gatewise.cells.equations import OPERATIONS, Expr, Names, Operand, PreActivations, as_node
from gatewise.errors import OptionError

Hook: TypeAlias = Callable[[Tensor], Tensor]
Held: TypeAlias = Callable[[str], "Tensor | None"]
Function: TypeAlias = Callable[..., "tuple[Mapping[str, Expr], Mapping[str, Expr]]"]


@dataclass(frozen=True)
class Graph:
    """A cell's equations in order of computation.

    Args:
        nodes: every node, each after those it reads.
        names: index of a node -> the name that it defines.
        states: state name -> index of the node of its next value.
        gates: gate name -> index of its node.
        pre: the pre-activations read whole.
        parts: the pre-activations whose x and h parts are read apart.
    """

    nodes: tuple[Expr, ...]
    names: Mapping[int, str]
    states: Mapping[str, int]
    gates: Mapping[str, int]
    pre: tuple[str, ...]
    parts: tuple[str, ...]
    _places: Mapping[int, tuple[int, ...]] = field(repr=False)

    @cached_property
    def inputs(self) -> Mapping[tuple[str, str], str]:
        """Pre-activation input -> the name under which it is recorded and controlled.

        An input whose name the equations give to a value of their own has none.
        """
        own = set(self.names.values())
        keys = [("pre", n, f"{n}.pre") for n in self.pre]
        keys += [(f"pre.{p}", n, f"{n}.{p}") for n in self.parts for p in ("x", "h")]
        return {(kind, n): name for kind, n, name in keys if name not in own}

    def operands(self, index: int) -> tuple[int, ...]:
        """The indices of the nodes that a node reads."""
        return self._places[index]

    @cached_property
    def exact(self) -> str:
        """The same text for the same nodes in the same order, and for no others."""
        lines = [f"{n.op} {self._places[i]} {n.key} {n.value!r}" for i, n in enumerate(self.nodes)]
        named = (sorted(self.names.items()), dict(self.states), dict(self.gates))
        return "\n".join([*lines, f"{named} {self.pre} {self.parts}"])

    @property
    def reads_h(self) -> bool:
        """Whether the equations read the previous h itself, so that it must be as wide as the rest."""
        return any(node.key == ("state", "h") for node in self.nodes)

    def run(
        self,
        inputs: Mapping[tuple[str, str], Tensor],
        hooks: Mapping[str, Hook] | None = None,
        held: Held | None = None,
    ) -> dict[str, Tensor]:
        """The value of every name, from the values of the inputs.

        Args:
            inputs: (kind, name) -> tensor, (B, H) or what broadcasts with it.
            hooks: name -> what is done to its value where it is defined; all later uses see the
                result.
            held: name -> where its value was set to a number. What is 0 there closes: times
                NaN or infinity it is 0. None: nothing is held.
        Returns:
            name -> tensor (B, H), states and gates.
        """
        values: list[Tensor] = []
        named: dict[str, Tensor] = {}
        closing = None if held is None else Closing(self, held)
        for index, node in enumerate(self.nodes):
            if node.op == "input":
                assert node.key is not None
                value = inputs[node.key]
            elif node.op == "const":
                value = node.value  # type: ignore[assignment]
            else:
                operands = [values[i] for i in self._places[index]]
                if operands and not any(isinstance(o, Tensor) for o in operands):
                    like = inputs["state", "h"]  # a function of numbers alone
                    operands = [
                        torch.tensor(o, dtype=like.dtype, device=like.device) for o in operands
                    ]
                value = OPERATIONS[node.op](*operands)
                if closing is not None and node.op == "mul":
                    value = closing.product(value, self._places[index], operands)
            name = self.names.get(index)
            if name is not None:
                if not isinstance(value, Tensor):  # a number is the value of a name
                    value = inputs["state", "h"].new_tensor(value)
                if hooks is not None and name in hooks:
                    value = hooks[name](value)
                named[name] = value
            values.append(value)
            if closing is not None:
                closing.note(index)
        return named


class Closing:
    """Where the values of one evaluation follow from numbers that a control has set, and nothing else.

    There a factor of 0 is a closed gate: it lets nothing through, where 0 times NaN would be NaN.
    """

    def __init__(self, graph: Graph, held: Held) -> None:
        self._graph = graph
        self._held = held
        self._where: dict[int, Tensor] = {}

    def note(self, index: int) -> None:
        """Find out where the node's value, now computed, is held."""
        graph, node = self._graph, self._graph.nodes[index]
        name = graph.names.get(index)
        if name is None and node.key is not None:
            name = graph.inputs.get(node.key)
        where = None if name is None else self._held(name)
        follows = self._following(index)
        if where is None or follows is None:
            where = follows if where is None else where
        else:
            where = where | follows
        if where is not None:
            self._where[index] = where

    def _following(self, index: int) -> Tensor | None:
        """Where everything that the node reads is held or a constant."""
        where: Tensor | None = None
        for place in self._graph._places[index]:
            if self._graph.nodes[place].op == "const":
                continue
            if place not in self._where or self._graph.nodes[index].op in ("matmul", "layer_norm"):
                return None
            where = self._where[place] if where is None else where & self._where[place]
        return where

    def product(self, value: Tensor, places: Iterable[int], operands: list[Tensor]) -> Tensor:
        """A product, 0 where one of its factors is held at 0."""
        closed = self.closed(places, operands)
        return value if closed is None else torch.where(closed, torch.zeros_like(value), value)

    def closed(self, places: Iterable[int], operands: list[Tensor]) -> Tensor | None:
        """Where one of the factors of a product is held at 0; None: nowhere."""
        found: Tensor | None = None
        for place, operand in zip(places, operands, strict=True):
            if place in self._where:
                closed = self._where[place] & (operand == 0)
                found = closed if found is None else found | closed
        return found


def trace(
    function: Function,
    pre: Iterable[str],
    states: Iterable[str],
    params: Iterable[str] = (),
    *,
    name: str,
) -> Graph:
    """The graph of a cell's function.

    Args:
        function: ``(a, s) -> (states, gates)``, or ``(a, s, p)`` where there are parameters.
        pre: names of the pre-activations, in stacking order.
        states: names of the states, h first.
        params: names of further parameters.
        name: of the cell, for messages.
    Raises:
        OptionError: if a state is missing or left over, or a gate has no effect on any state.
    """
    pre, states, params = tuple(pre), tuple(states), tuple(params)
    arguments: list[object] = [PreActivations(pre), Names("state", states)]
    if params:
        arguments.append(Names("param", params))
    new, gates = function(*arguments)
    if set(new) != set(states):
        raise OptionError(
            f"cell {name}: expected next values of the states {', '.join(states)}, "
            f"found {', '.join(new) or 'none'}"
        )
    outputs = {**{n: _own(new[n]) for n in states}, **{n: _own(g) for n, g in gates.items()}}
    return _build(outputs, states, tuple(gates), pre, name)


def _own(node: Operand) -> Expr:
    """A node that can carry a name: an input or a number gets a node of its own."""
    node = as_node(node)
    return Expr("identity", (node,)) if node.op in ("input", "const") else node


def _build(
    outputs: Mapping[str, Expr],
    states: tuple[str, ...],
    gates: tuple[str, ...],
    pre: tuple[str, ...],
    name: str,
) -> Graph:
    order = _topological(outputs[s] for s in states)
    place = {id(node): index for index, node in enumerate(order)}
    for gate in gates:
        if id(outputs[gate]) not in place:
            node = outputs[gate]
            if node.op == "identity" and node.args[0].key is not None:
                raise OptionError(
                    f"cell {name}: gate {gate!r} is an input as it is, which has its name already "
                    "(a.f is 'f.pre'): leave it out"
                )
            raise OptionError(
                f"cell {name}: gate {gate!r} is returned but changes no state: it could be "
                "recorded and not steered; use it in the next state, or leave it out"
            )
    names: dict[int, str] = {}
    for key, node in outputs.items():
        if (taken := names.setdefault(place[id(node)], key)) != key:
            raise OptionError(f"cell {name}: {taken!r} and {key!r} name the same value")
    used = {node.key for node in order if node.key is not None}
    return Graph(
        nodes=tuple(order),
        names=names,
        states={s: place[id(outputs[s])] for s in states},
        gates={g: place[id(outputs[g])] for g in gates},
        pre=tuple(n for n in pre if ("pre", n) in used),
        parts=tuple(n for n in pre if ("pre.x", n) in used or ("pre.h", n) in used),
        _places={i: tuple(place[id(a)] for a in node.args) for i, node in enumerate(order)},
    )


def _topological(roots: Iterable[Expr]) -> list[Expr]:
    """Every node that the roots need, each after those it reads."""
    order: list[Expr] = []
    seen: set[int] = set()

    def visit(node: Expr) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        for arg in node.args:
            visit(arg)
        order.append(node)

    for root in roots:
        visit(root)
    return order


def text(graph: Graph) -> str:
    """The equations of `graph`, one line per named value."""
    infix = {"add": "+", "sub": "-", "mul": "*", "div": "/", "matmul": "@"}
    infix |= {"gt": ">", "lt": "<", "ge": ">=", "le": "<="}
    prefix = {"pre": "a.", "pre.x": "a.x.", "pre.h": "a.h.", "state": "s.", "param": "p."}

    def show(index: int, top: bool = False) -> str:
        node = graph.nodes[index]
        if not top and index in graph.names:
            return graph.names[index]
        if node.key is not None:
            return prefix[node.key[0]] + node.key[1]
        if node.op == "const":
            return f"{node.value:g}" if math.isfinite(node.value) else str(node.value)
        args = [show(i) for i in graph._places[index]]
        if node.op == "identity":
            return args[0]
        if node.op in infix:
            inner = f" {infix[node.op]} ".join(args)
            return inner if top else f"({inner})"
        return f"-{args[0]}" if node.op == "neg" else f"{node.op}({', '.join(args)})"

    return "\n".join(f"{name} = {show(i, top=True)}" for i, name in sorted(graph.names.items()))
