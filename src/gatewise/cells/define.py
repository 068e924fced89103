"""A cell from its equations: the decorator `gatewise.cell`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, overload

from gatewise.cells.base import Cell, Law
from gatewise.cells.equations import Expr, Names, PreActivations
from gatewise.cells.graph import Function
from gatewise.cells.origin import pointing_at
from gatewise.errors import OptionError

_KINDS = ("vector", "matrix", "recurrent")


@overload
def cell(function: Function) -> type[Cell]: ...


@overload
def cell(
    function: None = None,
    *,
    params: Mapping[str, str] | None = None,
    states: Mapping[str, float] | None = None,
    controls: Mapping[str, Mapping[str, float]] | None = None,
) -> Callable[[Function], type[Cell]]: ...


def cell(
    function: Function | None = None,
    *,
    params: Mapping[str, str] | None = None,
    states: Mapping[str, float] | None = None,
    controls: Mapping[str, Mapping[str, float]] | None = None,
) -> Any:
    """A cell class from a function of its pre-activations and its previous state.

    The function ``(a, s)`` (or ``(a, s, p)`` where there are params) returns the next states, h among
    them, and the gates, both by name. ``a.f`` is W x + R h + b of a block f that exists because it is
    named; ``a.x.f`` and ``a.h.f`` are its two parts apart. Blocks are stacked in the weights in the
    order in which the function names them first.

    Args:
        function: the equations.
        params: further parameters, name -> "vector" (H,), "matrix" or "recurrent" (H, H).
        states: start values of states that do not start at 0, by name.
        controls: "keep", "reset", "write" -> gate -> the value it is set to.
    Returns:
        A class like those of `gatewise.cells`: ``coupled(input_size, hidden_size)``.
    Raises:
        OptionError: if a state is read and not returned, h is missing, or a gate changes no state.

    >>> from gatewise import sigmoid, tanh
    >>> @cell(controls={"keep": {"f": 1.0}})
    ... def coupled(a, s):
    ...     f, o, g = sigmoid(a.f), sigmoid(a.o), tanh(a.g)
    ...     c = f * s.c + (1 - f) * g
    ...     return dict(h=o * tanh(c), c=c), dict(f=f, o=o, g=g)
    >>> coupled(3, 4).law.pre
    ('f', 'o', 'g')
    """

    def define(function: Function) -> type[Cell]:
        with pointing_at(function):
            law = _law(function, dict(params or {}), dict(states or {}), dict(controls or {}))
        return type(
            function.__name__,
            (Cell,),
            {
                "law": law,
                "__doc__": function.__doc__,
                "__module__": function.__module__,
                "__qualname__": function.__qualname__,
            },
        )

    return define if function is None else define(function)


def _law(
    function: Function,
    params: dict[str, str],
    starts: dict[str, float],
    controls: dict[str, Mapping[str, float]],
) -> Law:
    name = function.__name__
    for param, kind in params.items():
        if kind not in _KINDS:
            raise OptionError(
                f"cell {name}: parameter {param!r} is one of {', '.join(_KINDS)}; found {kind!r}"
            )
        taken = param in _RESERVED or param.startswith("start_") or hasattr(Cell, param)
        if taken or not param.isidentifier():
            raise OptionError(f"cell {name}: a parameter cannot be called {param!r}: it is taken")
    a, s = _OpenPre(), _OpenNames("state")
    arguments = (a, s, Names("param", params)) if params else (a, s)
    _check_arguments(name, function, arguments)
    returned = function(*arguments)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise OptionError(f"cell {name}: {_EXPECTED}; found {type(returned).__name__}")
    states, gates = returned
    _check_returned(name, s, states, gates, starts)
    if not a.order:
        raise OptionError(f"cell {name}: expected pre-activations such as a.f, found none")
    order = ["h", *(n for n in states if n != "h")]
    law = Law(
        name,
        function,
        tuple(a.order),
        {n: float(starts.get(n, 0.0)) for n in order},
        recurrent=tuple(n for n in a.order if n not in a.only_x),
        params=params,
        controls=controls,
    )
    known = set(law.graph.names.values())
    for control, gates_set in controls.items():
        if control not in ("keep", "reset", "write") or not set(gates_set) <= known:
            raise OptionError(
                f"cell {name}: controls are keep, reset and write, each a value for named gates; "
                f"found {control}: {dict(gates_set)}"
            )
    return law


_RESERVED = {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "bias", "zoneout"}
_RESERVED |= {"input_size", "hidden_size", "proj_size", "weight_drop", "init_bias", "training"}
_EXPECTED = (
    "expected `return dict(h=..., ...), dict(...)`: the next states, h among them, and the gates"
)


def _check_arguments(name: str, function: Function, arguments: tuple[object, ...]) -> None:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise OptionError(
            f"cell {name}: expected a function (a, s), or (a, s, p) where there are params; "
            f"with {len(arguments)} arguments: {error}"
        ) from None


def _check_returned(
    name: str, read: _OpenNames, states: Any, gates: Any, starts: Mapping[str, float]
) -> None:
    if not isinstance(states, Mapping) or not isinstance(gates, Mapping) or "h" not in states:
        raise OptionError(f"cell {name}: {_EXPECTED}")
    if both := set(states) & set(gates):
        raise OptionError(
            f"cell {name}: expected other names for gates than for states, found {sorted(both)[0]!r} "
            "as both"
        )
    for missing in [n for n in [*read.nodes, *starts] if n not in states]:
        raise OptionError(
            f"cell {name}: state {missing!r} is read, and its next value not returned"
        )
    for label in [*states, *gates]:
        if not isinstance(label, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.~]*", label):
            raise OptionError(f"cell {name}: {label!r} cannot be a name in a path")


class _OpenNames(Names):
    """Inputs that exist because they are named."""

    def __init__(self, kind: str, log: list[str] | None = None) -> None:
        super().__init__(kind, ())
        self._log = log

    @property
    def nodes(self) -> dict[str, Expr]:
        """What was named."""
        return self._nodes

    def __getattr__(self, name: str) -> Expr:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._log is not None and name not in self._log:
            self._log.append(name)
        return self._nodes.setdefault(name, Expr("input", key=(self._kind, name)))


class _OpenPre(PreActivations):
    """Pre-activations that exist because they are named."""

    def __init__(self) -> None:
        super().__init__(())
        self.order: list[str] = []
        self.x = self._x = _OpenNames("pre.x", self.order)
        self.h = self._h = _OpenNames("pre.h", self.order)

    @property
    def only_x(self) -> set[str]:
        """Blocks whose recurrent part is never read."""
        return set(self._x.nodes) - set(self._h.nodes) - set(self._nodes)

    def __getattr__(self, name: str) -> Expr:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self.order:
            self.order.append(name)
        return self._nodes.setdefault(name, Expr("input", key=("pre", name)))
