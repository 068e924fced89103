from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import DataError, OptionError, ShapeError
from gatewise.metrics.numbers import NumberTally, naive_scale, pinball

LEVELS = (0.1, 0.5, 0.9)


@given(st.integers(0, 1000), st.integers(2, 30), st.integers(0, 30), st.floats(0, 1e6))
def test_figures_are_those_of_scikit_learn(seed: int, n: int, cut: int, far: float) -> None:
    metrics = pytest.importorskip(
        "sklearn.metrics", reason="the extra gatewise[sklearn] is not installed"
    )
    rng = np.random.default_rng(seed)
    truth, guesses = rng.normal(far, 1, n), rng.normal(far, 1, n)
    quantiles = guesses[:, None] + np.array([-1.0, 0.0, 1.0])
    first, second = NumberTally(LEVELS), NumberTally(LEVELS)
    first.add(guesses[:cut], truth[:cut], quantiles[:cut])
    second.add(guesses[cut:], torch.from_numpy(truth[cut:]), quantiles[cut:])
    tally = first.merge(second)
    assert tally.mae == pytest.approx(metrics.mean_absolute_error(truth, guesses))
    assert tally.rmse == pytest.approx(metrics.mean_squared_error(truth, guesses) ** 0.5)
    assert tally.r2 == pytest.approx(metrics.r2_score(truth, guesses), rel=1e-6)
    losses = [
        metrics.mean_pinball_loss(truth, quantiles[:, k], alpha=q) for k, q in enumerate(LEVELS)
    ]
    assert tally.pinball == pytest.approx(np.mean(losses))
    assert tally.coverage()[0.5] == pytest.approx((truth <= guesses).mean())


def test_missing_numbers_are_left_out_and_counted() -> None:
    tally = NumberTally()
    tally.add(np.array([[1.0, 9.0]]), np.array([[2.0, math.nan]]))
    assert (tally.mae, tally.numbers, tally.missing) == (1.0, 1, 1)


def test_naive_is_the_unit_of_mase() -> None:
    """Hyndman & Koehler 2006: the naive forecast itself scores 1 on the training part."""
    series = np.array([1.0, 3.0, 2.0, 6.0, 5.0])
    tally = NumberTally(scale=naive_scale(series))
    tally.add(series[:-1], series[1:])
    assert tally.mase == pytest.approx(1)
    assert naive_scale(series, season=2) == pytest.approx((1 + 3 + 3) / 3)
    assert naive_scale(np.array([1.0, math.nan, 2.0, 4.0])) == 2


def test_smape_by_hand() -> None:
    tally = NumberTally()
    tally.add(np.array([0.0, 1.0, 3.0]), np.array([0.0, 3.0, 3.0]))
    assert tally.smape == pytest.approx((0 + 100 + 0) / 3)


def test_pinball_is_least_at_the_quantile() -> None:
    values = np.arange(1.0, 101)
    costs = [pinball(np.full((100, 1), p), values, [0.9]).mean() for p in values]
    assert values[int(np.argmin(costs))] in (90, 91)


def test_a_summary_is_json_even_without_numbers() -> None:
    json.dumps(NumberTally(LEVELS).summary(), allow_nan=False)


def test_refusals() -> None:
    with pytest.raises(OptionError, match="rising"):
        NumberTally((0.9, 0.1))
    with pytest.raises(ShapeError, match="one shape"):
        NumberTally().add(np.ones(2), np.ones(3))
    with pytest.raises(ShapeError, match=r"\(2, 1\), found None"):
        NumberTally((0.5,)).add(np.ones(2), np.ones(2))
    with pytest.raises(DataError, match="1 of 2 that are NaN"):
        NumberTally().add(np.array([1.0, math.nan]), np.ones(2))
    with pytest.raises(OptionError, match="season"):
        naive_scale(np.ones(3), season=3)
    with pytest.raises(DataError, match="two kinds"):
        NumberTally((0.5,)).merge(NumberTally())
