from __future__ import annotations

import numpy as np

from gatewise.metrics.baselines import most_frequent, nearest, thumbnails
from gatewise.metrics.captions import collapse


def test_the_most_frequent_text() -> None:
    assert most_frequent([["A dog", "a cat"], ["a  dog", "two cats"]]) == "A dog"


def test_the_nearest_row() -> None:
    draw = np.random.default_rng(0)
    known, asked = draw.normal(size=(40, 5)), draw.normal(size=(300, 5))
    expected = ((asked[:, None] - known) ** 2).sum(-1).argmin(1).tolist()
    assert nearest(asked, known) == expected


def test_thumbnails_are_means() -> None:
    image = np.random.default_rng(0).integers(256, size=(2, 64, 64, 3), dtype=np.uint8)
    found = thumbnails(image).reshape(2, 16, 16, 3)
    np.testing.assert_allclose(found[1, 2, 3], image[1, 8:12, 12:16].mean((0, 1)), rtol=1e-5)
    assert thumbnails(image[:, :20, :33]).shape == (2, 16 * 16 * 3)


def test_a_collapse_is_one_caption_for_nearly_all() -> None:
    assert collapse(["a"] * 4) is None
    assert collapse(["a"] * 9 + ["b"]) == ("a", 0.9)
    assert collapse(["a", "b"] * 5) is None
