"""An interpreter of the small language of learning to execute: what a program prints, without Python.

`syntax` reads the text into a tree, this walks it: no eval, no exec, no compile. Whatever the text, it
answers within a fraction of a second: length, nesting, work, digits and output are limited, and what
goes beyond is an error that says which limit, where. What it runs, it runs as Python does.
"""

from __future__ import annotations

from collections.abc import Iterable

from gatewise.tasks.syntax import (
    Assign,
    Chain,
    Choice,
    Loop,
    Name,
    Negative,
    Number,
    Print,
    Statement,
    Value,
    parse,
)
from gatewise.tasks.tokens import Limits, Place, wrong

LIMITS = Limits()


def run(text: str, limits: Limits = LIMITS) -> str:
    r"""What Python would print, without the newline at the end.

    >>> run("j=8584\nfor x in range(8): j+=920\nb=(1500+j)\nprint((b+7567))")
    '25011'
    >>> run("i=8827#c=(i-5347)#print((c+8704) if 2641<8500 else 5308)@")
    '12184'
    >>> run("a=1\nprint(a+b)")
    Traceback (most recent call last):
    gatewise.errors.DataError: line 2, column 9: expected a value of 'b', found none: assign it first

    Args:
        text: a program, as Python's text or serialised ('#' for newlines, '@' at the end).
        limits: on what it may need.
    Raises:
        DataError: if it is outside the language, uses what has no value, or goes beyond a limit: with
            line, column, what was expected and what was found.
    """
    machine = _Machine(limits)
    machine.execute(parse(text, limits))
    return "\n".join(machine.printed)


class _Machine:
    """The values of the variables, what was printed, and how much may still be done."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.most = 10**limits.digits
        self.values: dict[str, int] = {}
        self.printed: list[str] = []
        self.work = limits.work
        self.room = limits.printed

    def execute(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            self.spend(statement.work, statement.place)
            if isinstance(statement, Assign):
                self.assign(statement)
            elif isinstance(statement, Print):
                self.show(statement)
            else:
                self.repeat(statement)

    def spend(self, work: int, place: Place) -> None:
        self.work -= work
        if self.work < 0:
            limit = f"at most {self.limits.work:,} operations"
            raise wrong(place, limit, "more", "take fewer rounds of the loops")

    def assign(self, statement: Assign) -> None:
        if statement.sign == "=":
            self.values[statement.name] = self.value(statement.value)
            return
        old = self.value(Name(statement.name, statement.place))
        new = self.value(statement.value)
        self.values[statement.name] = self.joined(old, statement.sign[0], new, statement.place)

    def show(self, statement: Print) -> None:
        text = str(self.value(statement.value))
        self.room -= len(text) + 1
        if self.room < 0:
            raise wrong(statement.place, f"at most {self.limits.printed:,} characters", "more")
        self.printed.append(text)

    def repeat(self, statement: Loop) -> None:
        rounds = int(self.value(statement.rounds))
        for k in range(rounds):
            self.spend(1, statement.place)
            self.values[statement.name] = k
            self.execute(statement.body)

    def value(self, value: Value) -> int:
        """Its value: an int, or a bool where a comparison gives one, as in Python."""
        if isinstance(value, Number):
            return value.value
        if isinstance(value, Name):
            if value.name not in self.values:
                expected = f"a value of {value.name[:40]!r}"
                raise wrong(value.place, expected, "none", "assign it first")
            return self.values[value.name]
        if isinstance(value, Chain):
            return self.compared(value) if value.signs[0] in _COMPARISONS else self.folded(value)
        if isinstance(value, Negative):
            inner = self.value(value.value)
            return -inner if value.minus else +inner
        return self.chosen(value)

    def folded(self, chain: Chain) -> int:
        total = self.value(chain.first)
        for sign, part in zip(chain.signs, chain.rest, strict=True):
            total = self.joined(total, sign, self.value(part), chain.place)
        return total

    def joined(self, a: int, sign: str, b: int, place: Place) -> int:
        found = a + b if sign == "+" else a - b if sign == "-" else a * b
        if not -self.most < found < self.most:
            raise wrong(place, f"numbers of at most {self.limits.digits} digits", "a longer result")
        return found

    def compared(self, chain: Chain) -> int:
        """`a < b < c` as `a < b and b < c`: c is not looked at if the first is false."""
        left = self.value(chain.first)
        for sign, part in zip(chain.signs, chain.rest, strict=True):
            right = self.value(part)
            if not _COMPARISONS[sign](left, right):
                return False
            left = right
        return True

    def chosen(self, choice: Choice) -> int:
        for option, condition in choice.options:
            if self.value(condition):
                return self.value(option)
        return self.value(choice.otherwise)


_COMPARISONS = {
    "<": int.__lt__,
    ">": int.__gt__,
    "<=": int.__le__,
    ">=": int.__ge__,
    "==": int.__eq__,
    "!=": int.__ne__,
}

__all__ = ["LIMITS", "Limits", "run"]
