"""Named settings: plain values of options, each with where it comes from.

A preset is a starting point; an option given beside it wins. It knows no option class: whoever uses it
hands its values to the options that have those names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gatewise.errors import unknown


@dataclass(frozen=True)
class Preset:
    """A named setting.

    Attributes:
        name: on the command line.
        mapping: what it trains ("lm").
        summary: one line.
        source: where the values come from.
        values: option name -> value.
    """

    name: str
    mapping: str
    summary: str
    source: str
    values: Mapping[str, Any]


def _preset(name: str, summary: str, source: str, mapping: str = "lm", **values: Any) -> Preset:
    return Preset(name, mapping, summary, source, MappingProxyType(values))


_TRANSLATE: dict[str, Any] = {
    "tokenizer": "bpe",
    "attention": "dot",
    "bidirectional": True,
    "embedding_size": 300,
    "hidden_size": 512,
    "dropout": 0.4,
    "smoothing": 0.1,
    "batch_size": 128,
    "lr": 4e-3,
    "schedule": "cosine",
    "warmup": 100,
    "dtype": "auto",
}

_FORECAST: dict[str, Any] = {
    "hidden_size": 32,
    "batch_size": 32,
    "lr": 5e-3,
    "schedule": "cosine",
    "warmup": 20,
}

_CAPTION: dict[str, Any] = {
    "tokenizer": "word",
    "lowercase": True,
    "embedding_size": 256,
    "hidden_size": 512,
    "batch_size": 64,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "warmup": 50,
    "dtype": "auto",
}

_CHARACTERS: dict[str, Any] = {
    "tokenizer": "char",
    "cell": "lstm",
    "embedding_size": 48,
    "hidden_size": 384,
    "num_layers": 1,
    "dropout_input": 0.0,
    "forget_bias": 1.0,
    "initialisation": "torch",
    "batch_size": 32,
    "bptt": 64,
    "optimizer": "adamw",
    "beta2": 0.99,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "warmup": 50,
    "clip_norm": 1.0,
    "dtype": "auto",
    "minutes": 3.0,
}

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _preset(
                "char",
                "characters, three minutes on two CPU cores",
                "measured here on tiny Shakespeare: benchmarks/shakespeare.sh, dev/LOG.md",
                **_CHARACTERS,
                dropout=0.1,
                lr=6e-3,
            ),
            _preset(
                "char-small",
                "characters of about a megabyte, read many times; three minutes on two CPU cores",
                "measured here on tiny Shakespeare: benchmarks/shakespeare.sh, dev/LOG.md",
                **_CHARACTERS,
                dropout=0.25,
                lr=4e-2,
            ),
            _preset(
                "tiny",
                "seconds, to see that everything works",
                "a small network of this project",
                tokenizer="char",
                cell="lstm",
                embedding_size=32,
                hidden_size=64,
                num_layers=1,
                batch_size=16,
                bptt=32,
                optimizer="adamw",
                lr=1e-2,
                schedule="cosine",
                warmup=10,
                clip_norm=1.0,
                steps=150,
                log_every=25,
            ),
            _preset(
                "word-language-model",
                "words, the lecture's reference program",
                "pytorch/examples, word_language_model: main.py's default options",
                tokenizer="word",
                cell="lstm",
                embedding_size=200,
                hidden_size=200,
                num_layers=2,
                dropout=0.2,
                initialisation="uniform",
                batch_size=20,
                eval_batch_size=10,
                bptt=35,
                optimizer="sgd",
                lr=20.0,
                schedule="plateau",
                decay=4.0,
                clip_norm=0.25,
                epochs=40.0,
                log_every=200,
                seed=1111,
            ),
            _preset(
                "char-rnn",
                "characters, torch-rnn's default options",
                "jcjohnson/torch-rnn, train.lua: default options (Adam, halved every 5 epochs)",
                tokenizer="char",
                cell="lstm",
                embedding_size=64,
                hidden_size=128,
                num_layers=2,
                batch_size=50,
                bptt=50,
                optimizer="adam",
                lr=2e-3,
                schedule="step",
                decay=2.0,
                decay_every=5.0,
                clip_norm=None,
                clip_value=5.0,
                epochs=50.0,
                eval_every=1000,
                checkpoint_every=1000,
            ),
            _preset(
                "awd-lstm",
                "words, strong regularisation; meant for a GPU",
                "Merity et al. 2017 (arXiv 1708.02182), the authors' WikiText-2 command",
                tokenizer="word",
                cell="lstm",
                embedding_size=400,
                hidden_sizes=(1150, 1150, 400),
                tied=True,
                locked_dropout=True,
                dropout=0.4,
                dropout_hidden=0.2,
                dropout_input=0.65,
                dropout_embedding=0.1,
                weight_drop=0.5,
                activation_penalty=2.0,
                temporal_penalty=1.0,
                initialisation="uniform",
                batch_size=80,
                eval_batch_size=10,
                bptt=70,
                random_bptt=True,
                optimizer="ntasgd",
                lr=30.0,
                nonmono=5,
                weight_decay=1.2e-6,
                schedule="constant",
                clip_norm=0.25,
                epochs=750.0,
                log_every=200,
                seed=1882,
            ),
            _preset(
                "translate",
                "pieces, dot attention, 15 minutes on two CPU cores",
                "measured here on Multi30k, German to English: dev/LOG.md",
                mapping="translate",
                **_TRANSLATE,
                minutes=15.0,
            ),
            _preset(
                "multi30k",
                "the same for an hour",
                "measured here on Multi30k, German to English: dev/LOG.md",
                mapping="translate",
                **_TRANSLATE,
                minutes=60.0,
            ),
            _preset(
                "tag",
                "words and their characters, both directions; five minutes at most",
                "a network of the sizes of Lample et al. 2016 (arXiv 1603.01360), trained by adamw",
                mapping="tag",
                hidden_size=100,
                dropout=0.4,
                word_dropout=0.1,
                batch_size=16,
                lr=3e-3,
                schedule="cosine",
                warmup=100,
                epochs=30.0,
                minutes=5.0,
            ),
            _preset(
                "notices",
                "the embedded sentences, what runs without data: half a minute on a CPU core",
                "a small network of this project",
                mapping="tag",
                embedding_size=32,
                character_size=16,
                character_hidden=16,
                hidden_size=48,
                dropout=0.2,
                word_dropout=0.2,
                batch_size=32,
                lr=5e-3,
                schedule="cosine",
                warmup=50,
                epochs=6.0,
            ),
            _preset(
                "python",
                "the roles of words in Python's own library: a minute on a CPU core",
                "a small network of this project",
                mapping="tag",
                embedded="python",
                embedding_size=64,
                hidden_size=100,
                dropout=0.3,
                word_dropout=0.1,
                batch_size=64,
                lr=5e-3,
                schedule="cosine",
                warmup=50,
                epochs=3.0,
            ),
            _preset(
                "forecast",
                "one series or several, five minutes at most",
                "measured here on generated series: dev/LOG.md",
                mapping="forecast",
                **_FORECAST,
                epochs=200.0,
                minutes=5.0,
                patience=30,
            ),
            _preset(
                "seasonal",
                "the embedded series, what runs without data: seconds on a CPU core",
                "measured here: dev/LOG.md",
                mapping="forecast",
                **_FORECAST,
                season=24,
                differences=True,
                weight_decay=0.1,
                steps=1500,
                eval_every=100,
            ),
            _preset(
                "library",
                "how the lines of Python's own library are indented: a minute on a CPU core",
                "measured here: dev/LOG.md",
                mapping="forecast",
                **{**_FORECAST, "hidden_size": 64},
                embedded="library",
                scaling="all",
                output="student",
                steps=1500,
                eval_every=100,
            ),
            _preset(
                "numbers",
                "characters, what runs without data: a minute on two CPU cores",
                "a small network of this project",
                mapping="translate",
                tokenizer="char",
                attention="general",
                bidirectional=True,
                embedding_size=64,
                hidden_size=128,
                dropout=0.1,
                batch_size=128,
                lr=4e-3,
                schedule="cosine",
                warmup=50,
                minutes=1.0,
            ),
            _preset(
                "caption",
                "words from photographs or vectors, our own net; eight minutes on a CPU core",
                "a small network of this project: docs/caption.md",
                mapping="caption",
                **_CAPTION
                | {
                    "min_count": 3,
                    "hidden_size": 256,
                    "image_size": 64,
                    "image_channels": 24,
                    "image_blocks": 1,
                    "mirror": True,
                    "dropout": 0.5,
                    "smoothing": 0.1,
                    "lr": 3e-3,
                    "minutes": 8.0,
                },
            ),
            _preset(
                "scenes",
                "rendered scenes, what runs without data: seven minutes on one CPU core",
                "a small network of this project: docs/caption.md",
                mapping="caption",
                **_CAPTION
                | {
                    "embedding_size": 64,
                    "hidden_size": 128,
                    "attention": "additive",
                    "image_size": 64,
                    "image_channels": 16,
                    "image_blocks": 2,
                    "lr": 3e-3,
                    "minutes": 7.0,
                },
            ),
        )
    }
)


def get_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]
