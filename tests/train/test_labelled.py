"""From examples to a learner: how they are read, varied and scaled, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gatewise.errors import DataError, OptionError
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.seq_to_vec import VectorOptions
from gatewise.metrics.classes import UNKNOWN
from gatewise.tasks.labelled import Examples
from gatewise.text.ragged import Ragged
from gatewise.train import TrainOptions
from gatewise.train.labelled import Reader, ReadingOptions, vector_learner

TEXTS = Examples(["Ada", "Bob", "Cy", "Di"], labels=["a", "b", "a", "b"])


def series(*lengths: int) -> Ragged:
    draws = np.random.default_rng(0)
    return Ragged.of([5 + 3 * draws.standard_normal((n, 2)) for n in lengths], np.float32)


def learner(examples: Examples, **reading: Any) -> Any:
    made, _ = vector_learner(
        {"train": examples},
        ReadingOptions(**reading),
        VectorOptions(hidden_size=4, embedding_size=3),
        BatchOptions(batch_size=2),
        TrainOptions(steps=1),
    )
    return made


def test_a_reader_goes_through_json_and_reads_the_same() -> None:
    reader = Reader.build(TEXTS, ReadingOptions(lowercase=True, max_length=2))
    assert reader.tokenizer is not None
    again = Reader.from_dict(reader.to_dict(), reader.tokenizer.to_json())
    assert again.text("ADA").tolist() == reader.text("ada").tolist()
    assert len(reader.text("ada")) == 2
    assert reader.longer(TEXTS) == 2
    strange = Examples(["x"], labels=["never"])
    assert reader.targets(strange).tolist() == [UNKNOWN]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"channels": [], "classes": [1], "max_length": 3, "lowercase": False},
        {"channels": [], "classes": [], "max_length": 0, "lowercase": False},
        {"channels": [], "classes": [], "max_length": 3, "lowercase": "no"},
    ],
)
def test_a_damaged_reader_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="expected"):
        Reader.from_dict(values, None)


def test_series_are_scaled_by_the_training_part() -> None:
    made = learner(Examples(None, series(40, 60), ["u", "v"], ["a", "b"]))
    assert made.model.shift.tolist() == pytest.approx([5, 5], abs=1)
    assert made.model.scale.tolist() == pytest.approx([3, 3], abs=1)
    assert made.model.config.marks == 0


def test_numbers_are_scaled_too() -> None:
    targets = np.array([10.0, 30.0])
    made = learner(Examples(None, series(4, 6), ["u", "v"], None, targets))
    assert made.model.target_shift.tolist() == [20]
    assert made.model.target_scale.tolist() == [10]


def test_noise_depends_on_the_seed_and_the_position_alone() -> None:
    examples = Examples(None, series(3, 4, 5), ["u", "v"], ["a", "b", "a"])
    plain, noisy = learner(examples), learner(examples, jitter=0.1)
    first = noisy.batch(0, 0).inputs[0]
    noisy.batch(1, 0)
    assert noisy.batch(0, 0).inputs[0].equal(first)
    gap = (first - plain.batch(0, 0).inputs[0]).abs()
    assert 0 < gap.max() < 3


def test_some_tokens_are_hidden() -> None:
    made = learner(TEXTS, unknown_rate=0.5)
    unknown = made.reader.tokenizer.unknown_id
    shares = [(made.batch(epoch, 0).inputs[0] == unknown).float().mean() for epoch in range(40)]
    assert 0.3 < sum(shares) / 40 < 0.7


def test_class_weights_are_of_the_training_part() -> None:
    labels = ["a", "a", "a", "b"]
    examples = Examples(["x", "y", "z", "w"], labels=labels)
    assert learner(examples)._weights is None
    balanced = learner(examples, class_weights="balanced")._weights
    assert balanced.tolist() == pytest.approx([2 / 3, 2])
    root = learner(examples, class_weights="root")._weights
    assert root.tolist() == pytest.approx((balanced**0.5).tolist())


@pytest.mark.parametrize(
    "wrong",
    [{"unknown_rate": 1.0}, {"jitter": -1.0}, {"tokenizer": "no"}, {"min_count": 2}],
)
def test_options_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="--"):
        ReadingOptions(**wrong).validate()


def test_other_examples_are_refused() -> None:
    reader = Reader.build(TEXTS, ReadingOptions())
    with pytest.raises(DataError, match="expected texts"):
        reader.inputs(Examples(None, series(3), ["u", "v"]))
    with pytest.raises(DataError, match="a class of each"):
        reader.targets(Examples(["x"]))
