"""From options to a learner: sizes checked against this machine's memory, seeds set, model built."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from gatewise.engine import check_engine
from gatewise.errors import OptionError, unknown
from gatewise.mappings.options import LanguageModelConfig, LanguageModelOptions
from gatewise.mappings.seq_to_seq import LanguageModel
from gatewise.mappings.streams import LanguageLearner, StreamOptions
from gatewise.optim import OPTIMIZERS
from gatewise.text.corpora import Corpus
from gatewise.train.options import TextOptions, TrainOptions

_COUNTED = 1 << 24  # tokens read at a time while counting

T = TypeVar("T")


def language_learner(
    corpus: Corpus,
    model: LanguageModelOptions,
    streams: StreamOptions,
    training: TrainOptions,
    *,
    engine: str = "auto",
    rank: int = 0,
    world_size: int = 1,
) -> LanguageLearner:
    """A new language model for `corpus`, initialised from the seed, ready for `train`.

    Raises:
        OptionError: an option is outside its range, or the model does not fit into memory.
        DataError: there is nothing to train on.
    """
    streams.validate()
    model.validate()
    config = LanguageModelConfig.from_options(model, corpus.tokenizer.vocab_size)
    training.validate()
    check_engine(engine)
    device = open_device(training.device)
    check_memory(config, streams, training, device)
    torch.manual_seed(training.seed)
    counts = token_counts(corpus) if config.softmax == "adaptive" else None
    network = LanguageModel(config, counts).to(device)
    if training.dtype == "float64":
        network = network.double()
    return LanguageLearner(
        network,
        corpus,
        streams,
        seed=training.seed,
        engine=engine,
        rank=rank,
        world_size=world_size,
    )


def option_values(*options: object) -> dict[str, Any]:
    """The values of option dataclasses as one flat mapping, JSON-able."""
    values: dict[str, Any] = {}
    for part in options:
        assert dataclasses.is_dataclass(part) and not isinstance(part, type)
        values |= dataclasses.asdict(part)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def with_values(options: T, values: Mapping[str, Any]) -> T:
    """`options` with those of `values` that are its own; the others are left alone."""
    assert dataclasses.is_dataclass(options)
    names = {field.name for field in dataclasses.fields(options)}
    own = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name in names
    }
    replaced: T = dataclasses.replace(options, **own)  # type: ignore[type-var]
    return replaced


def check_names(values: Mapping[str, Any]) -> None:
    """Raise UnknownNameError if a name in `values` (a preset, a file) is no option."""
    known = {
        field.name
        for kind in (TextOptions, LanguageModelOptions, StreamOptions, TrainOptions)
        for field in dataclasses.fields(kind)
    }
    for name in values:
        if name not in known:
            raise unknown("option", name, known)


def open_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        OptionError: if it is not here.
    """
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("gatewise runs on cpu and cuda")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise OptionError(
            f"--device: expected a device of this machine, found {name!r}: {line}"
        ) from error
    return device


def token_counts(corpus: Corpus) -> Tensor:
    """How often each token occurs in the training part, (V,) int64."""
    ids, size = corpus.splits["train"].ids, corpus.tokenizer.vocab_size
    counts = np.zeros(size, np.int64)
    for start in range(0, len(ids), _COUNTED):
        counts += np.bincount(ids[start : start + _COUNTED], minlength=size)
    return torch.from_numpy(counts)


def count_parameters(config: LanguageModelConfig) -> int:
    """Trained numbers of a model with that config; nothing is allocated."""
    counts = torch.ones(config.vocab_size) if config.softmax == "adaptive" else None
    model = LanguageModel(config, counts, device="meta")
    return sum(p.numel() for p in model.parameters())


def check_memory(
    config: LanguageModelConfig,
    streams: StreamOptions,
    training: TrainOptions,
    device: torch.device,
) -> None:
    """Raise OptionError, with the estimate, if training cannot fit into memory."""
    available = memory_size(device)
    width = sum(config.layer_sizes) * 8 + 2 * config.embedding_size
    parameters = count_parameters(config)
    size = 8 if training.dtype == "float64" else 4
    weights = parameters * size * (2 + OPTIMIZERS[training.optimizer].slots)
    activations = streams.batch_size * streams.bptt * width * size
    if available is not None and weights + activations > available:
        raise OptionError(
            f"the model would have {parameters:,} parameters and training it would take about "
            f"{in_bytes(weights + activations)} ({in_bytes(activations)} of it for --batch-size "
            f"{streams.batch_size} times --bptt {streams.bptt}), this machine has "
            f"{in_bytes(available)}: choose smaller sizes"
        )


def memory_size(device: torch.device) -> int | None:
    """Bytes that training may take on `device`; None where it cannot be known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def in_bytes(count: float) -> str:
    """1.5 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.0f} PB"
