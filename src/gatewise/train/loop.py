"""The one training loop: truncated back-propagation through time, for every mapping.

Between two steps a run is its weights and a `TrainingState`, nothing else: a run that is killed and
taken up again ends with the same bits as one that was not. Limits by the clock (`--minutes`) are the
exception: where they end depends on the machine's speed. The state is carried from chunk to chunk,
detached, and starts anew in each epoch.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.checkpoint import Checkpoint, RunFolder, TrainingState
from gatewise.errors import CheckpointError, DivergedError, Interrupted, OptionError
from gatewise.mappings.learner import Batch, Learner, Loss
from gatewise.optim import join_state, split_state
from gatewise.train.meter import Meter
from gatewise.train.options import TrainOptions
from gatewise.train.rule import Rule
from gatewise.train.signals import StopSignals
from gatewise.train.state import (
    Counters,
    carry,
    environment,
    generator_states,
    restore_generators,
    uses_bfloat16,
)
from gatewise.train.trouble import blame, check_skips, first_bad_weight, is_finite, judge
from gatewise.train.watch import Evaluated, Progress, Started, Watcher
from gatewise.types import State, map_state

REFRESH = 0.2  # seconds between progress events

Exchange = Callable[[Sequence[Tensor]], None]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        steps, epochs: done, earlier parts of a resumed run included.
        valid: figures of the last evaluation, empty without a validation part.
        best_nats: lowest mean nats per prediction on the validation part; NaN without one.
        best_step: when; -1 without one.
        folder: of the run.
        parameters: number of trained numbers.
        seconds: since the start, evaluations and saving included.
        tokens_per_second: of this process's training steps alone.
        skipped: steps without an update.
        engine: name of the engine that ran.
        reason: why it ended: "epochs", "minutes", "steps" or "patience".
    """

    steps: int
    epochs: float
    valid: dict[str, float]
    best_nats: float
    best_step: int
    folder: Path
    parameters: int
    seconds: float
    tokens_per_second: float
    skipped: int
    engine: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self) | {"folder": str(self.folder)}


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
    loop = _Loop(learner, run, options, watcher or Watcher(), rank, exchange)
    return loop.run_to_end()


class _Loop:
    """One call of `train`."""

    def __init__(
        self,
        learner: Learner,
        run: RunFolder,
        options: TrainOptions,
        watcher: Watcher,
        rank: int,
        exchange: Exchange | None,
    ) -> None:
        self.learner, self.run, self.options = learner, run, options
        self.watcher, self.rank, self.exchange = watcher, rank, exchange
        self.model: nn.Module = learner.model
        self.device = next(self.model.parameters()).device
        self.rule = Rule(self.model, options)
        self.counters = Counters()
        self.state: State = None
        self.meter = Meter()
        self.mixed = uses_bfloat16(options.dtype, self.device)
        self.engine = ""
        self.valid: dict[str, float] = {}
        self.share_before = 0.0
        self._saved_step, self._saved_at = -1, time.monotonic()
        self._shown_at = 0.0
        self._norm = math.nan

    def run_to_end(self) -> TrainResult:
        """Train, evaluate, save; the result."""
        result = None
        with StopSignals() as stopped:
            try:
                self._begin()
                reason = self._steps(stopped)
                self._last_evaluation(stopped)
                self._save()
                result = self._result(reason)
            finally:
                self.watcher.finished(result)
        return result

    # ---- beginning

    def _begin(self) -> None:
        self.model.train()
        # several processes draw different noise, and start from the same weights
        torch.manual_seed(self.options.seed + (self.rank << 32))
        for note in self.run.notes:
            self.watcher.noticed(note)
        if self.run.checkpoints():
            self._resume(self.run.latest())
        elif self.rank == 0:
            self.run.rewind(None)
        self.share_before = self._share()
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
        self.state = carry(_to(join_state(tensors, meta["state"]), self.device))
        self.counters = Counters.from_dict(meta["counters"])
        restore_generators(tensors, self.device)
        self.valid = dict(meta["valid"])
        self.meter = Meter(float(training.clock.get("seconds", 0.0)))
        self._saved_step = self.counters.step
        if meta["environment"] != environment(self.mixed):
            self.watcher.noticed(
                f"resumed under other conditions ({meta['environment']} before, {environment(self.mixed)} "
                "now): the last bits may differ from an uninterrupted run"
            )

    # ---- steps

    def _steps(self, stopped: StopSignals) -> str:
        """Run to a limit; its name."""
        while True:
            self._evaluate_if_due(stopped)
            if stopped():
                self._stop(stopped)
            reason = self._reason()
            if reason:
                return reason
            self._save_if_due()
            self._step()
            self._report()

    def _stop(self, stopped: StopSignals) -> None:
        self.watcher.noticed("stopping: saving the run; once more to stop at once")
        self._save()
        raise Interrupted(
            f"interrupted at step {self.counters.step:,}, saved in {self.run.path}: "
            "continue with --resume",
            stopped.exit_code,
        )

    def _step(self) -> None:
        """One step: forward, backward, update; or, if it is not finite, none."""
        counters = self.counters
        batch = self.learner.batch(counters.epoch, counters.position)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            loss = self.learner.loss(batch, self.state)
        loss.loss.backward()  # type: ignore[no-untyped-call]
        if self.exchange is not None:
            self.exchange([p.grad for p in self.model.parameters() if p.grad is not None])
        nats, self._norm = _numbers(loss.nats, self.rule.clip())
        self.engine = loss.engine
        self._advance(batch)
        if math.isfinite(nats) and math.isfinite(self._norm):
            self.rule.update(batch.lr_scale, self._rule_share())
            counters.skips_in_a_row = 0
            self.state = carry(loss.state)
            self._judge(nats)
        else:
            self._skip(batch, loss, nats)
        self.model.zero_grad(set_to_none=True)
        if counters.position == 0:
            self.state = None

    def _advance(self, batch: Batch) -> None:
        counters = self.counters
        counters.step += 1
        counters.tokens += batch.tokens
        self.meter.count(batch.tokens)
        counters.position = batch.stop
        if batch.stop >= self.learner.positions:
            counters.epoch, counters.position = counters.epoch + 1, 0

    def _judge(self, nats: float) -> None:
        self.counters.log_nats += nats
        self.counters.log_steps += 1
        line = judge(self.counters, nats, self.learner.uniform_nats)
        if line:
            self._notice(line)

    def _skip(self, batch: Batch, loss: Loss, nats: float) -> None:
        counters = self.counters
        counters.skipped += 1
        counters.skips_in_a_row += 1
        cause = blame(self.model, nats)
        self.state = carry(loss.state) if is_finite(loss.state) else None
        self._notice(check_skips(counters, self.options.max_skips, batch, cause))

    # ---- limits

    def _epoch(self) -> float:
        return self.counters.epoch + self.counters.position / self.learner.positions

    def _shares(self) -> dict[str, float]:
        """How much of each limit is used up."""
        options, shares = self.options, {}
        if options.steps is not None:
            shares["steps"] = self.counters.step / options.steps
        if options.epochs is not None:
            shares["epochs"] = self._epoch() / options.epochs
        if options.minutes is not None:
            shares["minutes"] = self.meter.seconds / (60 * options.minutes)
        return shares

    def _share(self) -> float:
        return min(1.0, max(self._shares().values()))

    def _rule_share(self) -> float:
        """The progress that the schedule follows: of the run, or of its epochs."""
        if self.options.schedule == "step" and self.options.decay_every is not None:
            return self._shares()["epochs"]
        return self._share()

    def _reason(self) -> str:
        """The limit that is reached, or ""."""
        if self.counters.early_stop:
            return "patience"
        return next((name for name, share in self._shares().items() if share >= 1), "")

    # ---- evaluation

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
        with self.meter.paused(), self._undisturbed(), self.rule.averaged() as averaged:
            result = self.learner.evaluate("valid", stopped)
        if result is None:
            return
        nats = result.nats_per_token
        self.valid = result.to_dict()
        counters.evaluated = counters.step
        best = nats < counters.best
        if best:
            counters.best, counters.best_step = nats, counters.step
        if regular:
            counters.bad_evaluations = 0 if best else counters.bad_evaluations + 1
            patience = self.options.patience
            counters.early_stop = patience is not None and counters.bad_evaluations >= patience
        self._log("valid", self.valid | {"best": best, "averaged": averaged})
        self.watcher.evaluated(
            Evaluated(counters.step, self._epoch(), self.valid, best, averaged, self.meter.seconds)
        )
        line = self.rule.validation(nats) if regular else None
        if line:
            self._notice(line)
        self._saved_step = -1  # a checkpoint of this step knows nothing of the evaluation
        if best:
            self._save()

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Eval mode without gradients; randomness and training mode are put back."""
        states = generator_states(self.device)
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train()
            restore_generators(states, self.device)

    # ---- telling

    def _report(self) -> None:
        counters, options = self.counters, self.options
        if counters.step % options.log_every == 0:
            self._log("train", self._train_record())
            counters.log_nats, counters.log_steps = 0.0, 0
        if options.sample_every is not None and counters.step % options.sample_every == 0:
            with self.meter.paused(), self._undisturbed():
                self.watcher.sample(counters.step)
        now = time.monotonic()
        if now - self._shown_at >= REFRESH:
            self._shown_at = now
            self.watcher.progress(self._progress())

    def _train_record(self) -> dict[str, Any]:
        event = self._progress()
        return {
            "nats": event.nats,
            "lr": event.lr,
            "gradient_norm": event.gradient_norm,
            "tokens": self.counters.tokens,
            "tokens_per_second": event.tokens_per_second,
            "skipped": event.skipped,
        }

    def _progress(self) -> Progress:
        counters, share = self.counters, self._share()
        steps = counters.log_steps
        return Progress(
            step=counters.step,
            epoch=self._epoch(),
            share=share,
            nats=counters.log_nats / steps if steps else math.nan,
            lr=self.rule.lr,
            gradient_norm=self._norm,
            tokens_per_second=self.meter.recent(),
            seconds=self.meter.seconds,
            seconds_left=self.meter.left(share, self.share_before),
            skipped=counters.skipped,
        )

    def _log(self, kind: str, values: dict[str, Any]) -> None:
        record = {
            "step": self.counters.step,
            "epoch": self._epoch(),
            "kind": kind,
            "seconds": round(self.meter.seconds, 3),
        } | values
        if self.rank == 0:
            self.run.log.append(record)
        self.watcher.logged(record)

    def _notice(self, line: str) -> None:
        self._log("notice", {"message": line})
        self.watcher.noticed(line)

    # ---- saving

    def _config(self) -> dict[str, Any]:
        return self.learner.config() | {"training": dataclasses.asdict(self.options)}

    def _save_if_due(self) -> None:
        options, step = self.options, self.counters.step
        by_step = options.checkpoint_every is not None and step % options.checkpoint_every == 0
        seconds = options.checkpoint_seconds
        by_time = bool(seconds) and time.monotonic() - self._saved_at >= (seconds or 0)
        if step > 0 and (by_step or by_time):
            self._save()

    def _save(self) -> None:
        """Write a checkpoint, unless this step has one already."""
        counters = self.counters
        if self.rank != 0 or counters.step == self._saved_step:
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
        self._saved_step, self._saved_at = counters.step, time.monotonic()
        self.watcher.saved(counters.step, path)

    def _training_state(self) -> TrainingState:
        tensors, rule = split_state(self.rule.state(), "rule")
        carried, state = split_state(self.state, "state")
        meta = {
            "rule": rule,
            "state": state,
            "counters": self.counters.to_dict(),
            "valid": self.valid,
            "environment": environment(self.mixed),
        }
        tensors |= carried | generator_states(self.device)
        return TrainingState(tensors, meta, {"seconds": self.meter.seconds})

    def _result(self, reason: str) -> TrainResult:
        counters = self.counters
        return TrainResult(
            steps=counters.step,
            epochs=self._epoch(),
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


def compare(stored: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Lines about options that differ from those that a run was begun with.

    Raises:
        OptionError: if model, batches or data are others: no run can go on with those.
    """
    for part in ("mapping", "model", "streams", "data"):
        if stored.get(part) != found.get(part):
            was, now = _first_difference(part, stored.get(part), found.get(part))
            raise OptionError(
                f"the run was begun with {was}, found {now}: resume it with the same, "
                "or begin another with a new --out"
            )
    old, new = stored.get("training", {}), found["training"]
    return [
        f"--{name.replace('_', '-')}: {old[name]} before, now {new[name]}"
        for name in new
        if name in old and old[name] != new[name] and name not in _FREE
    ]


# what may change without changing a step
_FREE = frozenset(
    [
        "epochs",
        "minutes",
        "steps",
        "checkpoint_every",
        "checkpoint_seconds",
        "keep",
        "log_every",
        "sample_every",
        "tensorboard",
        "max_skips",
    ]
)


def _first_difference(part: str, stored: Any, found: Any) -> tuple[str, str]:
    if isinstance(stored, dict) and isinstance(found, dict):
        for name in [*found, *stored]:
            if stored.get(name) != found.get(name):
                return (
                    f"{part} {name} {stored.get(name, 'none')}",
                    f"{found.get(name, 'none')}",
                )
    return f"{part} {stored}", f"{found}"


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


def _numbers(nats: Tensor, norm: Tensor) -> tuple[float, float]:
    """Both as numbers: the one moment in a step that waits for the device."""
    if nats.device.type == "cpu":
        return float(nats), float(norm)
    first, second = torch.stack((nats.double(), norm.to(nats.device).double())).tolist()
    return first, second


def _to(state: State, device: torch.device) -> State:
    return map_state(lambda s: s.to(device), state)
