"""A forecaster: distributions by their definitions, rows by hand, free runs, and learning."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from gatewise.errors import OptionError, ShapeError
from gatewise.generate.futures import Past, free_run
from gatewise.losses.numbers import COSTS, absolute, huber, pinball, squared
from gatewise.mappings.forecasted import Scale, filled, recent, rows_of
from gatewise.mappings.forecaster import Forecaster, ForecasterConfig, ForecasterOptions
from gatewise.mappings.heads import Gaussian, Head, Point, Quantiles, Student
from gatewise.tasks.histories import Histories, History
from gatewise.train.forecasts import Scaling, WindowOptions, build_windows

HEADS: dict[str, Head] = {
    "gaussian": Gaussian(),
    "student": Student(),
    "quantile": Quantiles((0.1, 0.5, 0.9)),
}


# ------------------------------------------------------------------------------ distributions


def test_densities_are_those_of_torch() -> None:
    numbers, y = torch.randn(50, 2, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    scale = torch.nn.functional.softplus(numbers[:, 1]) + 1e-4
    normal = torch.distributions.Normal(numbers[:, 0], scale)
    torch.testing.assert_close(Gaussian().cost(numbers, y), -normal.log_prob(y))
    student = torch.distributions.StudentT(4.0, numbers[:, 0], scale)
    torch.testing.assert_close(Student().cost(numbers, y), -student.log_prob(y))


def test_quantiles_of_a_normal_and_of_student() -> None:
    numbers = torch.tensor([[1.0, 0.5413]], dtype=torch.float64)  # softplus(0.5413) is 1
    levels = [0.025, 0.5, 0.975]
    expected = {"gaussian": 1.959964, "student": 2.776445}  # of the tables, 4 degrees of freedom
    for name, z in expected.items():
        found = HEADS[name].quantiles(numbers, levels)[0]
        torch.testing.assert_close(
            found, torch.tensor([1 - z, 1, 1 + z]).double(), atol=1e-3, rtol=0
        )


@pytest.mark.parametrize("name", HEADS)
def test_quantiles_rise_and_the_median_is_the_point(name: str) -> None:
    head = HEADS[name]
    numbers = torch.randn(20, head.size) * 3
    found = head.quantiles(numbers, [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    assert bool((found.diff(dim=-1) >= 0).all())
    torch.testing.assert_close(found[:, 3], head.point(numbers))


def test_draws_have_the_distribution_that_was_said() -> None:
    levels = (torch.arange(2000) + 0.5) / 2000
    for name in ("gaussian", "student"):
        numbers = torch.tensor([0.3, -0.2]).expand(2000, 2).double()
        drawn = HEADS[name].at(numbers, levels.double())
        scale = float(torch.nn.functional.softplus(torch.tensor(-0.2))) + 1e-4
        assert float(drawn.mean()) == pytest.approx(0.3, abs=1e-6)
        variance = scale**2 * (1 if name == "gaussian" else 2)  # nu / (nu - 2)
        assert float(drawn.var()) == pytest.approx(variance, rel=0.05)


def test_quantiles_between_and_beyond_the_levels() -> None:
    head = Quantiles((0.2, 0.6))
    numbers = torch.tensor([[1.0, 0.5413]])  # quantiles 1 and 2
    torch.testing.assert_close(
        head.described(numbers), torch.tensor([[1.0, 2.0]]), atol=1e-4, rtol=0
    )
    found = head.quantiles(numbers, [0.1, 0.2, 0.4, 0.6, 0.8])[0]
    torch.testing.assert_close(found, torch.tensor([0.75, 1, 1.5, 2, 2.5]), atol=1e-4, rtol=0)
    with pytest.raises(OptionError, match="rising levels"):
        Quantiles((0.5, 0.5))


def test_costs_of_points() -> None:
    p, y = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.5, 4.0, 0.0])
    assert squared(p, y).tolist() == [0.25, 9, 1]
    assert absolute(p, y).tolist() == [0.5, 3, 1]
    assert huber(p, y).tolist() == [0.125, 2.5, 0.5]
    torch.testing.assert_close(pinball(p, y, 0.9), torch.tensor([0.45, 2.7, 0.1]))
    head = Point(COSTS["mae"])
    assert head.point(torch.tensor([[3.0]])).item() == 3
    assert not head.spread


# ------------------------------------------------------------------------------ rows


def config(**options: Any) -> ForecasterConfig:
    sizes = {name: options.pop(name) for name in ("covariates", "marks") if name in options}
    return ForecasterConfig.from_options(ForecasterOptions(hidden_size=5, **options), **sizes)


def test_gaps_are_filled_with_the_last_value() -> None:
    known, missing = filled(np.array([np.nan, 2, np.nan, np.nan, 5]))
    assert known.tolist() == [0, 2, 2, 2, 5]
    assert missing.tolist() == [True, False, True, True, False]


def test_rows_by_hand() -> None:
    values = np.array([1.0, np.nan, 3, 4])
    rows = rows_of(config(season=3, marks=1), values)
    # value, mark, the value of one season before the next, base, next
    expected = [[1, 0, 1, 1, np.nan], [1, 1, 1, 1, 3], [3, 0, 1, 3, 4], [4, 0, 1, 4, np.nan]]
    np.testing.assert_array_equal(rows, expected)
    seasonal = rows_of(config(season=2, around="season"), np.array([1.0, 2, 3, 4]))
    assert seasonal[:, -2].tolist() == [1, 1, 2, 3]
    assert rows_of(config(around="zero"), values)[:, -2].tolist() == [0, 0, 0, 0]


def test_rows_of_changes() -> None:
    rows = rows_of(config(lags=(3,), differences=True), np.array([1.0, 2, 4, 8]))
    assert rows[:, 0].tolist() == [0, 1, 2, 4]
    assert rows[:, 1].tolist() == [0, -1, -3, -6]
    assert rows[:, -2].tolist() == [1, 2, 4, 8]
    shifted = rows_of(config(lags=(3,), differences=True), np.array([1.0, 2, 4, 8]) + 100)
    np.testing.assert_array_equal(rows[:, :2], shifted[:, :2])


def test_covariates_are_those_of_the_next_step() -> None:
    ahead = np.array([[10.0], [11], [12], [13]])
    assert rows_of(config(covariates=1), np.arange(3.0), ahead)[:, 1].tolist() == [11, 12, 13]
    assert rows_of(config(covariates=1), np.arange(4.0), ahead)[:, 1].tolist() == [11, 12, 13]
    with pytest.raises(ShapeError, match="covariates"):
        rows_of(config(covariates=2), np.arange(3.0), ahead)
    with pytest.raises(ShapeError, match="found none"):
        rows_of(config(covariates=1), np.arange(3.0))


def test_a_single_row_is_that_of_the_whole() -> None:
    """`Forecaster.row` and `.base` say for one step what `rows_of` says for all."""
    draws = np.random.default_rng(0)
    values, ahead = draws.standard_normal(20), draws.standard_normal((21, 2))
    for around in ("zero", "last", "season"):
        for differences in (False, True):
            chosen = config(
                season=4, lags=(2, 7), around=around, differences=differences, covariates=2, marks=1
            )
            model, rows = Forecaster(chosen), rows_of(chosen, values, ahead)
            for t in (0, 3, 19):
                known = torch.from_numpy(recent(chosen, values[: t + 1])).unsqueeze(1)
                row = model.row(known, torch.from_numpy(ahead[t + 1 : t + 2]))
                np.testing.assert_allclose(row[0], rows[t, :-2], rtol=1e-6)
                assert float(model.base(known)) == pytest.approx(rows[t, -2], rel=1e-6)


def test_windows_begin_in_all_phases_of_a_season() -> None:
    found = Histories([History("v", np.arange(600.0), np.zeros((600, 0)))], [])
    options = WindowOptions(window=96)
    for season in (1, 7, 24, 48):
        chosen = config(season=season)
        scaling = Scaling.of(found, options, season)
        starts = build_windows(found, chosen, options, scaling)["train"].starts
        assert math.gcd(int(starts[1] - starts[0]), season) == 1
        assert 18 <= starts[1] - starts[0] <= 24


def test_parts_count_each_step_once() -> None:
    values = np.arange(100.0)
    found = Histories([History("v", values, np.zeros((100, 0)))], [])
    options, chosen = WindowOptions(window=8), config()
    parts = build_windows(found, chosen, options, Scaling.of(found, options, 1), overlapping="")
    told = {}
    for name, part in parts.items():
        rows = [
            row
            for start, size, skip in zip(part.starts, part.lengths, part.skips, strict=True)
            for row in range(start + skip, start + size)
        ]
        told[name] = [row + 1 for row in rows]  # a row tells of the step behind it
    assert told == {
        "train": list(range(1, 80)),
        "valid": list(range(80, 90)),
        "test": list(range(90, 100)),
    }
    assert parts["test"].skips.tolist() == [8, 8]


def test_scales() -> None:
    found = Scale.of(np.array([1.0, 3, np.nan, 5, 7]), season=2)
    assert found.shift == 4
    assert found.scale == pytest.approx(np.std([1, 3, 5, 7]))
    assert found.naive == 2  # 5 - 3: the other values have a gap two steps before
    assert Scale.of(np.full(3, 2.0)).scale == 1
    assert Scale.of(np.full(3, np.nan)).shift == 0


# ------------------------------------------------------------------------------ the model


def test_the_cost_leaves_out_what_is_missing() -> None:
    model = Forecaster(config(output="point"))
    x = torch.randn(6, 2, 1)
    targets = torch.randn(6, 2)
    targets[2:, 1] = torch.nan
    loss, out = model.loss(x, torch.zeros(6, 2), targets)
    known = targets.isfinite()
    errors = (out.numbers[..., 0] - targets)[known]
    torch.testing.assert_close(loss, errors.square().mean())
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_a_free_run_is_the_model_on_its_own_words() -> None:
    """Each value is the point given all values before it, those it said among them."""
    chosen = config(output="point", season=3, differences=True)
    model = Forecaster(chosen).eval()
    values = np.random.default_rng(0).standard_normal(12)
    said = list(values)
    for _ in range(5):
        rows = torch.from_numpy(rows_of(chosen, np.array(said))).unsqueeze(1)
        with torch.no_grad():
            out = model(rows[..., :-2])
        said.append(float(model.head.point(out.numbers[-1, 0])) + float(rows[-1, 0, -2]))
    rows = torch.from_numpy(rows_of(chosen, values)).unsqueeze(1)
    known = torch.from_numpy(recent(chosen, values)).unsqueeze(1)
    past = Past(rows, torch.tensor([12]), known, torch.zeros(5, 1, 0))
    found = free_run(model, past, 5)
    np.testing.assert_allclose(found[:, 0, 0], said[12:], rtol=1e-4)


def test_paths_of_a_column_do_not_depend_on_others() -> None:
    chosen = config(season=2)
    model = Forecaster(chosen).eval()
    rows = torch.randn(7, 3, chosen.inputs + 2)
    lengths, known = torch.tensor([7, 4, 2]), torch.randn(chosen.reach, 3)
    draws = torch.rand(4, 3, 6)
    whole = free_run(model, Past(rows, lengths, known, torch.zeros(4, 3, 0)), 4, draws)
    assert whole.shape == (4, 3, 6)
    one = Past(rows[:4, 1:2], lengths[1:2], known[:, 1:2], torch.zeros(4, 1, 0))
    alone = free_run(model, one, 4, draws[:, 1:2])
    torch.testing.assert_close(alone[:, 0], whole[:, 1])


def test_any_cost() -> None:
    quartic = lambda p, y: (p - y) ** 4
    model = Forecaster(config(output="point"), cost=quartic)
    loss, out = model.loss(torch.zeros(2, 1, 1), torch.zeros(2, 1), torch.ones(2, 1))
    torch.testing.assert_close(loss, ((out.numbers[..., 0] - 1) ** 4).mean())
    with pytest.raises(OptionError, match="expected the output point"):
        Forecaster(config(), cost=quartic)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"output": "x"}, "--output"),
        ({"cost": "x"}, "--cost"),
        ({"around": "season"}, "--season"),
        ({"levels": (0.5,)}, "--levels"),
        ({"level": 1.0}, "--level"),
        ({"lags": (1,)}, "--lags"),
        ({"season": 0}, "--season"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        ForecasterOptions(**options).validate()


def test_configs_go_through_plain_values() -> None:
    chosen = config(season=7, covariates=2, marks=1)
    assert ForecasterConfig.from_dict(chosen.to_dict()) == chosen
    assert chosen.lags == (7,)
    with pytest.raises(ShapeError, match="expected inputs"):
        Forecaster(chosen)(torch.zeros(3, 1, 2))
