"""Figures of forecasts, each worked out another way: by hand, by integrals, by their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gatewise.errors import ShapeError
from gatewise.metrics.forecasts import ForecastTally, HorizonTally, crps


def test_crps_is_the_mean_over_all_pairs() -> None:
    draws = np.random.default_rng(0)
    samples, truth = draws.normal(size=(5, 7)), draws.normal(size=5)
    for row, y, found in zip(samples, truth, crps(samples, truth), strict=True):
        pairs = [abs(a - b) for i, a in enumerate(row) for j, b in enumerate(row) if i != j]
        assert found == pytest.approx(np.abs(row - y).mean() - np.mean(pairs) / 2)
    assert crps(np.array([[3.0]]), np.array([1.0])) == 2


def test_crps_of_a_normal_distribution() -> None:
    """Gneiting & Raftery 2007, eq. 21: sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))."""
    levels = (np.arange(4000) + 0.5) / 4000
    samples = 2 + 3 * torch.special.ndtri(torch.tensor(levels)).numpy()
    y, z = 4.0, (4.0 - 2) / 3
    phi, big = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(z / math.sqrt(2)))
    expected = 3 * (z * (2 * big - 1) + 2 * phi - 1 / math.sqrt(math.pi))
    assert crps(samples[None], np.array([y]))[0] == pytest.approx(expected, rel=2e-3)


def test_errors_in_units_of_each_series() -> None:
    tally = ForecastTally()
    tally.add(np.array([1.0, 10.0]), np.array([2.0, 30.0]), np.array([0.5, 40.0]))
    tally.add(np.array([5.0, 0.0]), np.array([7.0, np.nan]), np.array([np.nan, 1.0]))
    assert tally.mase == pytest.approx((2 + 0.5) / 2)
    assert tally.mae == pytest.approx((1 + 20 + 2) / 3)
    assert tally.numbers == 3
    assert tally.cost == pytest.approx(tally.rmse**2)


def test_intervals_are_counted() -> None:
    tally = ForecastTally((0.1, 0.5, 0.9))
    assert tally.intervals == [0.8]
    quantiles = np.array([[0.0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]])
    truth = np.array([0.0, 2.0, 2.1, np.nan])
    tally.add(np.ones(4), truth, np.ones(4), quantiles=quantiles, costs=np.array([1.0, 2, 3, 99]))
    assert tally.coverage() == {0.8: pytest.approx(2 / 3)}
    assert tally.cost == 2
    found = tally.summary()
    assert found["intervals"] == {"0.8": pytest.approx(2 / 3)}
    assert ForecastTally((0.1, 0.9)).summary()["mase"] is None


def test_by_step_ahead() -> None:
    tally = HorizonTally(2)
    tally.add(np.zeros((2, 3)), np.array([[1.0, 1, 1], [2, 2, np.nan]]), np.ones((2, 3)))
    found = tally.summary()
    assert [step["mae"] for step in found["steps"]] == [1, 2]
    assert found["mae"] == pytest.approx(7 / 5)
    with pytest.raises(ShapeError, match="expected 2 steps, found 3"):
        tally.add(np.zeros((3, 1)), np.zeros((3, 1)), np.ones((3, 1)))
