"""The small language of learning to execute, read: text to tokens to a tree. Runs nothing.

    line       = simple (";" simple)* [";"] | "for" NAME "in" "range" "(" value ")" ":" body
    body       = simple (";" simple)* [";"] | a deeper indented block of lines
    simple     = NAME ("=" | "+=" | "-=" | "*=") value | "print" "(" value ")"
    value      = comparison ("if" comparison "else" comparison)*       grouped from the right
    comparison = sum (("<" | ">" | "<=" | ">=" | "==" | "!=") sum)*    chained as in Python
    sum        = product (("+" | "-") product)*
    product    = sign ("*" sign)*
    sign       = ("+" | "-")* (NUMBER | NAME | "(" value ")")

All of it is Python with Python's meaning; of Python it is a small part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from gatewise.tasks.tokens import WORDS, Limits, Place, Token, lines_of, tokens_of, wrong

# ---------------------------------------------------------------------------- the tree


class Number(NamedTuple):
    """A written number."""

    value: int


class Name(NamedTuple):
    """A variable's value."""

    name: str
    place: Place


class Chain(NamedTuple):
    """Values joined by signs, as many signs as further values: + and -, *, or comparisons."""

    first: Value
    signs: tuple[str, ...]
    rest: tuple[Value, ...]
    place: Place


class Negative(NamedTuple):
    """A value behind signs: minus it, or plus it, which makes True 1."""

    value: Value
    minus: bool


class Choice(NamedTuple):
    """`value if condition else value if condition else otherwise`."""

    options: tuple[tuple[Value, Value], ...]
    otherwise: Value


Value: TypeAlias = "Number | Name | Chain | Negative | Choice"


class Assign(NamedTuple):
    """`name = value`, or += -= *=; `work` is what one execution of it costs."""

    name: str
    sign: str
    value: Value
    place: Place
    work: int


class Print(NamedTuple):
    """`print(value)`."""

    value: Value
    place: Place
    work: int


class Loop(NamedTuple):
    """`for name in range(rounds): body`."""

    name: str
    rounds: Value
    body: tuple[Statement, ...]
    place: Place
    work: int


Statement: TypeAlias = "Assign | Print | Loop"

# ---------------------------------------------------------------------------- the parser


def parse(text: str, limits: Limits) -> tuple[Statement, ...]:
    """The statements of a program in either form.

    Raises:
        DataError: where it leaves the language: line, column, what was expected and what was found.
    """
    parser = _Parser(tokens_of(lines_of(text, limits), limits), limits)
    statements: list[Statement] = []
    while parser.now.kind != "end":
        statements += parser.line(0)
    return tuple(statements)


class _Parser:
    """Recursive descent: one method for each rule of the grammar; only parentheses and blocks nest."""

    def __init__(self, tokens: list[Token], limits: Limits) -> None:
        self.tokens, self.limits = tokens, limits
        self.at = 0
        self.work = 0  # values and signs since the statement began

    @property
    def now(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def accept(self, *texts: str) -> Token | None:
        """The next token if it is one of these."""
        return self.take() if self.now.text in texts else None

    def expect(self, text: str, what: str = "") -> Token:
        return self.accept(text) or self.fail(what or repr(text))

    def fail(self, expected: str) -> Token:
        raise wrong(self.now.place, expected, self.now.shown())

    def line(self, depth: int) -> list[Statement]:
        if self.now.text == "for":
            return [self.loop(depth)]
        return self.simple_line()

    def simple_line(self) -> list[Statement]:
        statements = [self.simple()]
        while self.accept(";"):
            if self.now.kind == "newline":
                break
            statements.append(self.simple())
        if self.now.kind != "newline":
            self.fail("an operator, ';' or the end of the line")
        self.take()
        return statements

    def simple(self) -> Statement:
        start, self.work = self.now, 1
        if self.accept("print"):
            self.expect("(")
            value = self.value()
            self.expect(")", "an operator or ')'")
            return Print(value, start.place, self.work)
        if start.kind != "name" or start.text in WORDS:
            self.fail("a statement (NAME=..., print(...) or for)")
        self.take()
        sign = self.accept("=", "+=", "-=", "*=") or self.fail("'=', '+=', '-=' or '*='")
        value = self.value()
        return Assign(start.text, sign.text, value, start.place, self.work)

    def loop(self, depth: int) -> Loop:
        start, self.work = self.take(), 1
        if depth >= min(self.limits.depth, 20):  # Python's own limit is 20
            raise wrong(start.place, "at most 20 loops in one another", "one more")
        name = self.now
        if name.kind != "name" or name.text in WORDS:
            self.fail("the name of the loop's variable")
        self.take()
        for text in ("in", "range", "("):
            self.expect(text)
        rounds = self.value()
        for text in (")", ":"):
            self.expect(text, "an operator or ')'" if text == ")" else "")
        work = self.work
        return Loop(name.text, rounds, tuple(self.body(depth + 1)), start.place, work)

    def body(self, depth: int) -> list[Statement]:
        if self.now.kind != "newline":
            return self.simple_line()
        self.take()
        if self.now.kind != "indent":
            self.fail("an indented line after ':'")
        self.take()
        statements: list[Statement] = []
        while self.now.kind != "dedent":
            statements += self.line(depth)
        self.take()
        return statements

    def value(self) -> Value:
        parts: list[tuple[Value, Value]] = []
        value = self.comparison()
        while self.accept("if"):
            parts.append((value, self.comparison()))
            self.expect("else", "an operator or 'else'")
            value = self.comparison()
        return Choice(tuple(parts), value) if parts else value

    def comparison(self) -> Value:
        return self.chain(("<", ">", "<=", ">=", "==", "!="), self.sum)

    def sum(self) -> Value:
        return self.chain(("+", "-"), self.product)

    def product(self) -> Value:
        return self.chain(("*",), self.signed)

    def chain(self, signs: tuple[str, ...], part: Callable[[], Value]) -> Value:
        first = part()
        found: list[Token] = []
        rest: list[Value] = []
        while sign := self.accept(*signs):
            found.append(sign)
            rest.append(part())
        if not rest:
            return first
        return Chain(first, tuple(sign.text for sign in found), tuple(rest), found[0].place)

    def signed(self) -> Value:
        signs = []
        while sign := self.accept("+", "-"):
            signs.append(sign.text)
        value = self.atom()
        return Negative(value, signs.count("-") % 2 == 1) if signs else value

    def atom(self) -> Value:
        self.work += 1
        token = self.now
        if token.kind == "number":
            return Number(int(self.take().text))
        if token.kind == "name" and token.text not in WORDS:
            return Name(self.take().text, token.place)
        if self.accept("("):
            value = self.value()
            self.expect(")", "an operator or ')'")
            return value
        raise wrong(token.place, "a number, a name or '('", token.shown())


__all__ = [
    "Assign",
    "Chain",
    "Choice",
    "Loop",
    "Name",
    "Negative",
    "Number",
    "Print",
    "Statement",
    "Value",
    "parse",
]
