"""Tables, maps and lines: well formed, escaped, bounded."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from gatewise.display import Markup, block, escape, heat_map, line_chart, number, places, table

NASTY = "<script>alert('1')</script>&\"x\""


def tree(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<body>{html}</body>")


def texts(html: str) -> list[str]:
    return [text for text in tree(html).itertext() if text]


def image_of(html: str) -> np.ndarray:
    pillow = pytest.importorskip("PIL.Image", reason="the extra gatewise[caption] is not installed")
    found = re.search(r'base64,([^"]*)"', html)
    assert found
    return np.asarray(pillow.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB"))


def test_a_table_is_written_and_escaped() -> None:
    html = table(["name", NASTY], [[NASTY, 1234], ["b", None], [Markup("<b>bold</b>"), 0.123456]])
    assert texts(html) == ["name", NASTY, NASTY, "1,234", "b", "bold", "0.1235"]
    assert len(tree(html).findall(".//b")) == 1
    assert not tree(html).findall(".//script")


def test_long_tables_and_texts_are_counted_and_cut() -> None:
    html = table([], [[k] for k in range(250)], more=7)
    assert texts(html)[-1] == "\u2026 157 more"
    assert len(tree(html).findall(".//tr")) == 101
    assert len(escape("x" * 10_000)) < 500


def test_numbers_and_places() -> None:
    assert [number(v) for v in (1234, 3.0, 0.123456, 1.2e-5, float("nan"), True)] == [
        "1,234", "3", "0.1235", "1.2e-05", "nan", "True",
    ]  # fmt: skip
    assert places([]) == "none"
    assert places([4]) == "4"
    assert places([1, 5]) == "1, 5"
    assert places(range(3, 1003)) == "3 to 1,002"
    assert places(range(0, 100, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, \u2026 (50)"


def test_a_block_has_a_title_and_parts() -> None:
    html = block(NASTY, table([], [["a"]]), NASTY, "")
    assert texts(html) == [NASTY, "a", NASTY]


def test_a_map_of_gates_goes_from_white_to_blue() -> None:
    image = image_of(heat_map(np.array([[0.0, 1.0], [0.5, np.nan]]), "f"))
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[0, 1].tolist() == [8, 69, 148]
    assert image[1, 1].tolist() == [160, 160, 160]


def test_a_map_of_states_has_white_in_its_middle() -> None:
    html = heat_map(np.array([[-2.0, 0.0, 2.0]]), "c")
    assert "orange -2, white 0, purple 2" in html
    image = image_of(html)
    assert image[0].tolist() == [[179, 88, 6], [255, 255, 255], [84, 39, 136]]


@pytest.mark.parametrize(
    "values", [np.full((3, 4), np.nan), np.zeros((1, 1)), np.full((2, 2), -np.inf)]
)
def test_maps_of_nothing_are_drawn(values: np.ndarray) -> None:
    assert image_of(heat_map(values, "x")).shape[:2] == values.shape


def test_large_maps_are_averaged() -> None:
    values = np.random.default_rng(0).random((1000, 3000), np.float32)
    html = heat_map(values, NASTY)
    assert len(html) < 30_000
    image = image_of(html)
    assert image.shape == (64, 240, 3)
    assert texts(html) == [" ", "white 0, blue 1"]
    halves = np.zeros((2, 1000))
    halves[:, 500:] = 1
    row = image_of(heat_map(halves, "x"))[0, :, 0]
    assert set(row[:119]) == {255}
    assert set(row[121:]) == {8}


def test_lines_are_drawn_and_bounded() -> None:
    lines = {NASTY: [10.0**-k for k in range(3000)], "b": [0.0, -1.0, float("nan"), 1.0]}
    html = line_chart(lines, "lag, steps", "norm", logarithmic=True)
    assert len(html) < 10_000
    assert NASTY in texts(html)
    paths = tree(html).findall(".//{http://www.w3.org/2000/svg}polyline")
    assert [len(path.get("points", "").split()) for path in paths] == [25, 1]
    assert "nan" not in html
    many = line_chart({str(k): [1.0, 2.0] for k in range(9)}, "x", "y")
    assert many.count("<polyline") == 4
    assert texts(line_chart({"a": []}, "x", "y")) == ["nothing to draw"]
