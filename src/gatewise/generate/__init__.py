"""Continuing a sequence of tokens: sampling, beam search, and where a text ends."""

from gatewise.generate.beam import Hypothesis, beam_search
from gatewise.generate.choose import draw, filtered
from gatewise.generate.context import Context, Stepper, TokenModel, read
from gatewise.generate.endings import Writer
from gatewise.generate.options import SamplingOptions
from gatewise.generate.sampling import Generation, Sample, Step, first_input, generate

__all__ = [
    "Context",
    "Generation",
    "Hypothesis",
    "Sample",
    "SamplingOptions",
    "Step",
    "Stepper",
    "TokenModel",
    "Writer",
    "beam_search",
    "draw",
    "filtered",
    "first_input",
    "generate",
    "read",
]
