"""Arithmetic as lines of CUDA C, one operation a line. Knows C's expressions; no cell, no memory.

A value is the name of a variable. Nothing is contracted or reordered: an equation rounds as it does on
tensors (the compiler is told so too), and NaN and infinity go through it as they do there.
"""

from __future__ import annotations

import math
from collections.abc import Callable


class Lines:
    """Writes arithmetic on numbers of one precision.

    Args:
        real: "float" or "double".
    """

    def __init__(self, real: str) -> None:
        self.real = real
        self.text: list[str] = []
        self._known: dict[str, str] = {}

    def name(self, expression: str, kind: str = "real") -> str:
        """The variable that holds an expression; the same one for the same expression."""
        key = f"{kind} {expression}"
        if key not in self._known:
            variable = f"v{len(self._known)}"
            self._known[key] = variable
            self.text.append(f"const {kind} {variable} = {expression};")
        return self._known[key]

    def call(self, function: str, *operands: str) -> str:
        """A function of C's library, of this precision."""
        suffix = "f" if self.real == "float" else ""
        return self.name(f"{function}{suffix}({', '.join(operands)})")

    # --- what `emit.Arithmetic` asks for ---------------------------------------------------------

    def number(self, value: float) -> str:
        """A constant."""
        if math.isnan(value):
            return "not_a_number()"
        if math.isinf(value):
            return "infinity()" if value > 0 else "(-infinity())"
        # C reads the digits as Python wrote them, and rounds to float where that is the precision
        return f"(real)({value!r})"

    def add(self, a: str, b: str) -> str:
        """a + b."""
        return self.name(f"{a} + {b}")

    def sub(self, a: str, b: str) -> str:
        """a - b."""
        return self.name(f"{a} - {b}")

    def mul(self, a: str, b: str) -> str:
        """a b, rounded before anything is added."""
        return self.name(f"{a} * {b}")

    def both(self, a: str, b: str) -> str:
        """Where two conditions hold."""
        return self.name(f"{a} && {b}", "bool")

    def either(self, a: str, b: str) -> str:
        """Where one of two conditions holds."""
        return self.name(f"{a} || {b}", "bool")

    def where(self, condition: str, a: str, b: str) -> str:
        """a where the condition holds, else b."""
        return self.name(f"{condition} ? {a} : {b}")

    def compare(self, op: str, a: str, b: str) -> str:
        """An ordered comparison: false where one is NaN."""
        return self.name(f"{a} {op} {b}", "bool")

    def is_nan(self, a: str) -> str:
        """Where a is no number."""
        return self.name(f"{a} != {a}", "bool")

    def apply(self, op: str, *operands: str) -> str:
        """An operation of a cell's equations."""
        return IN_C[op](self, *operands)


def _sigmoid(v: Lines, a: str) -> str:
    one = v.number(1.0)
    return v.name(f"{one} / ({one} + {v.call('exp', f'-{a}')})")


def _softplus(v: Lines, a: str) -> str:
    """log(1 + exp(a)) = max(a, 0) + log1p(exp(-|a|))."""
    tail = v.call("log1p", v.call("exp", f"-{v.call('fabs', a)}"))
    return v.add(_relu(v, a), tail)


def _relu(v: Lines, a: str) -> str:
    """max(a, 0); NaN stays NaN."""
    zero = v.number(0.0)
    return v.name(f"{a} < {zero} ? {zero} : {a}")


def _extreme(op: str) -> Callable[[Lines, str, str], str]:
    """The smaller or the larger; NaN if one is."""
    return lambda v, a, b: v.name(f"{a} {op} {b} || {a} != {a} ? {a} : {b}")


IN_C: dict[str, Callable[..., str]] = {
    "add": Lines.add,
    "sub": Lines.sub,
    "mul": Lines.mul,
    "div": lambda v, a, b: v.name(f"{a} / {b}"),
    "neg": lambda v, a: v.name(f"-{a}"),
    "gt": lambda v, a, b: v.compare(">", a, b),
    "lt": lambda v, a, b: v.compare("<", a, b),
    "ge": lambda v, a, b: v.compare(">=", a, b),
    "le": lambda v, a, b: v.compare("<=", a, b),
    "identity": lambda v, a: a,
    "sigmoid": _sigmoid,
    "tanh": lambda v, a: v.call("tanh", a),
    "relu": _relu,
    "exp": lambda v, a: v.call("exp", a),
    "log": lambda v, a: v.call("log", a),
    "sqrt": lambda v, a: v.call("sqrt", a),
    "softplus": _softplus,
    "minimum": _extreme("<"),
    "maximum": _extreme(">"),
    "where": Lines.where,
    "normal": lambda v, a, mean, inverse: v.mul(v.sub(a, mean), inverse),
}
"""What each operation of a cell's equations is in C."""
