"""Pictures of gates and gradients: what is drawn, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gatewise.errors import FailedError, OptionError, ShapeError
from gatewise.gradients import Profile

pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")

from gatewise import plots


def test_signs_that_no_font_has_are_drawn_in_silence(tmp_path: Path) -> None:
    """Warnings are errors here."""
    tokens = ["\u65e5", "$x$", "\n"]
    figure = plots.gates(
        (tokens, {"layers.0.f": torch.rand(3, 2), "layers.0.c": torch.randn(3, 2)})
    )
    shown = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert shown == ["\u65e5", r"\$x\$", "\u00b7"]
    plots.save(figure, tmp_path / "a.svg")
    assert b"layers.0.c, unit" in (tmp_path / "a.svg").read_bytes()
    with pytest.raises(FailedError, match="cannot write it: File exists"):
        plots.save(figure, tmp_path / "a.svg")
    with pytest.raises(
        OptionError, match=r"expected a file of \.png, \.svg, \.pdf, found .*a\.jpg"
    ):
        plots.save(figure, tmp_path / "a.jpg")


def test_exploding_and_vanished_gradients_are_drawn() -> None:
    matrix = torch.tensor([[1.0, 0.0], [float("inf"), 1e-9]])
    figure = plots.matrix(matrix)
    assert figure.axes[0].images[0].norm.vmax == 1.0
    assert plots.matrix(0 * matrix.nan_to_num()).axes[0].images[0].norm.vmax == 1.0
    lines = {"a": Profile(torch.tensor([1.0, 0.5, 0.0]), "h", 0)}
    assert plots.profiles(lines).axes[0].get_ylabel() == "|d cost[t] / d h[t - n]|, nats"


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(OptionError, match="at least one"):
        plots.profiles({})
    with pytest.raises(ShapeError, match="found none"):
        plots.gates(([], {}))
    with pytest.raises(
        ShapeError, match=r"f: expected \(T, units\) of 1 tokens, found \(1, 1, 3\)"
    ):
        plots.gates((["a"], {"f": torch.rand(1, 1, 3)}))
    with pytest.raises(ShapeError, match=r"found \(2, 3\)"):
        plots.gates((["a"], {"f": torch.rand(2, 3)}))
