"""A run between two steps: where it is, and its way into a folder and back.

What a `Session` holds is all that a run is; the loop beside it only moves it on.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gatewise.checkpoint import Checkpoint, RunFolder, TrainingState
from gatewise.errors import CheckpointError, DivergedError
from gatewise.mappings.learner import Adapting, Ending, Learner
from gatewise.modes import evaluating
from gatewise.optim import join_state, split_state
from gatewise.train.meter import Meter
from gatewise.train.options import TrainOptions
from gatewise.train.resume import compare
from gatewise.train.rule import Rule
from gatewise.train.state import (
    Counters,
    carry,
    environment,
    generator_states,
    restore_generators,
    uses_bfloat16,
)
from gatewise.train.trouble import first_bad_weight
from gatewise.train.watch import Progress, Started, Watcher
from gatewise.types import State, map_state


class Session:
    """A run: model and data, rule, counters, carried state, clock.

    Args:
        learner: model and data.
        run: open for writing.
        options: checked.
        watcher: what is told.
        rank: of this process; only 0 writes.
    """

    def __init__(
        self,
        learner: Learner,
        run: RunFolder,
        options: TrainOptions,
        watcher: Watcher,
        rank: int = 0,
    ) -> None:
        self.learner, self.run, self.options = learner, run, options
        self.watcher, self.rank = watcher, rank
        self.model: nn.Module = learner.model
        self.device = next(self.model.parameters()).device
        self.rule = Rule(self.model, options)
        self.counters = Counters()
        self.state: State = None
        self.meter = Meter()
        self.mixed = uses_bfloat16(options.dtype, self.device)
        self.engine = ""
        self.valid: dict[str, Any] = {}
        self.share_before = 0.0
        self.saved_step, self._saved_at = -1, time.monotonic()
        self.norm = math.nan
        self.shown_nats = math.nan

    def begin(self) -> None:
        """Set seeds, take up what the folder holds, say so."""
        self.model.train()
        # several processes draw different noise, and start from the same weights
        torch.manual_seed(self.options.seed + (self.rank << 32))
        for note in self.run.notes:
            self.watcher.noticed(note)
        if self.run.checkpoints():
            self._resume(self.run.latest())
        elif self.rank == 0:
            self.run.rewind(None)
        self.share_before = self.share()
        self.watcher.started(
            Started(
                self.learner.kind,
                self.counters.step,
                sum(p.numel() for p in self.model.parameters()),
                self.learner.positions,
                _limit(self.options),
                self.run.path,
            )
        )
        if self.counters.step == 0:
            self.save()  # from here on the run's options are in its folder, whatever happens

    def _resume(self, checkpoint: Checkpoint) -> None:
        for note in checkpoint.notes:
            self.watcher.noticed(note)
        for note in compare(checkpoint.config, self._config()):
            self.watcher.noticed(note)
        training = checkpoint.training()
        try:
            self._restore(checkpoint, training)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{checkpoint.path}: its training state does not fit this model: {line}"
            ) from error
        if self.rank == 0:
            self.run.rewind(checkpoint)

    def _restore(self, checkpoint: Checkpoint, training: TrainingState) -> None:
        # copies: a file's bytes may be aligned otherwise than torch's own memory
        meta, tensors = training.meta, {n: t.clone() for n, t in training.tensors.items()}
        self.model.load_state_dict(checkpoint.tensors)
        self.rule.load(join_state(tensors, meta["rule"]))
        dtype = next(self.model.parameters()).dtype  # it may be another one than before
        state = join_state(tensors, meta["state"])
        self.state = carry(map_state(lambda s: s.to(self.device, dtype), state))
        self.counters = Counters.from_dict(meta["counters"])
        restore_generators(tensors, self.device)
        if isinstance(self.learner, Adapting):
            self.learner.take_up(meta["learner"])
        self.valid = dict(meta["valid"])
        self.meter = Meter(float(training.clock.get("seconds", 0.0)))
        self.saved_step = self.counters.step
        self._compare_conditions(meta["environment"])

    def _compare_conditions(self, before: dict[str, Any]) -> None:
        """Say what differs from the conditions of the stored run; its engine is taken up."""
        engine = before.get("engine", "auto")
        if self.learner.engine == "auto" and engine != "auto":
            self.learner.engine = engine
            self.watcher.noticed(f"engine: {engine}, with which the run was begun")
        now = environment(self.mixed, self.learner.engine)
        if before != now:
            self.watcher.noticed(
                f"resumed under other conditions ({before} before, {now} now): "
                "the last bits may differ from an uninterrupted run"
            )

    def epoch(self) -> float:
        """Passes over the data done, with fraction."""
        return self.counters.epoch + self.counters.position / self.learner.positions

    def shares(self) -> dict[str, float]:
        """How much of each limit is used up."""
        options, shares = self.options, {}
        if options.steps is not None:
            shares["steps"] = self.counters.step / options.steps
        if options.epochs is not None:
            shares["epochs"] = self.epoch() / options.epochs
        if options.minutes is not None:
            shares["minutes"] = self.meter.seconds / (60 * options.minutes)
        return shares

    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        return min(1.0, max(self.shares().values()))

    def rule_share(self) -> float:
        """The progress that the schedule follows: of the run, or of its epochs."""
        if self.options.schedule == "step" and self.options.decay_every is not None:
            return self.shares()["epochs"]
        return self.share()

    def reason(self) -> str:
        """The limit that is reached, or ""."""
        patience = self.options.patience
        if patience is not None and self.counters.bad_evaluations >= patience:
            return "patience"
        if isinstance(self.learner, Ending) and self.learner.ended:
            return self.learner.ended
        return next((name for name, share in self.shares().items() if share >= 1), "")

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Eval mode without gradients; randomness and training mode are put back."""
        states = generator_states(self.device)
        try:
            with evaluating(self.model), torch.no_grad():
                yield
        finally:
            restore_generators(states, self.device)

    def train_record(self) -> dict[str, Any]:
        """The numbers of a line of the log."""
        event, counters = self.progress(), self.counters
        return {
            "nats": counters.log_nats / counters.log_steps if counters.log_steps else math.nan,
            "lr": event.lr,
            "gradient_norm": event.gradient_norm,
            "tokens": self.counters.tokens,
            "tokens_per_second": event.tokens_per_second,
            "skipped": event.skipped,
        }

    def progress(self) -> Progress:
        """Where the run is."""
        counters, share = self.counters, self.share()
        return Progress(
            step=counters.step,
            epoch=self.epoch(),
            share=share,
            nats=self.shown_nats,
            lr=self.rule.lr,
            gradient_norm=self.norm,
            tokens_per_second=self.meter.recent(),
            seconds=self.meter.seconds,
            seconds_left=self.meter.left(share, self.share_before),
            skipped=counters.skipped,
            unit=self.learner.unit,
        )

    def log(self, kind: str, values: dict[str, Any]) -> None:
        """Append a line to the log, and tell the watcher."""
        record = {
            "step": self.counters.step,
            "epoch": self.epoch(),
            "kind": kind,
            "seconds": round(self.meter.seconds, 3),
        } | values
        if self.rank == 0:
            self.run.log.append(record)
        with self.meter.paused():
            self.watcher.logged(record)

    def notice(self, line: str) -> None:
        """Say something, and log it."""
        self.log("notice", {"message": line})
        self.watcher.noticed(line)

    def _config(self) -> dict[str, Any]:
        return self.learner.config() | {"training": dataclasses.asdict(self.options)}

    def save_if_due(self) -> None:
        """Write a checkpoint if enough steps or seconds have passed."""
        options, step = self.options, self.counters.step
        by_step = options.checkpoint_every is not None and step % options.checkpoint_every == 0
        seconds = options.checkpoint_seconds
        by_time = bool(seconds) and time.monotonic() - self._saved_at >= (seconds or 0)
        if step > 0 and (by_step or by_time):
            self.save()

    def save(self) -> None:
        """Write a checkpoint, unless this step has one already."""
        counters = self.counters
        if self.rank != 0 or counters.step == self.saved_step:
            return
        bad = first_bad_weight(self.model)
        if bad is not None:
            raise DivergedError(
                f"weight {bad} is not finite after step {counters.step:,}: not saved; "
                "resume from the last checkpoint with a smaller --lr"
            )
        # where weights are averaged, those are what generates; the rule's state keeps the raw ones
        with self.meter.paused(), self.rule.averaged():
            path = self.run.save(
                counters.step,
                config=self._config(),
                tensors=dict(self.model.state_dict()),
                tokenizer_json=self.learner.tokenizer_json(),
                training=self._training_state(),
                best=counters.best_step == counters.step,
                keep=self.options.keep,
            )
        self.saved_step, self._saved_at = counters.step, time.monotonic()
        self.watcher.saved(counters.step, path)

    def _training_state(self) -> TrainingState:
        tensors, rule = split_state(self.rule.state(), "rule")
        carried, state = split_state(self.state, "state")
        meta = {
            "rule": rule,
            "state": state,
            "counters": self.counters.to_dict(),
            "valid": self.valid,
            "environment": environment(self.mixed, self.learner.engine),
        }
        if isinstance(self.learner, Adapting):
            meta["learner"] = self.learner.adapted()
        tensors |= carried | generator_states(self.device)
        return TrainingState(tensors, meta, {"seconds": self.meter.seconds})


def _limit(options: TrainOptions) -> str:
    parts = [
        f"{value:g} {name}"
        for name, value in (
            ("epochs", options.epochs),
            ("minutes", options.minutes),
            ("steps", options.steps),
        )
        if value is not None
    ]
    return " or ".join(parts)
