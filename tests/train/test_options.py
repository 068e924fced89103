"""Options: every one has its help, is checked, and is named where it is wrong."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from pathlib import Path
from typing import Any

import pytest

from gatewise.errors import OptionError, UnknownNameError
from gatewise.mappings import LanguageModelOptions, StreamOptions
from gatewise.text.corpora import Corpus
from gatewise.train import TextOptions, TrainOptions, check_names, option_values, with_values
from train_cases import build

KINDS = (TextOptions, LanguageModelOptions, StreamOptions, TrainOptions)


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_has_its_help(kind: type) -> None:
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    followed = [
        before.target.id
        for before, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
    ]
    assert followed == [field.name for field in dataclasses.fields(kind)]


def test_no_two_options_have_one_name() -> None:
    names = [field.name for kind in KINDS for field in dataclasses.fields(kind)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "--epochs, --minutes or --steps"),
        ({"epochs": 0.0}, "--epochs"),
        ({"epochs": math.nan}, "--epochs"),
        ({"minutes": -1.0}, "--minutes"),
        ({"minutes": math.inf}, "--minutes"),
        ({"steps": 0}, "--steps"),
        ({"steps": 2.5}, "--steps"),
        ({"lr": 0.0}, "--lr"),
        ({"lr": math.nan}, "--lr"),
        ({"lr": math.inf}, "--lr"),
        ({"min_lr": 1.0}, "--min-lr"),
        ({"optimizer": "adma"}, "--optimizer"),
        ({"schedule": "cosinus"}, "--schedule"),
        ({"dtype": "float16"}, "--dtype"),
        ({"warmup": -1}, "--warmup"),
        ({"warmup": 100}, "--warmup"),
        ({"clip_norm": -0.1}, "--clip-norm"),
        ({"clip_value": math.nan}, "--clip-value"),
        ({"momentum": 1.0}, "--momentum"),
        ({"beta2": 1.5}, "--beta2"),
        ({"weight_decay": -1.0}, "--weight-decay"),
        ({"decay": 1.0}, "--decay"),
        ({"schedule": "step", "decay_every": 2.0}, "--decay-every"),
        ({"schedule": "step", "epochs": 50.0, "decay_every": 1e-9}, "--decay-every"),
        ({"optimizer": "adam", "momentum": 0.9}, "--momentum"),
        ({"schedule": "step", "min_lr": 1e-4}, "--min-lr"),
        ({"eval_every": 0}, "--eval-every"),
        ({"patience": 0}, "--patience"),
        ({"checkpoint_every": 0}, "--checkpoint-every"),
        ({"checkpoint_seconds": -1.0}, "--checkpoint-seconds"),
        ({"keep": 0}, "--keep"),
        ({"log_every": 0}, "--log-every"),
        ({"max_skips": 0}, "--max-skips"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_options_outside_their_range_are_named(values: dict[str, Any], named: str) -> None:
    given = (
        values
        if not values or {"epochs", "minutes", "steps"} & set(values)
        else ({"steps": 50} | values)
    )
    with pytest.raises(OptionError) as error:
        TrainOptions(**given).validate()
    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values", [{"schedule": "plateau"}, {"optimizer": "ntasgd"}, {"patience": 3}]
)
def test_what_needs_a_validation_part_says_so(values: dict[str, Any]) -> None:
    options = TrainOptions(steps=1, **values)
    options.validate()
    with pytest.raises(OptionError, match="validation part"):
        options.validate(has_validation=False)


def test_values_find_their_options() -> None:
    values = {"lr": 0.5, "hidden_sizes": [4, 2], "batch_size": 3, "tokenizer": "word"}
    check_names(values)
    assert with_values(TrainOptions(), values).lr == 0.5
    assert with_values(LanguageModelOptions(), values).hidden_sizes == (4, 2)
    assert with_values(StreamOptions(), values).batch_size == 3
    assert with_values(TextOptions(), values).tokenizer == "word"
    flat = option_values(TrainOptions(), StreamOptions())
    assert flat["lr"] == TrainOptions().lr
    assert flat["bptt"] == StreamOptions().bptt
    with pytest.raises(UnknownNameError, match="batch_size"):
        check_names({"batchsize": 3})


def test_sizes_beyond_memory_are_refused_with_the_estimate(corpus: Corpus) -> None:
    for values in (
        {"hidden_size": 1_000_000, "num_layers": 2},
        {"hidden_size": 1_000_000, "num_layers": 256},
        {"embedding_size": 1 << 20, "hidden_size": 1 << 20},
        {"bptt": 1 << 20, "hidden_size": 100_000},
    ):
        with pytest.raises(OptionError, match=r"parameters and training it would take about .*B"):
            build(corpus, steps=1, **values)


def test_a_device_that_is_not_here(corpus: Corpus) -> None:
    for name in ("cuda:99", "abacus"):
        with pytest.raises(OptionError, match="--device"):
            build(corpus, steps=1, device=name)


def test_text_options_build_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one two one\n" * 30)
    corpus = TextOptions(tokenizer="word", fractions=(0.5, 0.5, 0.0)).corpus(
        [tmp_path / "a.txt"], cache=False
    )
    assert set(corpus.splits) >= {"train", "valid"}
