"""What is shown of a cell."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import gatewise as gw
from gatewise.cells import REGISTRY
from gatewise.errors import EngineError, OptionError, UnknownNameError


def test_an_lstm_is_shown() -> None:
    shown = gw.show(gw.cells.LSTM)
    assert "f = sigmoid(a.f)" in shown.equations.splitlines()
    assert "c = (f * s.c) + (i * g)" in shown.equations.splitlines()
    assert r"c_t &= \left(f_t \odot c_{t-1}\right) + \left(i_t \odot g_t\right)" in shown.latex
    gradients = dict(line.split(" = ", 1) for line in shown.gradients.splitlines())
    assert gradients["d.a.o"] == "d.h * tanh(c) * o * (1 - o)"
    assert "d.s.h" not in gradients  # only through R h
    assert set(shown.keeps) == {"i", "f", "g", "o", "c"}
    assert "backward keeps" in str(shown)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_cell_is_shown(name: str) -> None:
    kind = REGISTRY[name]
    shown = gw.show(kind)
    assert shown == gw.show(kind(2, 3)) == gw.show(kind.law)
    assert shown.latex.count("&=") == len(kind.law.graph.names) + len(kind.law.rounds)
    assert str(shown).startswith(name)


def test_a_user_cell_is_shown() -> None:
    @gw.cell
    def half(a: Any, s: Any) -> Any:
        z = gw.sigmoid(a.z)
        return {"h": gw.where(z > 0.5, s.h, a.z / (1 - z))}, {"z": z}

    shown = gw.show(half)
    assert shown.reads_past
    assert "where(" in shown.gradients


def test_a_linear_recurrence_is_shown_as_a_scan() -> None:
    assert gw.show(gw.cells.MinGRU).scan == "h[t] = (1 - z) * h[t-1] + z * a.n"
    assert "as a scan\nh[t] = f * h[t-1] + i * a.g" in str(gw.show(gw.cells.MinLSTM))
    assert gw.show(gw.cells.LSTM).scan == ""

    @gw.cell
    def memory(a: Any, s: Any) -> Any:
        f = gw.sigmoid(a.x.f)
        c = s.c - (f - a.x.z)
        return {"h": gw.tanh(c), "c": c}, {"f": f}

    assert gw.show(memory).scan == "c[t] = c[t-1] - (f - a.x.z)\nh[t] = tanh(c)"


def test_other_things_are_refused() -> None:
    with pytest.raises(OptionError, match="takes a cell"):
        gw.show(3)  # type: ignore[arg-type]


def test_its_code_is_shown() -> None:
    shown = gw.show(gw.cells.GRU)
    code = shown.code()
    assert 'define void @"forward"' in code
    assert 'define void @"backward"' in code
    assert 'define void @"backward"' not in shown.code(gradients=False)
    assert "fmla" in shown.code(assembly=True, target="aarch64")
    with pytest.raises(EngineError, match="x and h modulate each other"):
        gw.show(gw.cells.Mogrifier).code()
    with pytest.raises(UnknownNameError, match="unknown target 'z80'"):
        shown.code(target="z80")
    with pytest.raises(OptionError, match="'float32' or 'float64'"):
        shown.code(dtype="int8")


def test_the_gradients_of_matrices_and_norms() -> None:
    paper = gw.show(gw.cells.PaperGRU).gradients
    assert "d.p.weight_hn = outer(d.h * (1 - z) * (1 - n * n), r * s.h)" in paper
    assert "d.s.h = d.h * z + p.weight_hn.T @ (d.h * (1 - z) * (1 - n * n)) * r" in paper
    normed = gw.show(gw.cells.LayerNormLSTM)
    assert (
        "d.p.scale_o = d.h * tanh(normal(c) * p.scale_c + p.shift_c) * o * (1 - o) * normal(a.o)"
        in (normed.gradients)
    )
    assert "mean(v) is over the units" in normed.text
    assert normed.keeps


@pytest.mark.parametrize("name", REGISTRY)
def test_equations_show_themselves_in_a_notebook(name: str) -> None:
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    from matplotlib.mathtext import MathTextParser

    shown = gw.show(REGISTRY[name])
    tex = shown._repr_latex_()
    assert tex.startswith("$$\\begin{aligned}\n")
    assert tex.endswith("\n\\end{aligned}$$")
    for line in shown.latex.split(" \\\\\n"):  # each is a formula
        MathTextParser("path").parse(f"${line.replace('&=', '=')}$")
    markdown = shown._repr_markdown_()
    assert tex in markdown
    assert markdown.index("```text\n") < markdown.index("gradients\n") < markdown.rindex("```")
    assert shown.equations not in markdown  # the formulas say it


def test_names_do_not_become_markup() -> None:
    law = dataclasses.replace(gw.cells.LSTM.law, name="a_b*<c>", paper="[x](y) & `z`")
    head = gw.show(law)._repr_markdown_().splitlines()[0]
    assert head == r"**a\_b\*\<c\>**: \[x\](y) & \`z\`"
