"""Training: the one loop for all mappings, its options, and what watches it."""

from gatewise.train.build import (
    check_names,
    count_parameters,
    language_learner,
    option_values,
    with_values,
)
from gatewise.train.figures import FIGURES, figures_line
from gatewise.train.loop import train
from gatewise.train.memory import keep_freed_memory
from gatewise.train.options import TextOptions, TrainOptions
from gatewise.train.progress import (
    BarProgress,
    PlainProgress,
    duration,
    evaluation_line,
    progress_for,
    progress_line,
    started_line,
)
from gatewise.train.result import TrainResult
from gatewise.train.tensorboard import TensorBoardWatcher
from gatewise.train.watch import Evaluated, Progress, Started, Watcher, Watchers

__all__ = [
    "FIGURES",
    "BarProgress",
    "Evaluated",
    "PlainProgress",
    "Progress",
    "Started",
    "TensorBoardWatcher",
    "TextOptions",
    "TrainOptions",
    "TrainResult",
    "Watcher",
    "Watchers",
    "check_names",
    "count_parameters",
    "duration",
    "evaluation_line",
    "figures_line",
    "keep_freed_memory",
    "language_learner",
    "option_values",
    "progress_for",
    "progress_line",
    "started_line",
    "train",
    "with_values",
]
