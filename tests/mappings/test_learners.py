"""Learners of examples: batches that can be asked for again, figures that no batch size changes, exact resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gatewise.checkpoint import RunFolder
from gatewise.errors import DataError
from gatewise.mappings.described import CaptionLearner, Described
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.forecaster import ForecasterOptions
from gatewise.mappings.labelled import Labelled, VectorLearner, balanced
from gatewise.mappings.learner import Learner
from gatewise.mappings.pairs import PairLearner, Pairs
from gatewise.mappings.seq_to_vec import SequenceToVector, VectorConfig, VectorOptions
from gatewise.mappings.seq_to_vec_to_seq import (
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderDecoderOptions,
)
from gatewise.mappings.tagged import Tagged, TagLearner
from gatewise.mappings.tagger import Tagger, TaggerConfig, TaggerOptions
from gatewise.mappings.vec_to_seq import CaptionConfig, CaptionOptions, VectorToSequence
from gatewise.metrics.classes import ClassTally
from gatewise.metrics.numbers import NumberTally
from gatewise.tasks.histories import Histories, History
from gatewise.text.ragged import Ragged
from gatewise.train import TrainOptions, train
from gatewise.train.forecasts import WindowOptions, forecast_learner

V, BEGIN, END = 7, 0, 1
SMALL: dict[str, Any] = {"embedding_size": 4, "hidden_size": 6, "dropout": 0.2}


def texts(count: int, seed: int) -> Ragged:
    draws = np.random.default_rng(seed)
    return Ragged.of([draws.integers(2, V, draws.integers(0, 6)) for _ in range(count)], np.int64)


def pairs(options: BatchOptions) -> Learner:
    model = EncoderDecoderConfig.from_options(EncoderDecoderOptions(**SMALL), V, V)
    parts = {n: Pairs(texts(23, k), texts(23, k + 9)) for k, n in enumerate(("train", "valid"))}
    return PairLearner(EncoderDecoder(model), parts, options, begin=BEGIN, end=END)


def captions(options: BatchOptions) -> Learner:
    model = CaptionConfig.from_options(CaptionOptions(**SMALL), None, V, 3)
    draws = np.random.default_rng(5)
    things = draws.standard_normal((8, 3)).astype(np.float32)
    parts = {
        n: Described(things, texts(23, k), draws.integers(0, 8, 23))
        for k, n in enumerate(("train", "valid"))
    }
    return CaptionLearner(VectorToSequence(model), parts, options, begin=BEGIN, end=END)


def classes(options: BatchOptions) -> Learner:
    sizes = {"vocab_size": V, "outputs": 3}
    model = SequenceToVector(VectorConfig.from_options(VectorOptions(**SMALL), **sizes))
    targets = np.arange(23) % 3
    parts = {n: Labelled(texts(23, k), targets) for k, n in enumerate(("train", "valid"))}
    weights = balanced(targets, 3)
    tally = lambda: ClassTally(["a", "b", "c"])
    return VectorLearner(model, parts, options, tally=tally, class_weights=weights)


def numbers(options: BatchOptions) -> Learner:
    sizes = {"channels": 2, "marks": 1, "outputs": 1, "target": "number"}
    model = SequenceToVector(VectorConfig.from_options(VectorOptions(**SMALL), **sizes))
    draws = np.random.default_rng(2)
    series = [draws.standard_normal((k % 5 + 1, 2)).astype(np.float32) for k in range(23)]
    series[3][0, 1] = np.nan
    targets = draws.standard_normal((23, 1)).astype(np.float32)
    targets[4] = np.nan
    parts = {n: Labelled(Ragged.of(series), targets) for n in ("train", "valid")}
    return VectorLearner(model, parts, options, tally=NumberTally, kind="forecast")


def tags(options: BatchOptions) -> Learner:
    parts = {}
    for k, name in enumerate(("train", "valid")):
        forms = texts(23, k)
        draws = np.random.default_rng(k)
        own = Ragged(draws.integers(0, 3, len(forms.values)), forms.starts)
        spelled = Ragged.of(
            [draws.integers(1, 5, draws.integers(1, 4)) for _ in range(V)], np.int64
        )
        parts[name] = Tagged(forms, np.arange(V) % 5, spelled, own)
    chosen = {**SMALL, "character_size": 3, "character_hidden": 2, "word_dropout": 0.2}
    model = TaggerConfig.from_options(TaggerOptions(**chosen), 5, 5, 3)
    return TagLearner(Tagger(model), parts, options, tags=["a", "b", "c"])


def forecasts(options: BatchOptions) -> Learner:
    values = np.random.default_rng(4).standard_normal(120)
    values[17] = np.nan
    found = Histories([History("v", values, np.zeros((120, 0)))], [])
    learner = forecast_learner(
        found,
        WindowOptions(window=8, stride=4, fractions=(0.8, 0.2)),
        ForecasterOptions(hidden_size=6, dropout=0.2),
        options,
        TrainOptions(steps=1, seed=1),
    )
    assert learner.positions == 23
    return learner


LEARNERS: dict[str, Callable[[BatchOptions], Learner]] = {
    "pairs": pairs,
    "captions": captions,
    "classes": classes,
    "numbers": numbers,
    "tags": tags,
    "forecasts": forecasts,
}
EACH = pytest.mark.parametrize("kind", LEARNERS)


def build(kind: str, **options: Any) -> Learner:
    torch.manual_seed(0)
    return LEARNERS[kind](BatchOptions(**{"batch_size": 5, "bucket": 2, **options}))


@EACH
def test_a_batch_is_the_same_whenever_it_is_asked_for(kind: str) -> None:
    one, two = build(kind), build(kind)
    for epoch in range(2):
        position = 0
        while position < one.positions:
            batch = one.batch(epoch, position)
            two.batch(epoch + 1, 0)
            for mine, theirs in zip(batch.inputs, two.batch(epoch, position).inputs, strict=True):
                torch.testing.assert_close(mine, theirs, equal_nan=True)
            position = batch.stop
    assert position == one.positions == 23


@EACH
def test_figures_do_not_depend_on_the_size_of_batches(kind: str) -> None:
    found = [build(kind, eval_batch_size=size).evaluate("valid") for size in (1, 4, 23)]
    assert all(one is not None for one in found)
    first, *rest = [_numbers(one.summary()) for one in found if one is not None]
    assert first
    for figures in rest:
        assert figures == pytest.approx(first, rel=1e-4)


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


@EACH
def test_training_lowers_the_cost_and_resumes_exactly(kind: str, tmp_path: Path) -> None:
    def run(folder: Path, steps: int) -> dict[str, torch.Tensor]:
        learner = build(kind)
        options = TrainOptions(steps=steps, lr=1e-2, checkpoint_seconds=0)
        new = not folder.exists()
        with RunFolder.create(folder) if new else RunFolder.resume(folder) as opened:
            result = train(learner, opened, options)
        assert result.steps == steps
        assert result.best_nats < begin
        return dict(learner.model.state_dict())

    before = build(kind).evaluate("valid")
    assert before is not None
    begin = before.cost + 1e-6
    whole = run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 7)  # in the middle of the second epoch
    for name, value in run(tmp_path / "parts", 12).items():
        assert torch.equal(value, whole[name]), name


@EACH
def test_a_part_that_is_not_there_is_said(kind: str) -> None:
    learner = build(kind)
    assert learner.has_part("valid")
    assert not learner.has_part("test")
    with pytest.raises(DataError, match="in the 'test' part, found none"):
        learner.evaluate("test")
    assert learner.evaluate("valid", lambda: True) is None


def test_nothing_to_train_on_is_said() -> None:
    model = EncoderDecoder(EncoderDecoderConfig.from_options(EncoderDecoderOptions(**SMALL), V, V))
    with pytest.raises(DataError, match="expected at least one pair to train on, found none"):
        PairLearner(model, {"valid": Pairs(texts(3, 0), texts(3, 1))}, begin=BEGIN, end=END)


def test_sides_of_different_numbers_are_said() -> None:
    with pytest.raises(DataError, match="found 3 sources and 2 targets"):
        Pairs(texts(3, 0), texts(2, 1))
    with pytest.raises(DataError, match="3 sequences and 2 targets"):
        Labelled(texts(3, 0), np.arange(2))
    with pytest.raises(DataError, match="3 texts and 2 owners"):
        Described(np.zeros((4, 3), np.float32), texts(3, 0), np.arange(2))
    with pytest.raises(DataError, match="owners among 4 things, found 0 to 4"):
        Described(np.zeros((4, 3), np.float32), texts(2, 0), np.array([0, 4]))


def test_images_are_turned_in_training_alone_and_always_the_same_ones() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16)).astype(np.uint8)
    config = CaptionConfig.from_options(CaptionOptions(**SMALL), None, V, 3)
    part = Described(images, texts(6, 0), np.arange(6))
    options = BatchOptions(batch_size=6)
    learner = CaptionLearner(
        VectorToSequence(config), {"train": part}, options, begin=BEGIN, end=END, mirror=True
    )
    plain = CaptionLearner(VectorToSequence(config), {"train": part}, options, begin=BEGIN, end=END)
    turned, whole = learner.batch(0, 0).inputs[0], plain.batch(0, 0).inputs[0]
    assert torch.equal(turned, learner.batch(0, 0).inputs[0])
    changed = (turned != whole).flatten(1).any(1)
    assert 0 < int(changed.sum()) < 6
    assert torch.equal(turned[changed], whole[changed].flip(-1))
