"""How an input fades, against one derivative at a time; and its picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bare import BareRun
from gatewise.errors import DataError, OptionError
from gatewise.insight import fading
from gatewise.probe import Record

TEXT = "thequickbrownfox"


def expected(run: Any, path: str, unit: int, since: int) -> list[float]:
    ids = torch.from_numpy(run.encode(TEXT)).unsqueeze(1)
    x = run.model.inputs(ids).detach().requires_grad_()
    values = run.model.stack(x, engine="reference", record=Record(path, grad=True)).record[path]
    found = []
    for t in range(len(ids)):
        (each,) = torch.autograd.grad(values[t, 0, unit], x, retain_graph=True)
        found.append(float(each[since, 0].norm()))
    return found


@pytest.mark.parametrize(
    ("cell", "memory", "gates"),
    [
        ("lstm", "c", ["input", "forget", "output"]),
        ("gru", "h", ["forget"]),
        ("rnn_tanh", "h", []),
        ("mingru", "h", ["input", "forget"]),
        ("lstm_coupled", "c", ["input", "forget", "output"]),
    ],
)
def test_it_is_what_one_derivative_at_a_time_gives(
    cell: str, memory: str, gates: list[str]
) -> None:
    run: Any = BareRun(cell=cell)
    found = fading(run, TEXT, since=2, layer=0, unit=4)
    assert found.memory == memory
    assert list(found.gates) == gates
    assert found.kept.tolist() == pytest.approx(expected(run, f"layers.0.{memory}", 4, 2), rel=1e-9)
    assert found.said.tolist() == pytest.approx(expected(run, "layers.0.h", 4, 2), rel=1e-9)
    assert found.kept[:2].tolist() == [0, 0]
    if cell == "mingru":  # its z writes, where a GRU's keeps
        assert torch.equal(found.gates["forget"], 1 - found.gates["input"])


def test_the_unit_that_is_taken_holds_most() -> None:
    run: Any = BareRun()
    found = fading(run, TEXT, since=1)
    each = [expected(run, "layers.1.c", unit, 1) for unit in range(6)]
    assert found.unit == max(range(6), key=lambda unit: each[unit][1] * each[unit][-1])


def test_what_is_refused() -> None:
    run: Any = BareRun()
    for text in ("", "a" * 201):
        with pytest.raises(DataError, match="a text of 1 to 200"):
            fading(run, text)
    with pytest.raises(DataError, match="since"):
        fading(run, TEXT, since=16)
    with pytest.raises(OptionError, match="layer"):
        fading(run, TEXT, layer=2)
    with pytest.raises(OptionError, match="unit"):
        fading(run, TEXT, unit=6)


def test_the_picture() -> None:
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    from gatewise import plots

    several = [fading(BareRun(cell=cell), TEXT) for cell in ("lstm", "rnn_tanh")]  # type: ignore[arg-type]
    figure = plots.fading(*several)
    shapes = [len(axes.patches) for axes in figure.axes]
    assert shapes == [6 * len(TEXT), 2 * len(TEXT)]  # three nodes and three gates; two nodes
    assert not figure.get_supxlabel()
    assert "ring: a gate" in plots.fading(*several, key=True).get_supxlabel()
    assert "ring" not in plots.fading(several[1], key=True).get_supxlabel()  # it has no gates
