"""Linear probes on what is linear, and on what is not there."""

from __future__ import annotations

import numpy as np
import pytest

from gatewise.errors import DataError, OptionError, ShapeError
from gatewise.insight import probe

DRAWN = np.random.default_rng(5)


def test_what_is_linear_is_found_with_every_label() -> None:
    values = DRAWN.normal(size=(2000, 12)) * 3 + 7
    depth = np.clip(np.floor(values[:, 3] - 6), 0, 2).astype(int)
    found = probe(values, depth)
    assert found.classes.tolist() == [0, 1, 2]
    yes = probe(values, values @ np.arange(12) > 460)
    assert yes.accuracy > 0.93
    assert yes.accuracy > yes.most_frequent + 0.3
    assert (
        yes.predict(values[1000:]) == (values[1000:] @ np.arange(12) > 460)
    ).mean() == yes.accuracy


def test_what_is_not_there_is_not_found() -> None:
    values = DRAWN.normal(size=(4000, 8))
    found = probe(values, DRAWN.random(4000) < 0.2)
    assert found.accuracy == pytest.approx(found.most_frequent, abs=0.02)
    assert found.balanced == pytest.approx(0.5, abs=0.03)
    constant = probe(np.ones((100, 3)), np.arange(100) % 3 == 0)
    assert constant.accuracy == constant.most_frequent


def test_what_is_wrong_is_said() -> None:
    values = np.zeros((10, 2))
    with pytest.raises(ShapeError, match="labels"):
        probe(values, np.zeros(9))
    with pytest.raises(DataError, match="at least two labels in the first 5 steps, found 1"):
        probe(values, np.arange(10) > 6)
    with pytest.raises(OptionError, match="share"):
        probe(values, np.arange(10), share=1.0)
