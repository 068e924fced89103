"""Figures of an evaluation for people: which are shown, in which order, with how many digits and what unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """How one figure is shown: as `1,234.50 unit`."""

    digits: int
    unit: str


FIGURES: Mapping[str, Figure] = {
    "nats_per_token": Figure(4, "nats/token"),
    "perplexity": Figure(2, "perplexity"),
    "bits_per_character": Figure(4, "bits/char"),
    "nats_per_character": Figure(4, "nats/char"),
    "nats": Figure(4, "nats"),
    "accuracy": Figure(4, "accuracy"),
    "sequences_right": Figure(4, "of sequences right"),
    "mean_error": Figure(4, "mean error"),
    "macro_f1": Figure(4, "macro-F1"),
    "span_f1": Figure(4, "span F1"),
    "character_accuracy": Figure(4, "of characters right"),
    "exact": Figure(4, "of answers right"),
    "mse": Figure(5, "MSE"),
    "rmse": Figure(4, "RMSE"),
    "mae": Figure(4, "MAE"),
    "mase": Figure(4, "MASE"),
    "crps": Figure(4, "CRPS"),
    "bleu": Figure(2, "BLEU"),
}
"""Name in the summary of a tally -> how it is shown; in this order."""


def figures_line(figures: Mapping[str, Any], names: tuple[str, ...] | None = None) -> str:
    """`1.5395 nats/token, 4.66 perplexity`; "" where no figure is finite.

    Args:
        figures: a tally's summary.
        names: which, in their order; default: all that there are.
    """
    return ", ".join(
        f"{figures[name]:,.{FIGURES[name].digits}f} {FIGURES[name].unit}"
        for name in names or FIGURES
        if figures.get(name) is not None
    )
