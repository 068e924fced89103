"""The one training loop: truncated back-propagation through time, for every mapping.

Between two steps a run is its weights and a `TrainingState`, nothing else: a run that is killed and
taken up again ends with the same bits as one that was not. Limits by the clock (`--minutes`) are the
exception: where they end depends on the machine's speed. The state is carried from chunk to chunk,
detached, and starts anew in each epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gatewise.checkpoint import RunFolder
from gatewise.errors import Interrupted, OptionError
from gatewise.mappings.learner import Adapting, Batch, Figures, Learner, Loss
from gatewise.train.options import TrainOptions
from gatewise.train.replay import Passes, Replayed, Run, can_be_recorded
from gatewise.train.result import TrainResult
from gatewise.train.session import Session
from gatewise.train.signals import StopSignals
from gatewise.train.state import carry
from gatewise.train.trouble import blame, check_skips, is_finite, judge
from gatewise.train.watch import Evaluated, Watcher
from gatewise.types import State

REFRESH = 0.2  # seconds between progress events

Exchange = Callable[[Sequence[Tensor]], None]


def train(
    learner: Learner,
    run: RunFolder,
    options: TrainOptions,
    watcher: Watcher | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
    exchange: Exchange | None = None,
) -> TrainResult:
    """Train `learner.model` until a limit of `options` is reached; saved in `run` on the way.

    A run that holds a checkpoint is continued from its latest one. SIGINT and SIGTERM save the run
    and raise Interrupted; a second one raises at once.

    Args:
        learner: model and data.
        run: open for writing (`RunFolder.create` or `RunFolder.resume`).
        options: limits, rule, intervals.
        watcher: what is told of the progress.
        rank, world_size: this process among several; only rank 0 writes. They take equal numbers
            of columns (`LanguageLearner`), and must all be given the same options.
        exchange: makes the gradients of all processes their mean, in place; needed with several.
    Raises:
        OptionError: an option is outside its range or does not fit the run.
        CheckpointError: the run cannot be read or written.
        DivergedError: too many steps in a row had to be skipped.
        Interrupted: stopped by a signal, the run saved.
    """
    if (world_size > 1) != (exchange is not None):
        raise OptionError("expected an exchange of gradients with several processes, and only then")
    options.validate(has_validation=learner.has_part("valid"))
    if world_size > 1:
        _check_several(run, options)
    loop = _Loop(learner, run, options, watcher or Watcher(), rank, exchange)
    return loop.run_to_end()


def _check_several(run: RunFolder, options: TrainOptions) -> None:
    """Refuse what several processes cannot do alike."""
    if options.minutes is not None:
        raise OptionError("--minutes: several processes would stop at different steps; use --steps")
    if run.checkpoints():
        raise OptionError(
            f"{run.path}: expected a new run for several processes, found a checkpoint: it holds the "
            "carried state of one of them only"
        )


class _Loop(Session):
    """A session that moves: one call of `train`."""

    def __init__(
        self,
        learner: Learner,
        run: RunFolder,
        options: TrainOptions,
        watcher: Watcher,
        rank: int = 0,
        exchange: Exchange | None = None,
    ) -> None:
        super().__init__(learner, run, options, watcher, rank)
        self.exchange = exchange
        self._shown_at = 0.0
        self._compute: Run = self._passes
        if exchange is None and can_be_recorded(learner, self.device):
            parameters = [p for p in self.model.parameters() if p.requires_grad]
            self._compute = Replayed(self._passes, parameters, self.notice)

    def run_to_end(self) -> TrainResult:
        """Train, evaluate, save; the result."""
        result = None
        with StopSignals() as stopped:
            try:
                self.begin()
                reason = self._steps(stopped)
                self._last_evaluation(stopped)
                self.save()
                result = self._result(reason)
            finally:
                self.watcher.finished(result)
        return result

    def _steps(self, stopped: StopSignals) -> str:
        """Run to a limit; its name."""
        while True:
            self._evaluate_if_due(stopped)
            if stopped():
                self._stop(stopped)
            reason = self.reason()
            if reason:
                return reason
            self.save_if_due()
            self._step()
            self._report()

    def _stop(self, stopped: StopSignals) -> None:
        self.watcher.noticed("stopping: saving the run; once more to stop at once")
        self.save()
        raise Interrupted(
            f"interrupted at step {self.counters.step:,}, saved in {self.run.path}: "
            "continue with --resume",
            stopped.exit_code,
        )

    def _step(self) -> None:
        """One step: forward, backward, update; or, if it is not finite, none."""
        counters = self.counters
        batch = self.learner.batch(counters.epoch, counters.position)
        state = self.state if batch.enter is None else batch.enter(self.state)
        found = self._compute(batch, state)
        loss = found.loss
        nats, self.norm = _numbers(loss.nats, found.norm)
        self.engine = loss.engine
        self._advance(batch)
        if math.isfinite(nats) and math.isfinite(self.norm):
            self.rule.update(batch.lr_scale, self.rule_share())
            counters.skips_in_a_row = 0
            self.state = carry(loss.state)
            self._judge(nats)
        else:
            self._skip(batch, loss, nats)
        self.rule.clear()
        if counters.position == 0:
            self.state = None

    def _passes(self, batch: Batch, state: State) -> Passes:
        """Forward and backward; the gradients clipped."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            loss = self.learner.loss(batch, state)
        loss.loss.backward()  # type: ignore[no-untyped-call]
        if self.exchange is not None:
            self.exchange([p.grad for p in self.model.parameters() if p.grad is not None])
        return Passes(loss, self.rule.clip())

    def _advance(self, batch: Batch) -> None:
        counters = self.counters
        counters.step += 1
        counters.tokens += batch.tokens
        self.meter.count(batch.tokens)
        counters.position = batch.stop
        if batch.stop >= self.learner.positions:
            counters.epoch, counters.position = counters.epoch + 1, 0

    def _judge(self, nats: float) -> None:
        known = math.isfinite(self.shown_nats)
        self.shown_nats = 0.9 * self.shown_nats + 0.1 * nats if known else nats
        self.counters.log_nats += nats
        self.counters.log_steps += 1
        line = judge(self.counters, nats, self.learner.uniform_nats)
        if line:
            self.notice(line)

    def _skip(self, batch: Batch, loss: Loss, nats: float) -> None:
        counters = self.counters
        counters.skipped += 1
        counters.skips_in_a_row += 1
        cause = blame(self.model, nats)
        self.state = carry(loss.state) if is_finite(loss.state) else None
        self.notice(check_skips(counters, self.options.max_skips, batch, cause, self.mixed))

    def _evaluate_if_due(self, stopped: StopSignals) -> None:
        counters, every = self.counters, self.options.eval_every
        if counters.step in (0, counters.evaluated):
            return
        due = counters.position == 0 if every is None else counters.step % every == 0
        if due and self.learner.has_part("valid"):
            self._evaluate(stopped, regular=True)

    def _last_evaluation(self, stopped: StopSignals) -> None:
        if self.counters.evaluated != self.counters.step and self.learner.has_part("valid"):
            self._evaluate(stopped, regular=False)
            if stopped():
                self._stop(stopped)

    def _evaluate(self, stopped: StopSignals, *, regular: bool) -> None:
        """Read the validation part; only a regular evaluation moves schedules and patience."""
        counters = self.counters
        with self.meter.paused(), self.undisturbed(), self.rule.averaged() as averaged:
            result = self.learner.evaluate("valid", stopped)
        if result is None:
            return
        nats = result.cost
        self.valid = result.summary()
        counters.evaluated = counters.step
        best = nats < counters.best
        if best:
            counters.best, counters.best_step = nats, counters.step
        if regular:
            counters.bad_evaluations = 0 if best else counters.bad_evaluations + 1
        self.log("valid", self.valid | {"best": best, "averaged": averaged})
        self.watcher.evaluated(
            Evaluated(counters.step, self.epoch(), self.valid, best, averaged, self.meter.seconds)
        )
        if regular:
            self._learn_from(result, nats)
        self.saved_step = -1  # a checkpoint of this step knows nothing of the evaluation
        if best:
            self.save()

    def _learn_from(self, figures: Figures, nats: float) -> None:
        """Let rule and data follow an evaluation."""
        learner = self.learner
        moved = learner.adapt(figures) if isinstance(learner, Adapting) else None
        for line in (self.rule.validation(nats), moved):
            if line:
                self.notice(line)

    def _report(self) -> None:
        counters, options = self.counters, self.options
        if counters.step % options.log_every == 0:
            self.log("train", self.train_record())
            counters.log_nats, counters.log_steps = 0.0, 0
        if options.sample_every is not None and counters.step % options.sample_every == 0:
            with self.meter.paused(), self.undisturbed(), self.rule.averaged():
                self.watcher.sample(counters.step)
        now = time.monotonic()
        if now - self._shown_at >= REFRESH:
            self._shown_at = now
            self.watcher.progress(self.progress())

    def _result(self, reason: str) -> TrainResult:
        counters = self.counters
        return TrainResult(
            steps=counters.step,
            epochs=self.epoch(),
            valid=self.valid,
            best_nats=counters.best if math.isfinite(counters.best) else math.nan,
            best_step=counters.best_step,
            folder=self.run.path,
            parameters=sum(p.numel() for p in self.model.parameters()),
            seconds=self.meter.seconds,
            tokens_per_second=self.meter.tokens_per_second,
            skipped=counters.skipped,
            engine=self.engine,
            reason=reason,
        )


def _numbers(nats: Tensor, norm: Tensor) -> tuple[float, float]:
    """Both as numbers: the one moment in a step that waits for the device."""
    if nats.device.type == "cpu":
        return float(nats), float(norm)
    first, second = torch.stack((nats.double(), norm.to(nats.device).double())).tolist()
    return first, second
