"""A cell's equations, read once: a pure function becomes a graph that any engine can run.

The function of a cell is called with symbolic values. What it returns is a graph of `Expr` nodes: its
states and gates by name, and how each follows from the pre-activations, the previous state and the
parameters. The graph is evaluated on tensors here (so gradients of any order, vmap and jvp go through
it); a compiled engine emits code from the same nodes. This module knows nothing of time or of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from gatewise.errors import OptionError, unknown

Number: TypeAlias = "int | float"
Operand: TypeAlias = "Expr | int | float"


@dataclass(frozen=True, eq=False)
class Expr:
    """One node: an operation on other nodes, an input (op "input") or a number (op "const").

    Args:
        op: a key of `OPERATIONS`, or "input" or "const".
        args: the nodes it reads.
        key: for an input ("pre" | "pre.x" | "pre.h" | "state" | "param", name).
        value: for a const, the number.
    """

    op: str
    args: tuple[Expr, ...] = ()
    key: tuple[str, str] | None = None
    value: float = 0.0

    def __add__(self, other: Operand) -> Expr:
        return _apply("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return _apply("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return _apply("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return _apply("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return _apply("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return _apply("mul", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return _apply("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return _apply("div", other, self)

    def __neg__(self) -> Expr:
        return _apply("neg", self)

    def __matmul__(self, other: Expr) -> Expr:
        """`matrix @ vector`: a parameter of kind "matrix" or "recurrent" times a row of values."""
        return _apply("matmul", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return _apply("gt", self, other)

    def __lt__(self, other: Operand) -> Expr:
        return _apply("lt", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return _apply("ge", self, other)

    def __le__(self, other: Operand) -> Expr:
        return _apply("le", self, other)

    def __eq__(self, other: object) -> NoReturn:
        raise OptionError(
            "a cell's equations cannot compare for equality: expected < <= > or >=, in "
            "gw.where(condition, a, b); found == or != on a symbolic value"
        )

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise OptionError(
            "a cell's equations cannot branch on a value: expected gw.where(condition, a, b), "
            "found `if` (or `and`, `or`, `not`, `min`, `max`) on a symbolic value"
        )

    def __float__(self) -> float:
        raise _foreign("float() or a function of math")

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any) -> NoReturn:
        raise _foreign(f"torch's {getattr(function, '__name__', function)}")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Any:
        """A NumPy number on the left of an operator is a number; a NumPy function is refused."""
        operator = _UFUNCS.get(getattr(ufunc, "__name__", ""))
        if operator is None or method != "__call__":
            raise _foreign(f"numpy's {getattr(ufunc, '__name__', ufunc)}")
        return _apply(operator, *(i if isinstance(i, Expr) else float(i) for i in inputs))


_UFUNCS = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "div"}


def _foreign(what: str) -> OptionError:
    return OptionError(
        "a cell's equations take gw.sigmoid, gw.tanh, gw.exp, ...: found "
        f"{what} on a symbolic value"
    )


NORM_EPSILON = 1e-5
"""What layer normalisation adds to the variance."""


def _layer_norm(v: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(v, v.shape[-1:], scale, shift, NORM_EPSILON)


def _as_tensor_pair(fn: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """min and max take two tensors: a number among them becomes one."""

    def call(a: Tensor | float, b: Tensor | float) -> Tensor:
        like = a if isinstance(a, Tensor) else b
        assert isinstance(like, Tensor)
        return fn(_like(a, like), _like(b, like))

    return call


def _like(value: Tensor | float, like: Tensor) -> Tensor:
    """A number is made in the dtype of `like`: by way of float32 it would lose digits."""
    if isinstance(value, Tensor):
        return value.to(like)
    return torch.tensor(value, dtype=like.dtype, device=like.device)


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "gt": lambda a, b: a > b,
    "lt": lambda a, b: a < b,
    "ge": lambda a, b: a >= b,
    "le": lambda a, b: a <= b,
    "matmul": lambda w, v: torch.nn.functional.linear(v, w),
    "identity": lambda a: a,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "softplus": torch.nn.functional.softplus,
    "minimum": _as_tensor_pair(torch.minimum),
    "maximum": _as_tensor_pair(torch.maximum),
    "where": torch.where,
    "layer_norm": _layer_norm,
    "row_mean": lambda v: v.mean(-1, keepdim=True).expand_as(v),
    "normal": lambda v, mean, inverse: (v - mean) * inverse,
}
"""What each operation computes on tensors; a compiled engine has its own table with the same keys."""


def as_node(value: Operand) -> Expr:
    """A number as a constant node; a node as it is."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Real):
        return Expr("const", value=float(value))
    if isinstance(value, Names):
        raise OptionError(
            f"a cell's equations name their values: expected {value._hint}, found the whole group"
        )
    raise OptionError(
        f"a cell's equations work on symbolic values and numbers: found {type(value).__name__}; "
        "use gw.sigmoid, gw.tanh, ... instead of functions of other libraries"
    )


def _apply(op: str, *args: Operand) -> Expr:
    return Expr(op, tuple(as_node(a) for a in args))


def _function(op: str, summary: str) -> Callable[..., Expr]:
    def call(*args: Operand) -> Expr:
        return _apply(op, *args)

    call.__name__ = call.__qualname__ = op
    call.__doc__ = summary
    return call


sigmoid = _function("sigmoid", "The logistic function 1 / (1 + exp(-v)), in a cell's equations.")
tanh = _function("tanh", "The hyperbolic tangent, in a cell's equations.")
relu = _function("relu", "max(v, 0), in a cell's equations.")
exp = _function("exp", "The exponential, in a cell's equations.")
log = _function("log", "The natural logarithm, in a cell's equations.")
sqrt = _function("sqrt", "The square root, in a cell's equations.")
softplus = _function("softplus", "log(1 + exp(v)), in a cell's equations.")
minimum = _function("minimum", "The smaller of two values, in a cell's equations.")
maximum = _function("maximum", "The larger of two values, in a cell's equations.")
where = _function("where", "where(condition, a, b): a where the condition holds, else b.")
layer_norm = _function("layer_norm", "layer_norm(v, scale, shift): normalised over the units.")


class Names:
    """The symbolic inputs of one kind, by attribute: ``a.f``, ``s.c``, ``p.p_i``."""

    def __init__(self, kind: str, names: Iterable[str]) -> None:
        self._kind = kind
        self._hint = {"pre": "a.f", "pre.x": "a.x.f", "pre.h": "a.h.f", "state": "s.c"}.get(
            kind, "p.name"
        )
        self._nodes = {name: Expr("input", key=(kind, name)) for name in names}

    def __getattr__(self, name: str) -> Expr:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._nodes:
            raise unknown(f"{self._kind} value", name, self._nodes)
        return self._nodes[name]


class PreActivations(Names):
    """``a.f`` is W x + R h + b of the block f; ``a.x.f`` and ``a.h.f`` are its two parts apart."""

    def __init__(self, names: Iterable[str]) -> None:
        names = tuple(names)
        super().__init__("pre", names)
        self.x = Names("pre.x", names)
        self.h = Names("pre.h", names)
