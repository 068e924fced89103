"""Sequence to vector: a class or numbers from a whole sequence (the lecture's "learning to execute" side).

    h[t] = Pred(h[t-1], x[t]),  v = readout(h[1], ..., h[T]),  y~ = Dec(v) = W v + b

x is a token's embedding, or the numbers of a step: scaled by the mean and deviation of the training part, and
with a mark for each channel that can be missing. The cost is cross entropy, or for numbers the mean square.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatewise.attention import valid_steps
from gatewise.errors import OptionError, ShapeError
from gatewise.mappings.config import check_choice, check_size, from_dict, to_dict
from gatewise.mappings.readout import READOUTS, Readout
from gatewise.mappings.recurrent import RecurrentOptions, build_stack, dropped
from gatewise.mappings.tokens import check_tokens
from gatewise.probe import Control, Record, Records
from gatewise.types import State

_PREFIXES = 64
"""Prefixes that are read at once."""


@dataclass(frozen=True, kw_only=True)
class VectorOptions(RecurrentOptions):
    """Sizes and regularisation of a model that reads a sequence into a vector."""

    embedding_size: int = 64
    """Width of the token embedding; numbers go in as they are."""

    bidirectional: bool = False
    """Read in both directions."""

    readout: str = "last"
    """What stands for the whole sequence: last, mean, max, or attention over its steps."""

    smoothing: float = 0.0
    """Label smoothing: share of the target spread over all classes."""

    def validate(self) -> None:
        """Raise OptionError, naming the flag, if any option is outside its range."""
        super().validate()
        check_size("embedding_size", self.embedding_size)
        check_choice("readout", self.readout, READOUTS)
        if not 0 <= self.smoothing < 1:
            raise OptionError(
                f"--smoothing: expected a share of at least 0 and below 1, found {self.smoothing}"
            )


@dataclass(frozen=True, kw_only=True)
class VectorConfig(VectorOptions):
    """Everything that such a model is built from; JSON-able by `to_dict`."""

    outputs: int
    """Classes, or numbers."""

    target: str = "class"
    """"class" or "number"."""

    vocab_size: int = 0
    """Tokens; 0: the inputs are numbers."""

    channels: int = 0
    """Numbers of a step."""

    marks: int = 0
    """1: each channel has a mark beside it that says where it is missing."""

    def validate(self) -> None:
        """Raise OptionError if anything is outside its range."""
        super().validate()
        check_choice("target", self.target, ("class", "number"))
        check_size("outputs", self.outputs, least=2 if self.target == "class" else 1)
        check_size("marks", self.marks, 1, 0)
        if (self.vocab_size > 0) == (self.channels > 0):
            raise OptionError("expected inputs that are tokens or numbers, one of the two")

    @classmethod
    def from_options(cls, options: VectorOptions, **sizes: Any) -> VectorConfig:
        """`options` with the sizes that follow from the data."""
        config = cls(**{**vars(options), **sizes})
        config.validate()
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VectorConfig:
        """The config that `to_dict` wrote; OptionError on what does not belong in it."""
        config = from_dict(cls, values, "classifier")
        config.validate()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return to_dict(self)


@dataclass(frozen=True)
class VectorOutput:
    """What the model computes from sequences.

    Attributes:
        scores: (B, K) float32: of classes, or numbers in the units of the targets.
        h: the last layer's outputs, (T, B, H).
        weights: (T, B) of the attention readout, else None.
        state: the last state.
        record: what was asked for, or None.
        engine: name of the engine that ran.
    """

    scores: Tensor
    h: Tensor
    weights: Tensor | None
    state: State
    record: Records | None
    engine: str


class SequenceToVector(nn.Module):
    """A recurrent classifier, or regressor: inputs, Stack, readout, decoder.

    Args:
        config: sizes, readout and regularisation.
        device: of the weights; "meta" for their shapes alone.
    Raises:
        OptionError: if an option is outside its range.
    """

    shift: Tensor
    scale: Tensor
    target_shift: Tensor
    target_scale: Tensor

    def __init__(self, config: VectorConfig, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        config.validate()
        self.config = config
        width = config.embedding_size if config.vocab_size else config.channels * (1 + config.marks)
        self.embedding = (
            nn.Embedding(config.vocab_size, width, device=device) if config.vocab_size else None
        )
        self.stack = build_stack(config, width, bidirectional=config.bidirectional, device=device)
        size = self.stack.output_size
        backward = size // 2 if config.bidirectional else 0
        self.readout = Readout(config.readout, size, backward, device=device)
        self.decoder = nn.Linear(size, config.outputs, device=device)
        for name, count, value in (
            ("shift", config.channels, 0.0),
            ("scale", config.channels, 1.0),
            ("target_shift", config.outputs if config.target == "number" else 0, 0.0),
            ("target_scale", config.outputs if config.target == "number" else 0, 1.0),
        ):
            self.register_buffer(name, torch.full((count,), value, device=device))

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> VectorOutput:
        """Scores of whole sequences.

        Args:
            x: ids (T, B) int64, or numbers (T, B, channels), NaN where one is missing.
            lengths: valid steps of each column (B,); default: all T.
            engine: name of an engine, or "auto".
            record: what to read.
            control: what to set.
        Raises:
            ShapeError: if `x` has another shape than the model's inputs.
            DataError: if a token is not in the vocabulary.
        """
        lengths = None if lengths is None else torch.as_tensor(lengths, device=x.device)
        out = self.stack(
            dropped(self._inputs(x), self.config.dropout, self.training),
            lengths=lengths,
            engine=engine,
            record=record,
            control=control,
        )
        vector, weights = self.readout(out.h, _valid(lengths, x))
        scores = self._decode(dropped(vector, self.config.dropout, self.training))
        return VectorOutput(scores, out.h, weights, out.state, out.record, out.engine)

    @torch.no_grad()
    def over_time(self, x: Tensor, *, engine: str = "auto") -> Tensor:
        """Scores after each step of x (T, B, ...) without padding: (T, B, K).

        A net of one direction reads once; in one of two directions each prefix is read anew, as its
        second direction begins at the prefix's end.
        """
        if not self.config.bidirectional:
            h = self.stack(self._inputs(x), engine=engine).h
            return self._decode(self.readout.over_time(h, _valid(None, x)))
        steps, batch = x.shape[:2]
        found = []
        for column in range(batch):
            scores = []
            for first in range(0, steps, _PREFIXES):
                last = min(first + _PREFIXES, steps)
                ends = torch.arange(first + 1, last + 1, device=x.device)
                prefix = x[:last, column : column + 1]
                prefixes = prefix.expand(-1, len(ends), *x.shape[2:])
                scores.append(self(prefixes, ends, engine=engine).scores)
            found.append(torch.cat(scores) if scores else x.new_zeros(0, self.config.outputs))
        return torch.stack(found, 1)

    def loss(
        self,
        x: Tensor,
        lengths: Tensor | None,
        targets: Tensor,
        weights: Tensor | None = None,
        *,
        engine: str = "auto",
    ) -> tuple[Tensor, VectorOutput]:
        """The mean cost of the targets, and the output.

        Args:
            x, lengths, engine: as in `forward`.
            targets: classes (B,), or numbers (B, K), NaN where one is missing.
            weights: (K,) of the classes in the cost; the mean is weighed too.
        """
        out = self(x, lengths, engine=engine)
        if self.config.target == "class":
            weights = None if weights is None else weights.to(out.scores)
            smoothing = self.config.smoothing if self.training else 0.0
            return F.cross_entropy(out.scores, targets, weights, label_smoothing=smoothing), out
        known = ~targets.isnan()  # of the targets alone: a model that diverges must not look right
        error = (out.scores - targets.to(out.scores)) / self.target_scale.to(out.scores)
        return torch.where(known, error, 0).square().sum() / known.sum().clamp(min=1), out

    def _inputs(self, x: Tensor) -> Tensor:
        config = self.config
        if self.embedding is not None:
            check_tokens(x, config.vocab_size)
            return F.embedding(x, self.embedding.weight)
        if x.dim() != 3 or x.shape[-1] != config.channels:
            raise ShapeError(f"expected numbers (T, B, {config.channels}), found {tuple(x.shape)}")
        scaled = (x.to(self.scale) - self.shift) / self.scale
        missing = scaled.isnan()
        filled = torch.where(missing, 0, scaled)
        return torch.cat((filled, missing.to(filled)), -1) if config.marks else filled

    def _decode(self, vector: Tensor) -> Tensor:
        scores: Tensor = self.decoder(vector)
        scores = scores if scores.dtype == torch.float64 else scores.float()
        if self.config.target == "number":
            scores = scores * self.target_scale.to(scores) + self.target_shift.to(scores)
        return scores


def _valid(lengths: Tensor | None, x: Tensor) -> Tensor:
    """(T, B): all steps, or those before each column's end."""
    found = valid_steps(lengths, x.shape[0])
    if found is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return found
