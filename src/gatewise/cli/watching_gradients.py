"""`gatewise train lm --watch gradients`: how far back a model looks while it learns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewise.checkpoint.disk import replace_file
from gatewise.checkpoint.writing import save_error
from gatewise.cli.watching import Write
from gatewise.insight import profile_of, windows_of
from gatewise.mappings import LanguageLearner
from gatewise.train import Started, Watcher

if TYPE_CHECKING:
    from gatewise.gradients import Profile

GRADIENTS = "gradients.jsonl"
_LAGS, _PLACES, _ENOUGH, _GROWS = 200, 16, 16, 0.02


class GradientWatcher(Watcher):
    """Follows how far back the model looks while it learns.

    At each line of the log the profile by lag is taken on the same places of the training text, and written to
    `gradients.jsonl` in the run's folder, with the gradient's norm at that step and whether it was clipped; what is
    no finite number is null. What vanishes or explodes is said once, with what to do. It draws no random numbers:
    the run stays the same.

    Args:
        learner: with the model as it is.
        folder: of the run.
        clip_norm: what the gradient is clipped to; 0 or None: not.
        write: called with a warning.
    """

    def __init__(
        self, learner: LanguageLearner, folder: Path, clip_norm: float | None, write: Write
    ) -> None:
        ids = learner.corpus.splits["train"].ids
        self._lags = max(1, min(learner.options.bptt, _LAGS, (len(ids) - 2) // 2))
        self._tokens = windows_of(ids, self._lags, _PLACES)
        self._model, self._write = learner.model, write
        self._path, self._clip = folder / GRADIENTS, clip_norm or math.inf
        self._said: set[str] = set()

    def started(self, event: Started) -> None:
        """A run that is taken up goes on behind its last step; what a kill left of a line is dropped."""
        if not self._path.exists():
            return
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
            kept = [line for line in lines if _step(line) <= event.step]
            replace_file(self._path, b"".join(kept))
        except OSError as error:
            raise save_error(f"cannot write {self._path}", error) from None

    def logged(self, record: dict[str, Any]) -> None:
        if record.get("kind") != "train":
            return
        found, _ = profile_of(self._model, self._tokens.to(self._model.device))
        profile = found.profile
        norm = record.get("gradient_norm")
        line = {
            "step": record["step"],
            "norms": [_finite(float(f"{one:.4g}")) for one in profile.norms.tolist()],
            "nats_per_step": _finite(profile.decay()),
            "reach": profile.reach(),
            "mean_lag": _finite(profile.mean_lag),
            "gradient_norm": None if norm is None else _finite(norm),
            "clipped": norm is not None and norm > self._clip,
        }
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            raise save_error(f"cannot write {self._path}", error) from None
        self._warn(profile, record["step"])

    def _warn(self, profile: Profile, step: int) -> None:
        decay, reach = profile.decay(), profile.reach()
        if not profile.norms.isfinite().all():
            self._say(
                "explodes",
                f"step {step:,}: gradients are no finite numbers some steps back in time: lower --clip-norm or --lr",
            )
        elif decay > _GROWS:
            self._say(
                "explodes",
                f"step {step:,}: gradients grow by {decay:+.3f} nats a step back in time: lower --clip-norm or --lr",
            )
        elif self._lags >= _ENOUGH and reach < self._lags / 8:
            self._say(
                "vanishes",
                f"step {step:,}: the cost looks back {reach} steps (1 % of its gradient), of {self._lags} that it could: "
                "a gated cell (--cell lstm, gru) or a larger --forget-bias keeps more",
            )

    def _say(self, what: str, line: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._write(f"note: {line}")


def _step(line: bytes) -> float:
    """The step of a line; infinity if it is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
