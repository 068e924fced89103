"""The estimators: what scikit-learn asks of its own, and what series and texts need beyond it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from gatewise.errors import DataError, OptionError

pytest.importorskip("sklearn", reason="the extra gatewise[sklearn] is not installed")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from gatewise.sklearn import SequenceClassifier, SequenceRegressor

SMALL: dict[str, Any] = {"hidden_size": 8, "random_state": 0, "lr": 0.02, "dropout": 0.0}


@pytest.mark.slow
@parametrize_with_checks(
    [
        SequenceClassifier(**{**SMALL, "epochs": 25}),
        SequenceRegressor(**{**SMALL, "epochs": 40}),
    ]
)
def test_check_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


def series() -> tuple[list[Any], list[str]]:
    """Walks of unequal lengths that rise, fall or stay."""
    draws = np.random.default_rng(3)
    names = ["down", "level", "up"]
    y = [names[k % 3] for k in range(60)]
    x = []
    for label in y:
        steps = draws.normal((names.index(label) - 1) * 0.8, 0.4, (draws.integers(8, 20), 2))
        x.append(steps.cumsum(0).astype(np.float32))
    return x, y


@pytest.fixture(scope="module")
def fitted() -> SequenceClassifier:
    x, y = series()
    return SequenceClassifier(**{**SMALL, "hidden_size": 16, "epochs": 15, "batch_size": 8}).fit(
        x, y
    )


def test_series_of_unequal_lengths(fitted: SequenceClassifier) -> None:
    x, y = series()
    assert fitted.score(x, y) > 0.8
    assert fitted.classes_.tolist() == sorted(set(y))
    chances = fitted.predict_proba(x)
    assert chances.shape == (60, 3)
    np.testing.assert_allclose(chances.sum(1), 1)
    np.testing.assert_allclose(fitted.predict_proba(x[:3]), chances[:3], atol=1e-5)
    nothing = np.full((1, 4, x[0].shape[1]), np.nan)
    beside = fitted.predict_proba([np.empty((0, x[0].shape[1])), x[0]])
    np.testing.assert_allclose(fitted.predict_proba(nothing)[0], beside[0], atol=1e-6)


def test_pickling_keeps_the_predictions(fitted: SequenceClassifier) -> None:
    x, _ = series()
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(x), fitted.predict_proba(x))
    unfitted = clone(fitted)
    assert unfitted.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        unfitted.predict(x)


def test_arrays_of_three_dimensions_are_the_same_as_lists() -> None:
    draws = np.random.default_rng(0)
    x = draws.standard_normal((12, 6, 2)).astype(np.float32)
    x[3, 4:] = np.nan  # a shorter one
    y = np.arange(12) % 2
    one = SequenceClassifier(**SMALL, epochs=2).fit(x, y)
    several = [row[: 4 if k == 3 else 6] for k, row in enumerate(x)]
    other = SequenceClassifier(**SMALL, epochs=2).fit(several, y)
    np.testing.assert_array_equal(one.predict_proba(x), other.predict_proba(several))


def test_long_series_are_read_to_their_end() -> None:
    x = np.zeros((4, 2100))
    x[::2, 2050:] = 1  # the classes differ here alone
    options = {**SMALL, "hidden_size": 2, "readout": "last", "bidirectional": False}
    model = SequenceClassifier(**options, epochs=1).fit(x, [0, 1, 0, 1])
    assert np.ptp(model.predict_proba(x)[:2, 0]) > 0


def test_texts_and_a_search_over_options() -> None:
    texts = [f"{a}{b}" for a in "abcdefgh" for b in "xyz"]
    labels = np.array([text[1] for text in texts])
    search = GridSearchCV(
        make_pipeline(SequenceClassifier(**{**SMALL, "epochs": 15, "batch_size": 8})),
        {"sequenceclassifier__readout": ["last", "max"]},
        cv=2,
    )
    search.fit(texts, labels)
    assert search.best_score_ > 0.9
    assert search.predict(["qx"])[0] in "xyz"


def test_numbers_with_a_validation_part_and_patience() -> None:
    draws = np.random.default_rng(1)
    x = [draws.standard_normal((draws.integers(3, 7), 1)) for _ in range(60)]
    y = np.array([100 + 10 * one.mean() for one in x])
    options = {**SMALL, "epochs": 60, "validation_fraction": 0.2, "patience": 20}
    model = SequenceRegressor(**options).fit(x, y)
    assert model.score(x, y) > 0.7
    assert 1 <= model.n_iter_ <= 60


def test_what_cannot_be_used_is_said() -> None:
    x, y = series()
    with pytest.raises(DataError, match="two classes or more"):
        SequenceClassifier(**SMALL).fit(x, ["same"] * len(x))
    with pytest.raises(DataError, match="as many y as sequences, 60, found 59"):
        SequenceClassifier(**SMALL).fit(x, y[1:])
    with pytest.raises(OptionError, match="class_weight"):
        SequenceClassifier(class_weight="odd").fit(x, y)
    with pytest.raises(OptionError, match="patience: expected None or a validation_fraction"):
        SequenceClassifier(**SMALL, patience=3).fit(x, y)
    with pytest.raises(OptionError, match="--readout"):
        SequenceClassifier(readout="first").fit(x, y)
    with pytest.raises(DataError, match="one number of channels"):
        SequenceClassifier(**SMALL).fit([np.zeros((3, 1)), np.zeros((3, 2))], [0, 1])
    with pytest.raises(DataError, match="a token or a value in the examples"):
        SequenceClassifier(**SMALL).fit(np.full((4, 3), np.nan), [0, 1, 0, 1])
    model = SequenceClassifier(**SMALL, epochs=1).fit(x, y)
    with pytest.raises(DataError, match="2 channels, as the model reads, found 1"):
        model.predict([np.zeros((3, 1))])
    with pytest.raises(DataError, match="expected series, as the model reads"):
        model.predict(["text"])
