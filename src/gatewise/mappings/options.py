"""The options of a language model, and the config that it is built from and stored with.

Every option is a field with its help; a config is the options and the vocabulary's size, as JSON.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gatewise.errors import OptionError, unknown
from gatewise.mappings.config import (
    MAX_LAYERS,
    check_cell,
    check_choice,
    check_rate,
    check_size,
    flag,
)

_NONLINEARITIES = ("tanh", "sigmoid", "relu")


@dataclass(frozen=True, kw_only=True)
class LanguageModelOptions:
    """Sizes and regularisation of a language model."""

    cell: str = "lstm"
    """Recurrent cell: lstm, gru, gru_paper, rnn_tanh, rnn_relu, lstm_layer_norm, ..."""

    embedding_size: int = 256
    """Width of the token embedding."""

    hidden_size: int = 256
    """Units per layer."""

    hidden_sizes: tuple[int, ...] = ()
    """Units of each layer, where they differ; replaces --hidden-size and --num-layers."""

    num_layers: int = 1
    """Recurrent layers."""

    proj_size: int = 0
    """Project each layer's output to this many units (LSTM only); 0: no projection."""

    tied: bool = False
    """Use the embedding as the decoder's weights; a projection is added where sizes differ."""

    decoder: str = "linear"
    """Decoder: linear (logits = W h + b), or g(W h + b) with g = tanh, sigmoid or relu."""

    softmax: str = "full"
    """full, or adaptive: frequent tokens first, cheaper for large vocabularies."""

    cutoffs: tuple[int, ...] = ()
    """Cluster borders of the adaptive softmax, in tokens; default: by the text's counts."""

    dropout: float = 0.0
    """Dropout on the last layer's output, and where the next two are not given."""

    dropout_input: float | None = None
    """Dropout on the embedded tokens; default: as --dropout."""

    dropout_hidden: float | None = None
    """Dropout between layers; default: as --dropout."""

    dropout_embedding: float = 0.0
    """Share of tokens whose whole embedding is dropped, for one step's batch."""

    locked_dropout: bool = False
    """Use one dropout mask for all times of a batch (variational dropout)."""

    weight_drop: float = 0.0
    """DropConnect: share of recurrent weights dropped, drawn once per batch."""

    zoneout: float = 0.0
    """Share of state units that keep their previous value, drawn per step."""

    activation_penalty: float = 0.0
    """AR: factor on the mean square of the dropped-out output."""

    temporal_penalty: float = 0.0
    """TAR: factor on the mean square of the output's change from step to step."""

    learned_state: bool = False
    """Train the initial state rather than start from zeros."""

    forget_bias: float | None = None
    """Start value of the forget gate's bias (cells that have one); default: as other biases."""

    initialisation: str = "uniform"
    """uniform: embedding and decoder in +-0.1, decoder bias 0; torch: torch.nn's own."""

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Hidden size of each layer."""
        return tuple(self.hidden_sizes) or (self.hidden_size,) * self.num_layers

    @property
    def input_rate(self) -> float:
        """Dropout on the embedded tokens."""
        return self.dropout if self.dropout_input is None else self.dropout_input

    @property
    def hidden_rate(self) -> float:
        """Dropout between layers."""
        return self.dropout if self.dropout_hidden is None else self.dropout_hidden

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        check_cell(self.cell, self.forget_bias)
        check_choice("decoder", self.decoder, ("linear", *_NONLINEARITIES))
        check_choice("softmax", self.softmax, ("full", "adaptive"))
        check_choice("initialisation", self.initialisation, ("uniform", "torch"))
        check_size("embedding_size", self.embedding_size)
        check_size("hidden_size", self.hidden_size)
        check_size("num_layers", self.num_layers, MAX_LAYERS)
        for size in self.hidden_sizes:
            check_size("hidden_sizes", size)
        if len(self.hidden_sizes) > MAX_LAYERS:
            raise OptionError(f"--hidden-sizes: expected at most {MAX_LAYERS} layers")
        if self.proj_size:
            check_size("proj_size", self.proj_size)
        for name in _RATES:
            check_rate(name, getattr(self, name))
        for name in ("activation_penalty", "temporal_penalty"):
            value = getattr(self, name)
            if not (0 <= value < math.inf):
                raise OptionError(f"{flag(name)}: expected a number of at least 0, found {value}")
        if self.softmax == "adaptive" and (self.tied or self.decoder != "linear"):
            raise OptionError("--softmax adaptive: needs --decoder linear and no --tied")


_RATES = (
    "dropout",
    "dropout_input",
    "dropout_hidden",
    "dropout_embedding",
    "weight_drop",
    "zoneout",
)


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(LanguageModelOptions):
    """Everything that a language model is built from; JSON-able by `to_dict`."""

    vocab_size: int

    @classmethod
    def from_options(cls, options: LanguageModelOptions, vocab_size: int) -> LanguageModelConfig:
        """`options` for a vocabulary of `vocab_size` tokens."""
        return cls(vocab_size=vocab_size, **_values(options))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LanguageModelConfig:
        """The config that `to_dict` wrote; OptionError on names or types it does not have."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for name in values:
            if name not in fields:
                raise unknown("language model option", name, fields)
        if "vocab_size" not in values:
            raise OptionError("language model config: expected a vocab_size, found none")
        known = dict(values)
        for name in ("hidden_sizes", "cutoffs"):
            if name in known:
                known[name] = _int_tuple(name, known[name])
        config = cls(**known)
        config.validate()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain values: numbers, strings, lists."""
        values = _values(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def validate(self) -> None:
        """Raise OptionError if anything is outside its range."""
        for field in dataclasses.fields(self):
            value, expected = getattr(self, field.name), _TYPES[str(field.type)]
            if not isinstance(value, expected) or (
                isinstance(value, bool) and bool not in expected
            ):
                raise OptionError(f"{flag(field.name)}: expected {field.type}, found {value!r}")
        super().validate()
        check_size("vocab_size", self.vocab_size, 1 << 31)
        cutoffs = self.cutoffs
        if list(cutoffs) != sorted(set(cutoffs)) or any(
            not 0 < cut < self.vocab_size for cut in cutoffs
        ):
            raise OptionError(
                f"--cutoffs: expected rising numbers between 0 and the vocabulary's size "
                f"{self.vocab_size}, found {list(cutoffs)}"
            )


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "tuple[int, ...]": (tuple,),
}


def _values(options: LanguageModelOptions) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


def _int_tuple(name: str, found: object) -> tuple[int, ...]:
    if not isinstance(found, (list, tuple)) or not all(type(item) is int for item in found):
        raise OptionError(f"{flag(name)}: expected a list of whole numbers, found {found!r}")
    return tuple(found)
