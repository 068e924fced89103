"""Records and controls in a notebook."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch

import gatewise as gw
from gatewise.probe import Records


def rows(html: str) -> list[list[str]]:
    """The cells of all tables."""
    tree = ElementTree.fromstring(html)
    return [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]


def images(html: str) -> int:
    return len(list(ElementTree.fromstring(html).iter("img")))


def test_a_record_of_a_net_is_a_table_and_maps() -> None:
    torch.manual_seed(0)
    lstm = gw.nn.LSTM(3, 5, num_layers=2)
    _, _, record = lstm(torch.randn(30, 2, 3), record=gw.Record("f", "layers.1.c"))
    html = record._repr_html_()
    names = [row[0] for row in rows(html)]
    assert names == ["name", "layers.0.f", "layers.1.f", "layers.1.c"]
    assert rows(html)[1][1] == "30 \u00d7 2 \u00d7 5"
    assert float(rows(html)[1][2]) == pytest.approx(record["layers.0.f"].mean().item(), abs=1e-3)
    assert images(html) == 3
    assert "30 steps, times 0 to 29" in html
    assert "column 0 of 2" in html


def test_saturation_is_that_of_gates_alone() -> None:
    gate = torch.tensor([0.0, 0.05, 0.5, 0.95]).view(4, 1, 1)
    found = rows(Records({"f": gate, "c": gate - 1}, torch.arange(4))._repr_html_())
    assert found[1][5:7] == ["50.0%", "25.0%"]
    assert found[2][5:7] == ["", ""]


def test_what_is_no_number_is_counted() -> None:
    values = torch.tensor([0.5, float("nan"), float("inf"), 0.25]).view(4, 1, 1)
    found = rows(Records({"c": values}, torch.arange(4))._repr_html_())
    assert found[1] == ["c", "4 \u00d7 1 \u00d7 1", "0.375", "0.25", "0.5", "0.0%", "0.0%", "50.0%"]
    nothing = rows(Records({"c": values[1:2]}, torch.arange(1))._repr_html_())
    assert nothing[1][2:] == ["", "", "", "", "", "100.0%"]


def test_a_huge_record_stays_small() -> None:
    value = torch.rand(1, 1, 1).expand(1_000_000, 4, 2048)  # 33 GB, were it stored
    many = {f"layers.{k}.<f>": value for k in range(3)}
    many |= {f"small.{k}": torch.zeros(2, 1, 3) for k in range(500)}
    html = Records(many, torch.arange(1_000_000))._repr_html_()
    assert len(html) < 400_000
    assert images(html) == 12
    assert rows(html)[1][0] == "layers.0.<f>"
    assert rows(html)[-1] == ["\u2026 403 more"]


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0), (3,)])
def test_records_without_a_map(shape: tuple[int, ...]) -> None:
    html = Records({"f": torch.zeros(shape)}, torch.arange(shape[0]))._repr_html_()
    assert images(html) == 0
    assert rows(html)[1][0] == "f"


def test_an_empty_record_says_so() -> None:
    assert "nothing was recorded" in Records({}, torch.arange(0))._repr_html_()


def test_times_of_each_column_and_gradients() -> None:
    times = torch.tensor([[3, 5], [4, 6]])
    value = torch.rand(2, 2, 3, requires_grad=True)
    assert "2 steps, times 3 to 6" in Records({"f": value}, times)._repr_html_()


def test_a_request_is_shown() -> None:
    html = gw.Record("f", "<c>", every=2, time=slice(3, 9), units=[1, 4], to="a<b")._repr_html_()
    assert rows(html) == [
        ["names", "f, <c>"],
        ["times", "3 to 8"],
        ["units", "1, 4"],
        ["every", "2 steps"],
        ["goes to", "a<b"],
    ]
    assert rows(gw.Record("f", grad=True)._repr_html_())[1] == ["gradients", "the graph is kept"]


def test_a_control_is_a_table() -> None:
    control = (
        gw.Control.off("o", layer=0)
        | gw.Control.on("i", time=range(0, 100, 3))
        | gw.Control.set("<f>", 0.9, units=range(100))
        | gw.Control.scale("g", 2.0, batch=[0])
        | gw.Control.add("c", torch.ones(5))
        | gw.Control.patch("c", torch.tensor(0.5), time=slice(4, None))
        | gw.Control.keep(time=slice(10, 20), units=slice(0, 3))
    )
    assert rows(control._repr_html_()) == [
        ["what", "layers", "units", "times", "columns"],
        ["o = 0", "0", "all", "all", "all"],
        ["i = 1", "all", "all", "0 to 99, every 3", "all"],
        ["<f> = 0.9", "all", "0 to 99", "all", "all"],
        ["g \u00d7 2", "all", "all", "all", "0"],
        ["c + a tensor 5, mean 1", "all", "all", "all", "all"],
        ["c = 0.5", "all", "all", "from 4 on", "all"],
        ["memory keep", "all", "0 to 2", "10 to 19", "all"],
    ]
    assert "nothing is set" in gw.Control()._repr_html_()


def test_a_huge_control_stays_small() -> None:
    control = gw.Control.set("c", torch.zeros(4096), units=list(range(0, 8192, 2)))
    for _ in range(9):
        control = control | control
    html = control._repr_html_()
    assert len(html) < 100_000
    assert rows(html)[-1] == ["\u2026 412 more"]
