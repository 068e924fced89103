"""The lecture's mappings: models that turn sequences or vectors into sequences or vectors."""

from gatewise.mappings.learner import Batch, Learner, Loss
from gatewise.mappings.options import LanguageModelConfig, LanguageModelOptions
from gatewise.mappings.seq_to_seq import LanguageModel, LanguageOutput, LossOutput
from gatewise.mappings.streams import LanguageLearner, StreamOptions, evaluate_stream

__all__ = [
    "Batch",
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
