"""A cell's equations, their gradients and what backward keeps, as text and LaTeX. Knows graphs only."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from gatewise.cells.base import Cell, Law
from gatewise.cells.derive import Backward, differentiate
from gatewise.cells.equations import Expr
from gatewise.cells.graph import Graph, text
from gatewise.cells.linear import recurrence
from gatewise.cells.linear import refusal as no_scan
from gatewise.cells.norms import written_out
from gatewise.cells.rounds import Round
from gatewise.errors import OptionError

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "matmul": "@"}
_INFIX |= {"gt": ">", "lt": "<", "ge": ">=", "le": "<="}
_BINDING = {"add": 1, "sub": 1, "mul": 2, "div": 2, "matmul": 2, "matmul_back": 2, "neg": 3}
_LATEX = {"add": "+", "sub": "-", "mul": r"\odot", "matmul": ""}
_LATEX |= {"gt": ">", "lt": "<", "ge": r"\ge", "le": r"\le"}
_LATEX_NAMES = {
    "sigmoid": r"\sigma",
    "tanh": r"\tanh",
    "exp": r"\exp",
    "log": r"\log",
    "minimum": r"\min",
    "maximum": r"\max",
}


_NORMS = "where mean(v) is over the units, and normal(v) = (v - mean(v)) / deviation(v)"


@dataclass(frozen=True)
class Shown:
    """What `show` found out about a cell; printed, it is `text`.

    Attributes:
        equations: one line for each named value, in the order of computation.
        latex: the same, the lines of an `aligned` environment.
        gradients: one line for each input that the equations read: the gradient of the cost with respect
            to it, where ``d.c`` is the gradient of the next c. The path through R h is not in them.
        keeps: the values that the backward pass reads, besides the states.
        reads_past: whether the pre-activations depend on h[t-1]; where they do not, the cell is a
            linear recurrence or no recurrence at all.
        scan: of a linear recurrence, one line for each state, with its factor and what is added: what
            the scan engine computes for all times at once; else "".
    """

    name: str
    paper: str
    equations: str
    latex: str
    gradients: str
    keeps: tuple[str, ...]
    reads_past: bool
    scan: str

    @property
    def text(self) -> str:
        """All of it but the LaTeX."""
        head = f"{self.name}: {self.paper}" if self.paper else self.name
        keeps = ", ".join(self.keeps) or "nothing"
        body = self.gradients
        if "mean(" in body or "normal(" in body:
            body += f"\n{_NORMS}"
        scan = f"as a scan\n{self.scan}\n\n" if self.scan else ""
        return f"{head}\n\n{self.equations}\n\n{scan}gradients\n{body}\n\nbackward keeps: {keeps}"

    def __str__(self) -> str:
        return self.text

    def _repr_latex_(self) -> str:
        return f"$$\\begin{{aligned}}\n{self.latex}\n\\end{{aligned}}$$"

    def _repr_markdown_(self) -> str:
        head = f"**{_plain(self.name)}**" + (f": {_plain(self.paper)}" if self.paper else "")
        _, _, rest = self.text.partition(f"{self.equations}\n\n")
        return f"{head}\n\n{self._repr_latex_()}\n\n```text\n{rest}\n```\n"


def _plain(text: str) -> str:
    """Text that markdown takes for nothing else."""
    return re.sub(r"([\\`*_{}\[\]<>#+!|$~])", r"\\\1", text)


def show(cell: Cell | type[Cell] | Law) -> Shown:
    """What a cell computes: its equations, their gradients, and what the backward pass keeps.

    Args:
        cell: a cell, its class, or its law.
    Raises:
        OptionError: if it is none of these.

    >>> from gatewise.cells import RNN
    >>> print(show(RNN).equations)
    h = tanh(a.s)
    """
    law = cell if isinstance(cell, Law) else getattr(cell, "law", None)
    if not isinstance(law, Law):
        raise OptionError(f"show takes a cell or its class: found {type(cell).__name__}")
    graph = law.graph
    plain = written_out(graph)
    found = differentiate(plain)
    writer = _Writer(plain)
    written = {_input(key): writer.text(node) for key, node in sorted(found.gradients.items())}
    written |= _of_matrices(plain, found, writer)
    lines = [f"d.{name} = {line}" for name, line in written.items() if line != "0"]
    before = [_round_text(one, law) for one in law.rounds]
    tex = [_round_tex(one, law) for one in law.rounds]
    return Shown(
        law.name,
        law.paper,
        "\n".join([*before, text(graph)]),
        " \\\\\n".join([*tex, _latex(graph)]),
        "\n".join(lines),
        tuple(writer.read),
        bool(law.recurrent_blocks) or graph.reads_h,
        _scan(law),
    )


def _of_matrices(graph: Graph, found: Backward, writer: _Writer) -> dict[str, str]:
    """Matrix -> its gradient: what comes back to its products, times what they multiply."""
    lines: dict[str, list[str]] = {}
    for place, gradient in found.products.items():
        weight, operand = graph.nodes[place].args
        line = f"outer({writer.text(gradient)}, {writer.text(operand)})"
        lines.setdefault(_input(weight.key or ("param", "")), []).append(line)
    return {name: " + ".join(terms) for name, terms in lines.items()}


def _scan(law: Law) -> str:
    """A linear recurrence, state by state in the order in which they are computed."""
    if no_scan(law):
        return ""
    found = recurrence(law)
    return "\n".join(_affine(law.graph, n, found.alpha[n], found.beta[n]) for n in found.order)


def _affine(graph: Graph, state: str, alpha: Expr, beta: Expr) -> str:
    """``c[t] = f * c[t-1] + i * a.g``; a factor of 0 or 1, and what adds nothing, is left out."""
    writer = _Writer(graph, defined=state)
    factor, past = writer.text(alpha, _BINDING["mul"]), f"{state}[t-1]"
    terms = [] if factor == "0" else [past if factor == "1" else f"{factor} * {past}"]
    added = writer.text(beta, _BINDING["add"] + 1 if terms else 0)
    terms += [] if added == "0" and terms else [added]
    return f"{state}[t] = {' + '.join(terms)}".replace(" + -", " - ")


def _parts(one: Round, law: Law) -> tuple[str, str]:
    """What a round changes and what it reads: the last of x and of h before it."""
    latest = {True: "x", False: "s.h"}
    for other in law.rounds[: law.rounds.index(one)]:
        latest[other.changes_x] = other.name
    return latest[one.changes_x], latest[not one.changes_x]


def _round_text(one: Round, law: Law) -> str:
    changed, read = _parts(one, law)
    product = " @ ".join([*(f"p.{f}" for f in one.factors), read])
    return f"{one.name} = (2 * sigmoid({product})) * {changed}"


def _round_tex(one: Round, law: Law) -> str:
    first = {"x": "x_t", "s.h": "h_{t-1}"}
    changed, read = (first.get(n) or _symbol(n) for n in _parts(one, law))
    product = " ".join([*(_tex_input("param", f) for f in one.factors), read])
    return rf"{_symbol(one.name)} &= 2 \sigma\left({product}\right) \odot {changed}"


def _input(key: tuple[str, str]) -> str:
    kind, name = key
    prefix = {"pre": "a.", "pre.x": "a.x.", "pre.h": "a.h.", "state": "s.", "param": "p."}
    return f"d{name}" if kind == "grad" else prefix[kind] + name


class _Writer:
    """Writes nodes in terms of the named values, but for the one that is being `defined`."""

    def __init__(self, graph: Graph, defined: str = "") -> None:
        names = graph.names.items()
        self._names = {id(graph.nodes[i]): name for i, name in names if name != defined}
        norms = [n for n in graph.nodes if n.op == "normal"]
        self._deviations = {id(n.args[2]): n.args[0] for n in norms}
        self.read: dict[str, None] = {}

    def text(self, node: Expr, binding: int = 0) -> str:
        """A node as text, in brackets where its operator binds less than `binding`."""
        if id(node) in self._names:
            name = self._names[id(node)]
            self.read[name] = None
            return name
        if id(node) in self._deviations:
            line = f"1 / deviation({self.text(self._deviations[id(node)])})"
            return f"({line})" if binding else line
        if node.op in ("normal", "row_mean"):
            return f"{node.op.removeprefix('row_')}({self.text(node.args[0])})"
        if node.op in ("raw", "through", "passed"):
            return self.text(node.args[0], binding)
        if node.op == "kept":  # only with zoneout
            return "0"
        if node.op == "const":
            return f"{node.value:g}" if math.isfinite(node.value) else str(node.value)
        if node.key is not None and node.op == "input":
            if node.key[0].startswith("pre"):
                self.read[_input(node.key)] = None
            return f"d.{node.key[1]}" if node.key[0] == "grad" else _input(node.key)
        return self._operation(node, binding)

    def _operation(self, node: Expr, binding: int) -> str:
        own = _BINDING.get(node.op, 0)
        if node.op == "matmul_back":
            weight, gradient = node.args
            line = f"{_input(weight.key or ('param', ''))}.T @ {self.text(gradient, own + 1)}"
            return f"({line})" if own < binding else line
        if node.op == "add" and node.args[0].op == "kept":  # nothing is kept without zoneout
            return self.text(node.args[1], binding)
        if node.op == "neg":
            return f"-{self.text(node.args[0], own)}"
        if node.op in _INFIX:
            left, right = node.args
            tighter = own + (node.op in ("sub", "div"))
            line = f"{self.text(left, own)} {_INFIX[node.op]} {self.text(right, tighter)}"
            return f"({line})" if own < binding or own == 0 else line
        return f"{node.op}({', '.join(self.text(a) for a in node.args)})"


def _latex(graph: Graph) -> str:
    lines = [
        f"{_symbol(name)} &= {_tex(graph, graph.nodes[i], top=True)}"
        for i, name in sorted(graph.names.items())
    ]
    return " \\\\\n".join(lines)


def _symbol(name: str, time: str = "t") -> str:
    return f"{name}_{time}" if len(name) == 1 else rf"\mathrm{{{name}}}_{time}"


def _tex(graph: Graph, node: Expr, *, top: bool = False) -> str:
    names: Mapping[int, str] = {id(graph.nodes[i]): n for i, n in graph.names.items()}
    if not top and id(node) in names:
        return _symbol(names[id(node)])
    if node.op == "const":
        return f"{node.value:g}"
    if node.key is not None:
        return _tex_input(*node.key)
    args = [_tex(graph, a) for a in node.args]
    if node.op == "identity":
        return args[0]
    if node.op == "div":
        return rf"\frac{{{args[0]}}}{{{args[1]}}}"
    if node.op == "neg":
        return f"-{args[0]}"
    if node.op == "sqrt":
        return rf"\sqrt{{{args[0]}}}"
    if node.op in _LATEX:
        line = f" {_LATEX[node.op]} ".join(args)
        return line if top else rf"\left({line}\right)"
    name = _LATEX_NAMES.get(node.op, rf"\operatorname{{{node.op.replace('_', ' ')}}}")
    return rf"{name}\left({', '.join(args)}\right)"


def _tex_input(kind: str, name: str) -> str:
    if kind == "state":
        return _symbol(name, "{t-1}")
    if kind == "param":
        words = name.replace("_", "\\ ")  # a plain space is none in a formula
        return rf"\mathrm{{{words}}}"
    x, h = f"W_{{{name}}} x_t", f"R_{{{name}}} h_{{t-1}}"
    if kind == "pre.x":
        return x
    return h if kind == "pre.h" else f"{x} + {h} + b_{{{name}}}"
