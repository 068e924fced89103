"""The lecture's mappings: models that turn sequences or vectors into sequences or vectors."""

from gatewise.mappings.learner import Batch, Evaluation, Learner, Loss
from gatewise.mappings.seq_to_seq import (
    LanguageModel,
    LanguageModelConfig,
    LanguageModelOptions,
    LanguageOutput,
    LossOutput,
)
from gatewise.mappings.streams import LanguageLearner, StreamOptions, evaluate_stream

__all__ = [
    "Batch",
    "Evaluation",
    "LanguageLearner",
    "LanguageModel",
    "LanguageModelConfig",
    "LanguageModelOptions",
    "LanguageOutput",
    "Learner",
    "Loss",
    "LossOutput",
    "StreamOptions",
    "evaluate_stream",
]
