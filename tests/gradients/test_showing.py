"""Profiles, spectra and exponents in a notebook."""

from __future__ import annotations

from xml.etree import ElementTree

import torch

import gatewise as gw
from gatewise.gradients import Profile


def rows(html: str) -> list[list[str]]:
    tree = ElementTree.fromstring(html)
    return [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]


def test_a_profile_is_a_line_and_a_table() -> None:
    halves = Profile(0.5 ** torch.arange(30, dtype=torch.float64), "state", 1)
    html = halves._repr_html_()
    assert html.count("<polyline") == 1
    assert "the whole state of layer 1" in html
    found = rows(html)
    assert found[1] == ["lag 1", "5.00e-01"]
    assert found[-3:] == [
        ["changes by", "-0.6931 nats a step"],
        ["reach (1 %)", "6 steps"],
        ["mean lag", "1.0 steps"],
    ]


def test_a_long_profile_and_one_of_zeros() -> None:
    assert len(Profile(torch.rand(200_000), "h", 0)._repr_html_()) < 20_000
    assert "nothing to draw" in Profile(torch.zeros(5), "h", 0)._repr_html_()


def test_a_spectrum_and_exponents() -> None:
    torch.manual_seed(0)
    net, x = gw.cells.LSTM(2, 12), torch.randn(20, 2, 2)
    spectrum = gw.gradients.spectra(net, x, start=5)
    html = spectrum._repr_html_()
    assert "times 5 to 24" in html
    assert [row[0] for row in rows(html)[1:]] == [
        "largest singular value",
        "median singular value",
        "spectral radius",
    ]
    exponents = gw.gradients.lyapunov(net, x)
    html = exponents._repr_html_()
    assert "the first 16 of 24" in html
    assert [row[0] for row in rows(html)] == ["column", "0", "1"]
    assert float(rows(html)[1][1]) == round(exponents.values[0, 0].item(), 4)
