"""A loaded forecaster: futures, readings, streams, and figures beside naive forecasts worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gatewise as gw
from gatewise.checkpoint import RunFolder, load_checkpoint
from gatewise.errors import CheckpointError, DataError, OptionError, ShapeError
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.forecasted import Scale
from gatewise.mappings.forecaster import ForecasterOptions
from gatewise.run import ForecastRun
from gatewise.run.forecast_measures import Horizon, measure
from gatewise.tasks.histories import Histories, History
from gatewise.train import TrainOptions, Watcher, train
from gatewise.train.forecasts import WindowOptions, forecast_learner

STEPS = 240


def wave(size: float = 1.0, steps: int = STEPS, gap: bool = True) -> np.ndarray:
    t = np.arange(steps)
    noise = 0.1 * np.random.default_rng(0).standard_normal(steps)
    values = size * (50 + np.sin(2 * np.pi * t / 12) + noise)
    if gap:
        values[30:33] = np.nan
    return values


def make(folder: Path, found: Histories, **model: Any) -> ForecastRun:
    training = TrainOptions(steps=80, lr=0.02, checkpoint_seconds=None, eval_every=80)
    options = ForecasterOptions(**{"hidden_size": 12, "season": 12, **model})
    windows = WindowOptions(window=36)
    learner = forecast_learner(found, windows, options, BatchOptions(), training)
    learner.extra["windows"] = vars(windows)
    with RunFolder.create(folder) as run:
        train(learner, run, training, Watcher())
    loaded = gw.load(folder)
    assert isinstance(loaded, ForecastRun)
    return loaded


ONE = Histories([History("one", wave(), np.zeros((STEPS, 0)))], [])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ForecastRun:
    return make(tmp_path_factory.mktemp("runs") / "one", ONE)


@pytest.fixture(scope="module")
def known_ahead(tmp_path_factory: pytest.TempPathFactory) -> ForecastRun:
    """What is to come is all that matters: the value is its covariate."""
    ahead = np.random.default_rng(1).standard_normal((STEPS + 8, 2))
    one = History("one", 3 * ahead[:STEPS, 1] + 7, ahead)
    two = History("two", 30 * ahead[:STEPS, 1] - 70, ahead)
    found = Histories([one, two], ["a", "b"])
    return make(tmp_path_factory.mktemp("runs") / "ahead", found, season=1, around="zero")


def test_a_forecast(run: ForecastRun) -> None:
    found = run.forecast(wave(), 24)
    assert found.paths is not None
    assert found.paths.shape == (200, 24)
    assert found.points.shape == (24,)
    rising = np.array([found.quantiles[level] for level in sorted(found.quantiles)])
    assert (np.diff(rising, axis=0) >= 0).all()
    expected = 50 + np.sin(2 * np.pi * (STEPS + np.arange(24)) / 12)
    assert np.abs(found.points - expected).mean() < 0.25
    np.testing.assert_array_equal(run.forecast(list(wave()), 24).points, found.points)
    assert (run.forecast(wave(), 24, seed=1).points != found.points).any()


def test_the_first_step_is_what_the_model_says_of_it(run: ForecastRun) -> None:
    """Many paths have the quantiles that the stream says, having read the same window."""
    stream = run.stream()
    stream.push(wave()[-36:])
    exact = stream.quantiles([0.1, 0.5, 0.9])[-1, 0].numpy()
    found = run.forecast(wave()[-36:], 1, samples=20000, levels=(0.1, 0.5, 0.9))
    np.testing.assert_allclose([found.quantiles[q][0] for q in (0.1, 0.5, 0.9)], exact, atol=0.01)


def test_a_stream_equals_the_reading(run: ForecastRun, known_ahead: ForecastRun) -> None:
    values = wave()
    for one, ahead in ((run, np.zeros((STEPS, 0))), (known_ahead, np.ones((STEPS, 2)))):
        reading = one.read(values, ahead, series="one")
        stream = one.stream(series="one")
        first = stream.push(values[0], ahead[1][None])
        rest = stream.push(values[1 : STEPS - 1], ahead[2:STEPS])
        found = np.concatenate([first, rest])[:, 0]
        np.testing.assert_allclose(found, reading.points, rtol=1e-5)
    assert np.isnan(run.read(values).costs[29:32]).all()


def test_streams_fork_and_go_on_from_a_state(run: ForecastRun) -> None:
    stream = run.stream(2, record=gw.Record("f"))
    both = np.stack([wave(), wave()[::-1]], 1)
    stream.push(both[:20])
    assert stream.record is not None
    twin, state = stream.fork([1]), stream.state
    found = stream.push(both[20:25])
    np.testing.assert_allclose(twin.push(both[20:25, 1])[:, 0], found[:, 1], rtol=1e-6)
    other = run.stream(2)
    other.state = state
    np.testing.assert_allclose(other.push(both[20:25]), found, rtol=1e-6)
    stream.reset()
    assert stream.time == 0
    with pytest.raises(ShapeError, match="pushed first"):
        stream.quantiles([0.5])
    with pytest.raises(ShapeError, match=r"expected values \(T, 2\)"):
        stream.push(np.zeros(3))


def test_covariates_that_are_known_ahead_are_used(known_ahead: ForecastRun) -> None:
    ahead = np.random.default_rng(1).standard_normal((STEPS + 8, 2))
    for series, size, shift in (("one", 3, 7), ("two", 30, -70)):
        history = size * ahead[:STEPS, 1] + shift
        found = known_ahead.forecast(history, 8, ahead, series=series)
        error = np.abs(found.points - size * ahead[STEPS:, 1] - shift)
        assert error.mean() < 0.35 * size
    with pytest.raises(ShapeError, match=r"expected 2 \(a, b\) of 248 steps"):
        known_ahead.forecast(history, 8, ahead[:-1], series="two")
    with pytest.raises(ShapeError, match="covariates: expected 2"):
        known_ahead.forecast(history, 8)


def test_a_series_that_was_not_trained_on(known_ahead: ForecastRun, run: ForecastRun) -> None:
    values = wave(gap=False)
    found = known_ahead.forecast(values, 2, np.ones((STEPS + 2, 2)), series="new")
    assert "was not trained on" in found.notes[0]
    with pytest.raises(OptionError, match="expected one of one, two, found 'new'"):
        known_ahead.stream(series="new")
    known_ahead.stream(series="new", scale=Scale(1, 2))


def test_records_and_controls(run: ForecastRun) -> None:
    reading = run.read(wave(), record=gw.Record("layers.0.f"))
    assert reading.record is not None
    assert reading.record["layers.0.f"].shape == (STEPS - 1, 1, 12)
    shut = gw.Control.off("o")
    closed = run.read(wave(), control=shut)
    known = np.isfinite(wave())[:-1]
    away = (closed.points - np.where(known, wave()[:-1], np.nan))[known]
    np.testing.assert_allclose(away, away[0], atol=1e-4)  # the decoder's bias alone is added
    forced = run.forecast(wave(), 6, control=shut)
    assert np.abs(forced.points - run.forecast(wave(), 6).points).max() > 0.1


def test_what_cannot_be_forecast(run: ForecastRun) -> None:
    for history, error, said in (
        ([np.nan, np.nan], DataError, "at least one value"),
        ([], DataError, "at least one value"),
        ([1.0, np.inf], DataError, "infinite"),
        ([[1.0]], ShapeError, "row of numbers"),
        (["x"], ShapeError, "row of numbers"),
    ):
        with pytest.raises(error, match=said):
            run.forecast(history, 2)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="steps: expected a whole number"):
        run.forecast(wave(), 0)
    with pytest.raises(OptionError, match="levels"):
        run.forecast(wave(), 2, levels=(1.5,))
    with pytest.raises(DataError, match="at least 2 steps"):
        run.read([1.0])
    assert len(run.forecast([3.0], 2).points) == 2


def test_a_point_has_no_distribution(tmp_path: Path) -> None:
    run = make(tmp_path / "run", ONE, output="point", cost="huber")
    found = run.forecast(wave(), 5)
    assert found.paths is None
    assert found.quantiles == {}
    free = measure(run, ONE, (1.0,), Horizon(5))["train"]["free"]["model"]
    assert free["mae"] > 0
    assert "crps" not in free


# ------------------------------------------------------------------------------ figures


def test_figures_beside_naive_forecasts(run: ForecastRun) -> None:
    parts = measure(run, ONE, (0.8, 0.1, 0.1), Horizon(12, stride=6, samples=50))
    assert set(parts) == {"train", "valid", "test"}
    found, values = parts["test"], wave()
    assert (found["values"], found["origins"]) == (24, 3)
    assert found["one_step"]["model"]["mae"] < found["one_step"]["naive"]["mae"]
    assert found["free"]["model"]["mae"] < found["free"]["naive"]["mae"]
    steps = range(216, 240)
    naive = np.mean([abs(values[t] - values[t - 1]) for t in steps])
    assert found["one_step"]["naive"]["mae"] == pytest.approx(naive)
    seasonal = np.mean([abs(values[t] - values[t - 12]) for t in steps])
    assert found["one_step"]["seasonal"]["mae"] == pytest.approx(seasonal)
    scale = np.nanmean(np.abs(values[12:192] - values[:180]))
    assert found["one_step"]["naive"]["mase"] == pytest.approx(naive / scale)
    free = [abs(values[o + k] - values[o - 1]) for o in (216, 222, 228) for k in range(12)]
    assert found["free"]["naive"]["mae"] == pytest.approx(np.mean(free))
    mean = [abs(values[o + 2] - values[o - 36 : o].mean()) for o in (216, 222, 228)]
    assert found["free"]["mean"]["steps"][2]["mae"] == pytest.approx(np.mean(mean))
    model = found["free"]["model"]
    assert 0.3 < model["intervals"]["0.8"] <= 1
    assert model["crps"] < model["mae"]


def test_one_step_figures_are_those_of_the_reading(run: ForecastRun) -> None:
    """Where the window is the whole series, both have read the same."""
    short = Histories([History("one", wave()[:36], np.zeros((36, 0)))], [])
    found = measure(run, short, (1.0,), Horizon(4, samples=2))["train"]
    reading = run.read(wave()[:36])
    errors = np.abs(reading.points - wave()[1:36])
    assert found["one_step"]["model"]["mae"] == pytest.approx(np.nanmean(errors), rel=1e-4)
    assert found["values"] == 35 - 3


def test_figures_of_other_data_are_refused(run: ForecastRun) -> None:
    with pytest.raises(DataError, match="expected the covariates none, found x"):
        measure(run, Histories(ONE.series, ["x"]), (1.0,), Horizon(4))
    with pytest.raises(OptionError, match="samples"):
        Horizon(4, samples=0)


def test_foreign_scales_are_refused(run: ForecastRun) -> None:
    found = load_checkpoint(str(run.path))
    for scaling in (None, {}, {"series": {"a": [1]}, "whole": [0, 1, 2], "covariates": []}):
        with pytest.raises(CheckpointError, match="expected the scales"):
            ForecastRun(replace(found, config=found.config | {"scaling": scaling}), run.model)
