"""The options of a training run: every one a field with its help, checked in one place.

Batches and chunk lengths belong to the mapping (`mappings.StreamOptions`), sizes and dropout to the
model (`mappings.LanguageModelOptions`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gatewise.errors import OptionError
from gatewise.optim import OPTIMIZERS, SCHEDULES
from gatewise.text.corpora import Corpus, build_corpus
from gatewise.text.reading import Sources

DTYPES = ("auto", "float32", "bfloat16", "float64")


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How texts become tokens."""

    tokenizer: str = "char"
    """char, byte, word (with <eos> per line), or bpe."""

    vocab_size: int | None = None
    """Largest vocabulary; default: all characters or words, 8,192 pieces for bpe."""

    min_count: int = 1
    """Leave out what occurs less often than this in the training text."""

    fractions: tuple[float, ...] = (0.9, 0.05, 0.05)
    """Shares of train, valid and test where no files have those names."""

    errors: str = "strict"
    """Bytes that are not UTF-8: strict stops at them, replace reads on."""

    vocabulary_from: str = "train"
    """Take the vocabulary from train, or from all parts (to compare with other programs)."""

    def corpus(
        self, sources: Sources, *, cache: Path | str | Literal[False] | None = None
    ) -> Corpus:
        """The tokenised parts of the texts in `sources`."""
        return build_corpus(
            sources,
            tokenizer=self.tokenizer,
            vocab_size=self.vocab_size,
            min_count=self.min_count,
            fractions=self.fractions,
            errors=self.errors,
            vocabulary_from=self.vocabulary_from,
            cache=cache,
        )


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a run is trained: for how long, by which rule, what is kept."""

    epochs: float | None = None
    """Stop after this many passes over the training text."""

    minutes: float | None = None
    """Stop after this many minutes of training; such a run cannot be repeated bit for bit."""

    steps: int | None = None
    """Stop after this many steps. The first of the three limits that is reached counts."""

    optimizer: str = "adamw"
    """sgd, adam, adamw, rmsprop, or ntasgd (averages once validation stops improving)."""

    lr: float = 2e-3
    """Learning rate (its peak, where the schedule has one)."""

    weight_decay: float = 0.0
    """Weight decay per step, times the learning rate."""

    momentum: float = 0.0
    """Momentum of sgd and rmsprop."""

    beta1: float = 0.9
    """First moment's decay (adam, adamw)."""

    beta2: float = 0.999
    """Second moment's decay (adam, adamw)."""

    alpha: float = 0.99
    """Decay of the squared gradient's mean (rmsprop)."""

    nonmono: int = 5
    """Evaluations without improvement after which ntasgd begins to average."""

    schedule: str = "constant"
    """constant, cosine, step, or plateau (divide when validation does not improve)."""

    warmup: int = 0
    """Steps in which the learning rate rises linearly to --lr."""

    min_lr: float = 0.0
    """Least learning rate of the cosine and plateau schedules."""

    decay: float = 4.0
    """What the step and plateau schedules divide the learning rate by."""

    decay_every: float | None = None
    """Epochs between two divisions of the step schedule; default: at 1/2 and 3/4 of the run."""

    clip_norm: float | None = 1.0
    """Largest norm of the whole gradient; 0: no limit."""

    clip_value: float | None = None
    """Largest absolute value of a gradient's element; 0: no limit."""

    eval_every: int | None = None
    """Steps between evaluations; default: at the end of each epoch."""

    patience: int | None = None
    """Stop after this many evaluations without improvement."""

    checkpoint_every: int | None = None
    """Steps between checkpoints, beside those at evaluations that improved."""

    checkpoint_seconds: float | None = 60.0
    """Seconds between checkpoints; 0: none by time."""

    keep: int = 2
    """Newest checkpoints to keep; the latest and the best are always kept."""

    log_every: int = 100
    """Steps between lines of the log."""

    sample_every: int | None = None
    """Steps between samples of generated text."""

    max_skips: int = 10
    """Stop after this many steps in a row with a NaN or infinite loss or gradient."""

    seed: int = 1
    """Seed of the initial weights and of all noise."""

    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""

    dtype: str = "float32"
    """float32; bfloat16 (in matrix products, weights stay float32); float64; auto: bfloat16
    where the processor is made for it, else float32."""

    tensorboard: bool = False
    """Write TensorBoard events into the run folder."""

    def validate(self, *, has_validation: bool = True) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range.

        Args:
            has_validation: whether there is a validation part for schedule, patience and averaging.
        """
        self._check_choices()
        self._check_numbers()
        if self.epochs is None and self.minutes is None and self.steps is None:
            raise OptionError("expected --epochs, --minutes or --steps: when should it stop?")
        if self.min_lr > self.lr:
            raise OptionError(f"--min-lr: expected at most --lr {self.lr}, found {self.min_lr}")
        if self.steps is not None and self.warmup > self.steps:
            raise OptionError(
                f"--warmup: expected at most --steps {self.steps}, found {self.warmup}"
            )
        self._check_decay()
        self._refuse_what_has_no_effect()
        if not has_validation:
            self._refuse_without_validation()

    def _check_decay(self) -> None:
        if self.decay_every is None or self.schedule != "step":
            return
        if self.epochs is None:
            raise OptionError("--decay-every: counts in epochs, expected --epochs too")
        if self.epochs / self.decay_every > _MOST_DIVISIONS:
            raise OptionError(
                f"--decay-every: expected at most {_MOST_DIVISIONS} divisions in --epochs "
                f"{self.epochs:g}, found one every {self.decay_every:g}"
            )

    def _refuse_what_has_no_effect(self) -> None:
        if self.momentum and "momentum" not in OPTIMIZERS[self.optimizer].known:
            raise OptionError(f"--momentum: {self.optimizer} has none; leave it out")
        if self.min_lr and "final" not in SCHEDULES[self.schedule].known:
            raise OptionError(f"--min-lr: the {self.schedule} schedule has none; leave it out")

    def _check_choices(self) -> None:
        _choice("--optimizer", self.optimizer, OPTIMIZERS)
        _choice("--schedule", self.schedule, SCHEDULES)
        _choice("--dtype", self.dtype, DTYPES)

    def _check_numbers(self) -> None:
        for name in _COUNTS:
            _whole(_flag(name), getattr(self, name), 1)
        for name in ("warmup", "seed"):
            _whole(_flag(name), getattr(self, name), 0)
        for name in ("epochs", "minutes", "lr", "decay_every"):
            _number(_flag(name), getattr(self, name), positive=True)
        for name in ("weight_decay", "min_lr", "clip_norm", "clip_value", "checkpoint_seconds"):
            _number(_flag(name), getattr(self, name))
        for name in ("momentum", "beta1", "beta2", "alpha"):
            _number(_flag(name), getattr(self, name), below=1.0)
        if not 1 < self.decay < math.inf:
            raise OptionError(f"--decay: expected a number above 1, found {self.decay}")

    def _refuse_without_validation(self) -> None:
        for needs, flag in (
            (self.schedule == "plateau", "--schedule plateau"),
            (self.optimizer == "ntasgd", "--optimizer ntasgd"),
            (self.patience is not None, "--patience"),
        ):
            if needs:
                raise OptionError(f"{flag}: needs a validation part, found none: add a valid file")


_MOST_DIVISIONS = 10_000
_COUNTS = (
    "steps",
    "nonmono",
    "eval_every",
    "patience",
    "checkpoint_every",
    "keep",
    "log_every",
    "sample_every",
    "max_skips",
)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _choice(flag: str, found: str, valid: Iterable[str]) -> None:
    if found not in valid:
        raise OptionError(f"{flag}: expected one of {', '.join(valid)}, found {found!r}")


def _whole(flag: str, found: int | None, least: int) -> None:
    if found is None:
        return
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found < 1 << 63:
        raise OptionError(f"{flag}: expected a whole number of at least {least}, found {found}")


def _number(
    flag: str, found: float | None, *, positive: bool = False, below: float = math.inf
) -> None:
    if found is None or (0 < found < below) or (found == 0 and not positive):
        return
    least = "above 0" if positive else "of at least 0"
    most = "" if below == math.inf else f" and below {below:g}"
    raise OptionError(f"{flag}: expected a number {least}{most}, found {found}")
