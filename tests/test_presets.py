"""Presets are plain values of options that exist, each with its source."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from gatewise.cli.train_forecast import SeriesOptions
from gatewise.cli.train_tag import ColumnOptions
from gatewise.errors import UnknownNameError
from gatewise.mappings import LanguageModelConfig, LanguageModelOptions, StreamOptions
from gatewise.mappings.course import CourseOptions
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.executing import ExecuteBatchOptions
from gatewise.mappings.forecaster import ForecasterOptions
from gatewise.mappings.image_encoder import ImageOptions
from gatewise.mappings.memory import MemoryBatchOptions, MemoryNetOptions
from gatewise.mappings.seq_to_vec import VectorOptions
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoderOptions
from gatewise.mappings.tagger import TaggerOptions
from gatewise.mappings.vec_to_seq import CaptionOptions
from gatewise.presets import PRESETS, Preset, get_preset
from gatewise.train import TextOptions, TrainOptions, check_names, with_values
from gatewise.train.build import count_parameters
from gatewise.train.captions import CaptionTextOptions
from gatewise.train.forecasts import WindowOptions
from gatewise.train.labelled import ReadingOptions
from gatewise.train.pairs import PairTextOptions
from gatewise.train.tags import TagTextOptions
from gatewise.train.tasks import TaskOptions

OF_LANGUAGE_MODELS = [preset for preset in PRESETS.values() if preset.mapping == "lm"]

OTHERS: dict[str, tuple[Any, ...]] = {
    "translate": (PairTextOptions, EncoderDecoderOptions, BatchOptions, TrainOptions),
    "execute": (CourseOptions, EncoderDecoderOptions, ExecuteBatchOptions, TrainOptions),
    "task": (TaskOptions, MemoryNetOptions, MemoryBatchOptions, TrainOptions),
    "classify": (ReadingOptions, VectorOptions, BatchOptions, TrainOptions),
    "caption": (CaptionTextOptions, CaptionOptions, ImageOptions, BatchOptions, TrainOptions),
    "tag": (ColumnOptions, TagTextOptions, TaggerOptions, BatchOptions, TrainOptions),
    "forecast": (SeriesOptions, WindowOptions, ForecasterOptions, BatchOptions, TrainOptions),
}
"""Mapping -> its option dataclasses."""


@pytest.mark.parametrize(
    "preset",
    [preset for preset in PRESETS.values() if preset.mapping in OTHERS],
    ids=lambda preset: preset.name,
)
def test_values_of_other_mappings_are_valid_options(preset: Preset) -> None:
    kinds = OTHERS[preset.mapping]
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert set(preset.values) <= names
    for kind in kinds:
        with_values(kind(), preset.values).validate()
    json.dumps(dict(preset.values))
    assert preset.source
    assert preset.summary


@pytest.mark.parametrize("preset", OF_LANGUAGE_MODELS, ids=lambda preset: preset.name)
def test_values_are_valid_options(preset: Preset) -> None:
    check_names(preset.values)
    with_values(TrainOptions(), preset.values).validate()
    with_values(StreamOptions(), preset.values).validate()
    with_values(LanguageModelOptions(), preset.values).validate()
    with_values(TextOptions(), preset.values)
    json.dumps(dict(preset.values))
    assert preset.source
    assert preset.summary


def test_the_published_sizes_come_out() -> None:
    """33 M parameters for AWD-LSTM on WikiText-2, 13.97 M for word_language_model."""
    for name, expected in (("awd-lstm", 33.6e6), ("word-language-model", 13.99e6)):
        options = with_values(LanguageModelOptions(), get_preset(name).values)
        found = count_parameters(LanguageModelConfig.from_options(options, 33_278))
        assert abs(found / expected - 1) < 0.01


def test_an_unknown_preset() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tiny'"):
        get_preset("tinny")
