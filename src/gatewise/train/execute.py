"""From options to a learner of execution: a course of fresh examples, a model of either form from the seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import TypeAlias

import torch

from gatewise.engine import check_engine
from gatewise.errors import OptionError
from gatewise.mappings.config import flag
from gatewise.mappings.course import TOKENIZER, Course, CourseOptions
from gatewise.mappings.executing import (
    ExecuteBatchOptions,
    PairExecuteLearner,
    StreamExecuteLearner,
)
from gatewise.mappings.options import LanguageModelConfig
from gatewise.mappings.seq_to_seq import LanguageModel
from gatewise.mappings.seq_to_vec_to_seq import (
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderDecoderOptions,
)
from gatewise.optim import OPTIMIZERS
from gatewise.train.build import in_bytes, memory_size, open_device
from gatewise.train.options import TrainOptions

ExecuteLearner: TypeAlias = "PairExecuteLearner | StreamExecuteLearner"

_SHARED = frozenset(field.name for field in dataclasses.fields(EncoderDecoderOptions)) & frozenset(
    field.name for field in dataclasses.fields(LanguageModelConfig)
)
PAIRS_ONLY = tuple(
    field.name for field in dataclasses.fields(EncoderDecoderOptions) if field.name not in _SHARED
)
"""Options of an encoder-decoder that a stream has no use for."""


def check_given(course: CourseOptions, given: Collection[str]) -> None:
    """Refuse options that were asked for and have no effect.

    Args:
        course: what is learned.
        given: names of the options that were asked for.
    Raises:
        OptionError: naming the flag.
    """
    if course.form == "stream":
        for name in PAIRS_ONLY:
            if name in given:
                raise OptionError(f"{flag(name)}: for --form pairs, found --form stream")
    elif "bptt" in given:
        raise OptionError("--bptt: for --form stream, found --form pairs")
    programs = course.task == "programs"
    for name in ("digits",) if programs else ("length", "nesting"):
        if name in given:
            own = "--length and --nesting" if programs else "--digits"
            raise OptionError(f"{flag(name)}: the task {course.task} takes {own}")


def execute_learner(
    course: CourseOptions,
    model: EncoderDecoderOptions,
    batches: ExecuteBatchOptions,
    training: TrainOptions,
    *,
    engine: str = "auto",
) -> ExecuteLearner:
    """A new model and its course, initialised from the seed.

    Raises:
        OptionError: an option is outside its range, or the model does not fit into memory.
    """
    for part in (course, model, batches, training):
        part.validate()
    check_engine(engine)
    device = open_device(training.device)
    size = TOKENIZER.vocab_size
    stream = course.form == "stream"
    config = _language(model) if stream else EncoderDecoderConfig.from_options(model, size, size)
    examples = Course(course, training.seed)
    _check_memory(config, examples, batches, training, device)
    torch.manual_seed(training.seed)
    network: LanguageModel | EncoderDecoder
    if isinstance(config, LanguageModelConfig):
        network = LanguageModel(config).to(device)
    else:
        network = EncoderDecoder(config).to(device)
    if training.dtype == "float64":
        network = network.double()
    if isinstance(network, LanguageModel):
        return StreamExecuteLearner(network, examples, batches, engine=engine)
    return PairExecuteLearner(network, examples, batches, seed=training.seed, engine=engine)


def _language(model: EncoderDecoderOptions) -> LanguageModelConfig:
    values = {name: getattr(model, name) for name in _SHARED}
    config = LanguageModelConfig(vocab_size=TOKENIZER.vocab_size, initialisation="torch", **values)
    config.validate()
    return config


def _check_memory(
    config: LanguageModelConfig | EncoderDecoderConfig,
    course: Course,
    batches: ExecuteBatchOptions,
    training: TrainOptions,
    device: torch.device,
) -> None:
    """Raise OptionError, with the estimate, if training cannot fit into memory."""
    available = memory_size(device)
    blank: LanguageModel | EncoderDecoder
    if isinstance(config, LanguageModelConfig):
        blank = LanguageModel(config, device="meta")
    else:
        blank = EncoderDecoder(config, device="meta")
    parameters = sum(p.numel() for p in blank.parameters())
    size = 8 if training.dtype == "float64" else 4
    weights = parameters * size * (2 + OPTIMIZERS[training.optimizer].slots)
    width = config.num_layers * config.hidden_size * 8 + 2 * config.embedding_size
    usual = course.fixed("valid")
    steps = int(usual.source.lengths.max() + usual.target.lengths.max())
    steps = batches.bptt if course.options.form == "stream" else steps
    activations = batches.batch_size * steps * width * size
    if available is not None and weights + activations > available:
        raise OptionError(
            f"the model would have {parameters:,} parameters and training it would take about "
            f"{in_bytes(weights + activations)} ({in_bytes(activations)} of it for --batch-size "
            f"{batches.batch_size}), this machine has {in_bytes(available)}: choose smaller sizes"
        )


__all__ = ["PAIRS_ONLY", "ExecuteLearner", "check_given", "execute_learner"]
