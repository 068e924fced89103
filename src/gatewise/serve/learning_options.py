"""The options of learning from a folder, checked in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gatewise.errors import OptionError

MOST_PASSES = 100
"""A round's text is laid out for all of its passes at once."""


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """How a served model learns from a folder."""

    poll: float = 5.0
    """Seconds between two looks at the folder."""

    settle: float = 2.0
    """Seconds for which a file must have been left alone before it is read."""

    fresh: int = 2000
    """Characters of new text that a round waits for."""

    held: int = 500
    """Characters that must be held out before a round can be judged."""

    held_share: float = 0.1
    """Share of the paragraphs that are held out."""

    most: int = 200_000
    """Characters of new text that a round takes."""

    passes: int = 4
    """Passes over a round's new text, the learning rate falling to 0."""

    lr: float = 1e-3
    """Learning rate at the beginning of a round."""

    batch_size: int = 16
    """Streams of text read side by side."""

    bptt: int = 64
    """Steps that gradients flow back."""

    rehearsal: float = 0.5
    """Share of a round's text that is not new: what the run was trained on before, and older notes."""

    gain: float = 0.005
    """Nats per token by which the held-out loss must fall."""

    forget: float = 0.1
    """Nats per token by which the cost of the run's own text may rise, in all rounds together."""

    quiet: float = 1.0
    """Seconds without a request before learning goes on."""

    file_bytes: int = 4 << 20
    """Size of the largest file that is read."""

    total_bytes: int = 32 << 20
    """Size of all files that are read."""

    keep: int = 2
    """Learnt checkpoints that are kept; those of training always are."""

    seed: int = 1
    """Seed of all noise."""

    def validate(self) -> None:
        """Raise OptionError, naming the option, if any is outside its range."""
        for name in ("fresh", "held", "most", "passes", "batch_size", "bptt", "keep"):
            _check(name, getattr(self, name), whole=True, least=1)
        if self.passes > MOST_PASSES:
            raise OptionError(f"passes: expected at most {MOST_PASSES}, found {self.passes}")
        for name in ("file_bytes", "total_bytes", "seed"):
            _check(name, getattr(self, name), whole=True, least=0)
        for name in ("poll", "settle", "gain", "forget", "quiet"):
            _check(name, getattr(self, name), whole=False, least=0)
        _check("lr", self.lr, whole=False, least=0)
        for name in ("held_share", "rehearsal"):
            _check(name, getattr(self, name), whole=False, least=0)
            if getattr(self, name) >= 1:
                raise OptionError(f"{name}: expected a share below 1, found {getattr(self, name)}")


def _check(name: str, found: object, *, whole: bool, least: int) -> None:
    kinds = (int,) if whole else (int, float)
    good = isinstance(found, kinds) and not isinstance(found, bool) and math.isfinite(found)
    if not good or found < least:  # type: ignore[operator]
        kind = "whole number" if whole else "number"
        raise OptionError(f"{name}: expected a {kind} of {least} or more, found {found!r}")
