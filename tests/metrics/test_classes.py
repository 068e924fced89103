from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import DataError, ShapeError
from gatewise.metrics.classes import UNKNOWN, ClassTally, confusion_matrix, macro_f1, per_class


def drawn(seed: int, examples: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), examples), rng.integers(0, classes, examples)


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(2, 6))
def test_figures_are_those_of_scikit_learn(seed: int, examples: int, classes: int) -> None:
    metrics = pytest.importorskip(
        "sklearn.metrics", reason="the extra gatewise[sklearn] is not installed"
    )
    chances, truth = drawn(seed, examples, classes)
    tally = ClassTally([f"c{k}" for k in range(classes)])
    tally.add(chances, truth)
    answers = chances.argmax(1)
    order = list(range(classes))
    assert tally.accuracy == pytest.approx(metrics.accuracy_score(truth, answers))
    f1 = metrics.f1_score(truth, answers, average="macro", zero_division=0)
    assert tally.macro_f1 == pytest.approx(f1)
    assert tally.cost == pytest.approx(metrics.log_loss(truth, chances, labels=order))
    assert (tally.confusion == metrics.confusion_matrix(truth, answers, labels=order)).all()
    each = metrics.precision_recall_fscore_support(truth, answers, labels=order, zero_division=0)
    found = [[row[n] for row in per_class(tally.confusion)] for n in ("precision", "recall", "f1")]
    assert np.allclose(found, each[:3])


@given(st.integers(0, 1000), st.integers(0, 20))
def test_batches_add_up(seed: int, cut: int) -> None:
    chances, truth = drawn(seed, 20, 3)
    whole, first, second = (ClassTally("abc") for _ in range(3))
    whole.add(chances, truth)
    first.add(chances[:cut], truth[:cut])
    second.add(torch.from_numpy(chances[cut:]), torch.from_numpy(truth[cut:]))
    both = first.merge(second)
    assert both.summary()["classes"] == whole.summary()["classes"]
    assert (both.confusion == whole.confusion).all()
    assert both.calibration_error == pytest.approx(whole.calibration_error)
    assert both.cost == pytest.approx(whole.cost, rel=1e-6)


def test_calibration_by_hand() -> None:
    tally = ClassTally(["a", "b"], bins=10)
    tally.add(np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65]]), np.array([0, 1, 0]))
    # bin (0.9, 1]: half right at 0.95; bin (0.6, 0.7]: wrong at 0.65
    assert tally.calibration_error == pytest.approx(2 / 3 * 0.45 + 1 / 3 * 0.65)
    assert [row["examples"] for row in tally.reliability()] == [1, 2]


def test_an_unknown_label_is_an_error_and_counted() -> None:
    tally = ClassTally(["a", "b"])
    tally.add(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, UNKNOWN]))
    assert (tally.accuracy, tally.unknown, tally.examples) == (0.5, 1, 2)
    assert tally.cost == pytest.approx(-math.log(0.9))


def test_a_summary_is_json_even_without_examples_and_of_a_chance_of_zero() -> None:
    tally = ClassTally(["a", "b"])
    assert json.loads(json.dumps(tally.summary(), allow_nan=False))["accuracy"] is None
    tally.add(np.array([[1.0, 0.0]]), np.array([1]))
    assert tally.summary()["nats_per_example"] is None


def test_macro_f1_leaves_out_classes_that_do_not_occur() -> None:
    assert macro_f1(confusion_matrix([0, 1], [0, 1], 5)) == 1
    assert math.isnan(macro_f1(np.zeros((3, 3), int)))


def test_refusals() -> None:
    tally = ClassTally(["a", "b"])
    with pytest.raises(ShapeError, match=r"\(B, 2\)"):
        tally.add(np.ones((1, 3)) / 3, np.array([0]))
    with pytest.raises(DataError, match="softmax"):
        tally.add(np.array([[2.0, -1.0]]), np.array([0]))
    with pytest.raises(DataError, match="softmax"):
        tally.add(np.array([[math.nan, 1.0]]), np.array([0]))
    with pytest.raises(DataError, match="0 to 1"):
        tally.add(np.array([[0.5, 0.5]]), np.array([2]))
    with pytest.raises(ShapeError, match="integers"):
        tally.add(np.array([[0.5, 0.5]]), np.array([1.0]))
    with pytest.raises(DataError, match="two kinds"):
        tally.merge(ClassTally(["a", "c"]))
