"""The interpreter beside Python: programs of its whole grammar, spoiled programs, errors, limits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import pytest

from gatewise.errors import DataError
from gatewise.tasks.interpreter import Limits, run
from gatewise.tasks.programs import sample

Answers = Callable[[Sequence[str]], list[tuple[str, str]]]

# ---------------------------------------------------------------------------- all of the grammar


class _Writer:
    """Writes programs of the whole grammar; by hand, as strategies for so deep a grammar take minutes."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def program(self) -> str:
        lines = [self.line(2, "") for _ in range(self.rng.randint(1, 6))]
        return "\n".join(["a=3;b=0;c=7", *lines, "print(a)"])

    def line(self, depth: int, indent: str) -> str:
        kind = self.rng.random()
        if depth == 0 or kind < 0.6:
            return indent + self.simples()
        head = f"{indent}for {self.name()} in range({self.rounds()}):"
        if kind < 0.8:
            return head + self.simples()
        inner = indent + " " * self.rng.randint(1, 3)
        lines = [self.line(depth - 1, inner) for _ in range(self.rng.randint(1, 3))]
        return "\n".join([head, *lines])

    def simples(self) -> str:
        found = [self.simple() for _ in range(self.rng.choice([1, 1, 2, 3]))]
        return ";".join(found) + self.rng.choice(["", "", ";", " "])

    def simple(self) -> str:
        if self.rng.random() < 0.3:
            return f"print({self.value(3)})"
        sign = self.rng.choice(["=", " = ", "+=", "-=", "*="])
        return f"{self.name()}{sign}{self.value(3)}"

    def name(self) -> str:
        return self.rng.choice(["a", "b", "c", "a", "b", "c", "x", "long_name2"])

    def rounds(self) -> str:
        return str(self.rng.randint(0, 5)) if self.rng.random() < 0.8 else self.value(1)

    def value(self, depth: int) -> str:
        """Any value: a bare choice is one, but no part of another without parentheses."""
        if self.rng.random() < 0.8:
            return self.part(depth)
        parts = [self.part(depth) for _ in range(5)]
        return "{} if {} else {} if {} else {}".format(*parts)

    def part(self, depth: int) -> str:
        kind = self.rng.choice(["number", "name", "chain", "chain", "sign", "group", "choice"])
        if depth == 0 or kind == "number":
            return str(self.rng.randint(0, 10 ** self.rng.randint(0, 6)))
        if kind == "name":
            return self.name()
        if kind == "sign":
            return self.rng.choice(["-", "+", "--", "- +"]) + self.part(depth - 1)
        if kind == "chain":
            return self.part(depth - 1) + "".join(
                self.sign() + self.part(depth - 1) for _ in range(self.rng.randint(1, 3))
            )
        inner = self.value(depth - 1)
        return self.rng.choice([f"({inner})", f"( {inner}\n )", f"(({inner}) )"])

    def sign(self) -> str:
        sign = self.rng.choice(["+", "-", "*", "<", ">", "+", "-", "*", "<=", ">=", "==", "!="])
        return sign if self.rng.random() < 0.7 else f" {sign} "


# An error of the program itself, at which Python stops at the same place; not one of our limits.
_OF_THE_PROGRAM = "expected a value of"


def _compare(texts: Sequence[str], python_says: Answers, *, all_are_programs: bool) -> int:
    """How many of the texts both run; where ours refuses one as no program, so must Python."""
    asked: list[tuple[str, tuple[str, str]]] = []
    for text in texts:
        try:
            printed = run(text)
            asked.append((text, ("printed", printed + "\n" if printed else "")))
        except DataError as error:
            if _OF_THE_PROGRAM in str(error):
                asked.append((text, ("raised", "NameError")))
            else:
                assert "at most" in str(error) or not all_are_programs, f"{error} in\n{text}"
    for (text, ours), pythons in zip(asked, python_says([t for t, _ in asked]), strict=True):
        assert ours == pythons, text
    return sum(ours[0] == "printed" for _, ours in asked)


def _written(seed: int, n: int) -> list[str]:
    writer = _Writer(seed)
    return [writer.program() for _ in range(n)]


def test_any_program_of_the_grammar_is_run_as_python_does(python_says: Answers) -> None:
    printed = _compare(_written(0, 500), python_says, all_are_programs=True)
    assert printed > 120


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_tens_of_thousands_of_programs_of_the_grammar(python_says: Answers, seed: int) -> None:
    printed = _compare(_written(seed, 6000), python_says, all_are_programs=True)
    assert printed > 1200


_SEEDS = [source for source, _ in sample(60, 2, 3)] + [
    "a=1\nfor x in range(3):\n  a+=x\n  print(a)\nprint(-(a*2) if a<3<5 else (a))"
]


_NEW = ["", "", *"019abx()+-*=<>:; \n", "print", "if ", "else", "  "]


def _spoiled(rng: random.Random) -> str:
    """A program with some characters taken out, put in or changed; never one line alone."""
    text = "\n" + rng.choice(_SEEDS)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(_NEW) + text[at + rng.randint(0, 1) :]
    return text + "\nprint(0)"


def test_what_it_takes_python_takes_with_the_same_result(python_says: Answers) -> None:
    rng = random.Random(1)
    texts = [_spoiled(rng) for _ in range(2000)]
    assert _compare(texts, python_says, all_are_programs=False) > 100


def test_any_text_has_an_answer_or_one_line() -> None:
    rng = random.Random(2)
    symbols = "0a(x)+-*=<>:;#@. \nfor in range print if else\t\u00e9"
    for _ in range(3000):
        text = "".join(rng.choices(symbols, k=rng.randint(0, 60)))
        try:
            run(text)
        except DataError as error:
            assert "\n" not in str(error)
            assert str(error).startswith(("line ", "expected a program of"))


# ---------------------------------------------------------------------------- forms


def test_the_lectures_programs() -> None:
    first = "j=8584\nfor x in range(8): j+=920\nb=(1500+j)\nprint((b+7567))"
    second = "i=8827\nc=(i-5347)\nprint((c+8704) if 2641<8500 else 5308)"
    for text, printed in ((first, "25011"), (second, "12184")):
        assert run(text) == run(text + "\n") == run(text.replace("\n", "\r\n")) == printed
        serialised = text.replace("\n", "#")
        assert run(serialised) == run(serialised + "@") == run(serialised + "@\n") == printed


def test_a_sign_for_a_newline_is_a_comment_in_a_text_of_lines() -> None:
    assert run("a=1 # one\n# nothing\nprint(a)") == "1"
    assert run("a=1#print(a)") == "1"


def test_nothing_prints_nothing() -> None:
    assert run("") == run("\n\n") == run("@") == run("a=1") == ""


def test_several_lines_are_printed() -> None:
    assert run("for k in range(3):\n    print(k)\n    print(k<1)") == "0\nTrue\n1\nFalse\n2\nFalse"


# ---------------------------------------------------------------------------- errors

_ERRORS = {
    "print(1": "line 1, column 8: expected an operator or ')', found the end of the program",
    "a=": "line 1, column 3: expected a number, a name or '(', found the end of the line",
    "a=1#b=1+*2": "line 2, column 5: expected a number, a name or '(', found '*'",
    "a": "line 1, column 2: expected '=', '+=', '-=' or '*=', found the end of the line",
    "1+2": "line 1, column 1: expected a statement (NAME=..., print(...) or for), found '1'",
    "print(1))": "line 1, column 9: expected an operator, ';' or the end of the line, found ')'",
    "print(1 if 2)": "line 1, column 13: expected an operator or 'else', found ')'",
    "for x in range(3)": "line 1, column 18: expected ':', found the end of the line",
    "for x in list(3):a=1": "line 1, column 10: expected 'range', found 'list'",
    "for x in range(3):\na=1": "line 2, column 1: expected an indented line after ':', found 'a'",
    "for if in range(3):a=1": "line 1, column 5: expected the name of the loop's variable, found 'if'",
    "a=1\n  a=2": "line 2, column 3: expected a statement (NAME=..., print(...) or for), "
    "found an indented line",
    "for x in range(3):\n    a=1\n  a=2": "line 3, column 3: expected a line indented by 0 spaces "
    "or less, found 2",
    "print(007)": "line 1, column 7: expected a number without leading zeros, found '007'",
    "print(1if 2 else 3)": "line 1, column 7: expected a sign or a space after a number, found '1i'",
    "import os": "line 1, column 1: expected a word of the language, found 'import'",
    "print(\u00e9)": "line 1, column 7: expected a character of the language, found '\u00e9'",
    "print(1)@2.": "line 1, column 10: expected the end of the program after '@', found '2.'",
    "print(b)": "line 1, column 7: expected a value of 'b', found none: assign it first",
    "b+=1": "line 1, column 1: expected a value of 'b', found none: assign it first",
    "for x in range(0):b=1#print(x)": "line 2, column 7: expected a value of 'x', found none: "
    "assign it first",
}


@pytest.mark.parametrize("text", _ERRORS)
def test_errors_say_where_what_and_what_else(text: str) -> None:
    with pytest.raises(DataError) as raised:
        run(text)
    assert str(raised.value) == _ERRORS[text]


# ---------------------------------------------------------------------------- limits

_HOSTILE = {
    "too long": ("print(1)" + " " * 20_000, "at most 10,000 characters, found 20,008"),
    "deep": ("print(" + "(" * 5000 + "1", "at most 40 open parentheses"),
    "deep loops": (
        "\n".join(" " * k + "for x in range(1):" for k in range(60)) + "\n" + " " * 60 + "a=1",
        "at most 20 loops in one another",
    ),
    "many rounds": ("for x in range(10000000000000000000000000):a=1", "at most 100,000 operations"),
    "rounds of rounds": (
        "for x in range(9999):\n for y in range(9999):\n  for z in range(9999):a=1",
        "at most 100,000 operations",
    ),
    "long rounds": ("for x in range(99999):a=" + "1+" * 4900 + "1", "at most 100,000 operations"),
    "empty rounds": ("for x in range(999999999):\n for y in range(0):a=1\nprint(1)", "operations"),
    "large": ("a=9#for x in range(99999):a*=a", "numbers of at most 100 digits"),
    "large negative": ("a=1#for x in range(99999):a-=a*9", "numbers of at most 100 digits"),
    "a long number": ("print(" + "9" * 9000 + ")", "a number of at most 100 digits"),
    "much output": ("for x in range(99999):print(x)", "at most 10,000 characters"),
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_text_is_answered_at_once(name: str) -> None:
    text, expected = _HOSTILE[name]
    began = time.perf_counter()
    with pytest.raises(DataError, match=expected):
        run(text)
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize(
    "text",
    [
        "a=" + "1+" * 4900 + "1#print(a)",
        "a=" + "-" * 9000 + "1#print(a)",
        "print(" + "1 if 0 else " * 800 + "7)",
        "print(1" + "<2" * 4900 + ")",
        "a=1;" * 2400 + "print(a)",
    ],
    ids=["sum", "signs", "choices", "comparisons", "statements"],
)
def test_what_is_long_and_not_deep_is_run(text: str, python_says: Answers) -> None:
    assert run(text)
    if "1+1" in text:
        assert run(text) == "4901"


def test_limits_can_be_set() -> None:
    limits = Limits(work=30, depth=2, digits=2)
    assert run("print(((99)))".replace("((99))", "(99)"), limits) == "99"
    with pytest.raises(DataError, match="at most 2 open parentheses"):
        run("print(((9)))", limits)
    with pytest.raises(DataError, match="at most 2 digits"):
        run("print(99+1)", limits)
    with pytest.raises(DataError, match="at most 30 operations"):
        run("for x in range(20):a=1", limits)
