"""Generated programs for learning to execute (Zaremba & Sutskever 2014, arXiv 1410.4615), with their output.

A program is a chain of operations on a stack. Each takes the value that is there, draws its other
operands fresh and puts its result back; the last result is printed:

    j=8584                        j=8584#for x in range(8):j+=920#b=(1500+j);#print((b+7567))@25011.
    for x in range(8):j+=920
    b=(1500+j);                   as Python's text, and serialised as a model reads it: lines joined
    print((b+7567))               by '#', '@' at the end of the input, '.' at that of the target

Length L: operands are uniform in [1, 10^L]; nesting N: operations. Both ends are included, as in the
authors' program, which this follows but for the parts: there each has a third of all programs, here
training has eight tenths. A program's part follows from its text, so that no two parts share one. Every
target that is handed out was found twice, on the way and by `interpreter`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from gatewise.errors import DataError, OptionError, unknown
from gatewise.tasks.interpreter import LIMITS, run
from gatewise.tasks.tokens import Token, lines_of, tokens_of, wrong

ALPHABET = "0123456789abcdefghijlnoprstx()+-*=<>:; #@."
"""The 42 symbols of programs, inputs and targets."""

NEWLINE, END_OF_INPUT, END_OF_TARGET = "#", "@", "."
PARTS = ("train", "valid", "test")
LONGEST, DEEPEST = 18, 10
"""Most digits of an operand (it fits 64 bits), and most operations (each may take one of ten variables)."""

_TENTHS = {"train": tuple(range(2, 10)), "valid": (1,), "test": (0,)}
_SALT = bytes([28])  # with it even the ten one-digit texts are parted eight, one and one
_VARIABLES = "abcdefghij"


class Hardness(NamedTuple):
    """How hard an example is: digits of its operands, number of its operations."""

    length: int
    nesting: int = 1

    def checked(self) -> Hardness:
        """Itself.

        Raises:
            OptionError: if no example is so hard.
        """
        if not 1 <= self.length <= LONGEST or not 1 <= self.nesting <= DEEPEST:
            raise OptionError(
                f"expected a length of 1 to {LONGEST} and a nesting of 1 to {DEEPEST}, "
                f"found {self.length} and {self.nesting}"
            )
        return self


class Example(NamedTuple):
    """What a model reads, and what it answers, with the '.' at the end."""

    source: str
    target: str


class _Term(NamedTuple):
    """An expression and its value."""

    text: str
    value: int


class _Maker:
    """A program on its way: the lines so far, and the stack, which never holds more than one value."""

    def __init__(self, rng: np.random.Generator, length: int) -> None:
        self.rng, self.length = rng, length
        self.lines: list[str] = []
        self.top: _Term | None = None
        self._names = iter([_VARIABLES[k] for k in rng.permutation(len(_VARIABLES))])

    def number(self, most: int) -> int:
        """Uniform in [1, most]."""
        return int(self.rng.integers(1, most, endpoint=True))

    def coin(self) -> bool:
        return bool(self.rng.integers(2))

    def variable(self) -> str:
        """One that the program has not used."""
        return next(self._names)

    def operands(self, count: int) -> list[_Term]:
        """The value on the stack and fresh numbers, in a random order."""
        found = [self.top] if self.top else []
        while len(found) < count:
            value = self.number(10**self.length)
            found.append(_Term(str(value), value))
        return [found[k] for k in self.rng.permutation(count)] if count > 1 else found


def _pair(maker: _Maker) -> _Term:
    a, b = maker.operands(2)
    if maker.coin():
        return _Term(f"({a.text}+{b.text})", a.value + b.value)
    return _Term(f"({a.text}-{b.text})", a.value - b.value)


def _small_product(maker: _Maker) -> _Term:
    (e,) = maker.operands(1)
    k = maker.number(4 * maker.length)
    text = f"({e.text}*{k})" if maker.coin() else f"({k}*{e.text})"
    return _Term(text, e.value * k)


def _equality(maker: _Maker) -> _Term:
    (e,) = maker.operands(1)
    return e


def _variable(maker: _Maker) -> _Term:
    name = maker.variable()
    a, b = maker.operands(2)
    maker.lines.append(f"{name}={a.text};")
    if maker.coin():
        return _Term(f"({name}+{b.text})", a.value + b.value)
    return _Term(f"({name}-{b.text})", a.value - b.value)


def _loop(maker: _Maker) -> _Term:
    name = maker.variable()
    a, b = maker.operands(2)
    k = maker.number(4 * maker.length)
    sign = "+" if maker.coin() else "-"
    maker.lines += [f"{name}={a.text}", f"for x in range({k}):{name}{sign}={b.text}"]
    return _Term(name, a.value + k * b.value if sign == "+" else a.value - k * b.value)


def _choice(maker: _Maker) -> _Term:
    a, b, c, d = maker.operands(4)
    sign = ">" if maker.coin() else "<"
    holds = a.value > b.value if sign == ">" else a.value < b.value
    text = f"({c.text} if {a.text}{sign}{b.text} else {d.text})"
    return _Term(text, c.value if holds else d.value)


OPERATIONS: dict[str, Callable[[_Maker], _Term]] = {
    "pair": _pair,
    "small product": _small_product,
    "equality": _equality,
    "variable": _variable,
    "loop": _loop,
    "choice": _choice,
}
"""Equally likely at every step."""

_OPERATIONS = tuple(OPERATIONS.values())


def draw(rng: np.random.Generator, hardness: Hardness) -> Example:
    """One program and its output, whatever its part."""
    maker = _Maker(rng, hardness.length)
    for k in rng.integers(len(_OPERATIONS), size=hardness.nesting).tolist():
        maker.top = _OPERATIONS[k](maker)
    assert maker.top is not None
    source = "\n".join([*maker.lines, f"print({maker.top.text})"])
    return Example(source, f"{maker.top.value}{END_OF_TARGET}")


def sample(
    n: int,
    length: int = 4,
    nesting: int = 3,
    seed: int = 7,
    *,
    part: str | None = None,
    start: int = 0,
) -> Iterator[Example]:
    """Yields n programs and what they print: runnable Python, and "25011." as a string.

    Program number k is a function of seed, part and k, however many were drawn before.

    >>> [(source, target)] = sample(1, length=2, nesting=2, seed=4)
    >>> print(source)
    b=(88*2)
    for x in range(1):b-=34
    print(b)
    >>> target
    '142.'

    Args:
        n: how many.
        length: L: operands are uniform in [1, 10^L].
        nesting: N: how many operations.
        seed: of all of them.
        part: "train", "valid" or "test", which share no program; None: any program.
        start: the number of the first.
    Raises:
        OptionError: if an argument is out of its range.
    """
    hardness = Hardness(length, nesting).checked()
    if n < 0 or start < 0 or seed < 0:
        raise OptionError(f"expected n, start and seed from 0, found {n}, {start} and {seed}")
    streams = (stream(seed, k, part) for k in range(start, start + n))
    return (verified(draw_in_part(draw, rng, hardness, part)) for rng in streams)


def verified(example: Example) -> Example:
    """Itself: its target is what the interpreter, which knows nothing of the generator, finds."""
    found = run(example.source) + END_OF_TARGET
    assert found == example.target, f"{example} but the interpreter found {found}"
    return example


def stream(seed: int, k: int, part: str | None = None) -> np.random.Generator:
    """The random numbers from which example k is made.

    Raises:
        UnknownNameError: if there is no such part.
    """
    return np.random.default_rng((seed, PARTS.index(_checked_part(part)) + 1 if part else 0, k))


Draw = Callable[[np.random.Generator, Hardness], Example]
_TRIES = 10_000


def draw_in_part(
    make: Draw, rng: np.random.Generator, hardness: Hardness, part: str | None
) -> Example:
    """The first example that `make` draws in the part.

    Raises:
        OptionError: if there is none among 10,000: so few are so easy that the part has none.
    """
    for _ in range(_TRIES):
        found = make(rng, hardness)
        if part is None or part_of(found.source) == part:
            return found
    raise OptionError(
        f"expected examples of length {hardness.length} in the part {part!r}, found none among "
        f"{_TRIES:,}: there are too few so short, take a greater length"
    )


def part_of(program: str) -> str:
    """The part that a program is in, by its text alone, in either form.

    >>> part_of("print((6+1))"), part_of("print((6+1))@7."), part_of("print((6+8))")
    ('train', 'train', 'valid')
    """
    text = serialise(program.partition(END_OF_INPUT)[0])
    hashed = hashlib.blake2b(text.encode(), digest_size=8, salt=_SALT).digest()
    k = int.from_bytes(hashed, "little") % 10
    return next(part for part, tenths in _TENTHS.items() if k in tenths)


def serialise(source: str) -> str:
    r"""The text as a model reads it: '#' for a newline, '@' at its end.

    >>> serialise("a=1;\nprint((a+2))")
    'a=1;#print((a+2))@'
    """
    return source.strip("\n").replace("\n", NEWLINE) + END_OF_INPUT


_SPACED = ("if", "else", "in")


def normal(text: str) -> str:
    r"""A program, in either form, with spaces where the generator writes them and without comments.

    >>> normal("a = 8584  # a comment\nfor x in range(8): a += 920\nprint( a )")
    'a=8584\nfor x in range(8):a+=920\nprint(a)'

    Raises:
        DataError: if there is a character that is not of the language, or not among the 42 symbols.
    """
    lines, line, depth = [], "", 0
    before: Token | None = None
    for token in tokens_of(lines_of(text, LIMITS), LIMITS):
        if token.kind in ("indent", "dedent"):
            depth += 1 if token.kind == "indent" else -1
        elif token.kind in ("newline", "end"):
            lines += [line] if line else []
            line, before = "", None
        else:
            if before is None:
                line = " " * depth
            elif _apart(before, token):
                line += " "
            line, before = line + _known(token), token
    return "\n".join(lines)


def _apart(left: Token, right: Token) -> bool:
    """Whether the generator writes a space between two tokens."""
    words = left.kind != "sign" and right.kind != "sign"
    return words or left.text in _SPACED or right.text in _SPACED


def _known(token: Token) -> str:
    for character in token.text:
        if character not in ALPHABET:
            expected = "one of the 42 symbols of programs (variables are a to j)"
            raise wrong(token.place, expected, repr(character))
    return token.text


def runnable(text: str) -> str:
    r"""The text as Python reads it, from what `serialise` gives; what follows the '@' is left out.

    >>> runnable("a=1;#print((a+2))@3.")
    'a=1;\nprint((a+2))'
    """
    return text.partition(END_OF_INPUT)[0].replace(NEWLINE, "\n")


def parse_line(line: str) -> Example:
    """Both halves of a whole serialised line, input and target.

    >>> parse_line("a=1;#print((a+2))@3.").target
    '3.'

    Raises:
        DataError: if it is no such line.
    """
    text, at, target = line.partition(END_OF_INPUT)
    if not at or not target.endswith(END_OF_TARGET) or END_OF_INPUT in target:
        raise DataError(f"expected INPUT@TARGET. as in 'print(2)@2.', found {line[:60]!r}")
    return Example(runnable(text), target)


def _checked_part(part: str | None) -> str:
    if part not in PARTS:
        raise unknown("part", part, PARTS)
    return part


__all__ = [
    "ALPHABET",
    "DEEPEST",
    "LONGEST",
    "OPERATIONS",
    "PARTS",
    "Example",
    "Hardness",
    "draw",
    "draw_in_part",
    "normal",
    "parse_line",
    "part_of",
    "runnable",
    "sample",
    "serialise",
    "stream",
    "verified",
]
