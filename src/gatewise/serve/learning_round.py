"""One round of learning: from the run's weights on new text, judged on what was held out, and published if better.

Training is the one loop of `gatewise.train`, in a folder of its own inside the run's. Nothing of it is seen by those
who read the run until `publish` has added a whole checkpoint and pointed to it.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.checkpoint import Checkpoint, RunFolder, TrainingState, disk, load_checkpoint
from gatewise.checkpoint.contents import MANIFEST
from gatewise.checkpoint.reading import peek
from gatewise.errors import CheckpointError, DataError, GatewiseError, OptionError
from gatewise.mappings import LanguageLearner, LanguageModel, StreamOptions
from gatewise.mappings.streams import evaluate_stream
from gatewise.metrics import Tally
from gatewise.run import LanguageRun, load
from gatewise.run.language import tokens_of
from gatewise.serve.learning_gate import Gate
from gatewise.serve.learning_options import LearningOptions
from gatewise.serve.learning_rehearsal import Rehearsal
from gatewise.text.corpora import Corpus, Tokens
from gatewise.train import TrainOptions, train

LEARNT = "learnt"
"""What a learnt checkpoint's config says of its learning."""


SHARES = (1.0, 0.5, 0.25)
"""Parts of the way to the trained weights that are tried, where the whole way forgets too much."""


class StaleError(GatewiseError):
    """The run has changed since the round began: what was learnt belongs to another checkpoint."""


@dataclass(frozen=True)
class Material:
    """What a round learns from.

    Args:
        fresh: paragraphs that the checkpoint has not learnt.
        known: those that it has.
        held: those it is judged by.
    """

    fresh: Sequence[str]
    known: Sequence[str]
    held: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """What a round came to; costs in nats per token.

    Attributes:
        decision: "better", "not better" or "forgets".
        before, after: of the held-out notes.
        own_first: of the run's own text, before any learning.
        own_after: the same now.
        own: what that text is.
        share: of the way from the old weights to those that training found.
        steps: of training.
        tokens: of the round's text.
        held_tokens: of the held-out notes.
        tensors: the weights.
    """

    decision: str
    before: float
    after: float
    own_first: float
    own_after: float
    own: str
    share: float
    steps: int
    tokens: int
    held_tokens: int
    tensors: Mapping[str, Tensor]

    def figures(self) -> dict[str, Any]:
        """All but the weights, JSON-able."""
        return {name: value for name, value in vars(self).items() if name != "tensors"}


class PatientLearner(LanguageLearner):
    """A learner that waits at a gate before each step and each window of an evaluation."""

    gate: Gate

    def batch(self, epoch: int, position: int) -> Any:
        """See `LanguageLearner.batch`."""
        self.gate.wait()
        return super().batch(epoch, position)

    def evaluate(self, part: str, stopped: Callable[[], bool] = lambda: False) -> Tally | None:
        """See `LanguageLearner.evaluate`."""
        return super().evaluate(part, _patient(self.gate, stopped))


def learn(
    base: LanguageRun,
    material: Material,
    own: Rehearsal,
    options: LearningOptions,
    gate: Gate,
    work: Path,
) -> Outcome:
    """Train on a round's text in the new folder `work`, and judge.

    Args:
        base: what is served; it is left as it is.
        material: what to learn from.
        own: text of the kind that it was trained on.
        options: how.
        gate: waited at.
        work: a folder that is not there yet.
    """
    model = copy.deepcopy(base.model)
    if next(model.parameters()).dtype in (torch.bfloat16, torch.float16):
        model = model.float()
    held = tokens_of(base.tokenizer, "\n\n".join(material.held))
    ids, columns = _training_ids(base, material, own, options)
    before = _cost(model, held, options, gate)
    # what the run's own text cost before any learning; later rounds keep the figure of the first
    told = base.config.get(LEARNT) or {}
    own_first = told.get("own_first") if told.get("own") == own.kind else None
    if not isinstance(own_first, float):
        own_first = _cost(model, own.judge, options, gate)
    steps, learnt = _train(base, model, (ids, columns), held, options, gate, work)
    decision, share, after, own_after = "not better", 1.0, before, own_first
    tensors: Mapping[str, Tensor] = learnt
    for share in SHARES:
        tensors = _between(base.model.state_dict(), learnt, share)
        model.load_state_dict(tensors)
        after = _cost(model, held, options, gate)
        own_after = _cost(model, own.judge, options, gate)
        if not after <= before - options.gain:  # also where it is no number
            decision = "not better" if share == 1 else decision
            break
        decision = "better" if own_after <= own_first + options.forget else "forgets"
        if decision == "better":
            break
    return Outcome(
        decision,
        before,
        after,
        own_first,
        own_after,
        own.kind,
        share,
        steps,
        ids.size,
        len(held.ids),
        tensors,
    )


def _between(
    old: Mapping[str, Tensor], new: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Weights on the straight line from `old` to `new` (Wortsman et al. 2022): less is learnt, and less forgotten."""
    if share == 1:
        return {name: tensor.clone() for name, tensor in new.items()}
    return {
        name: torch.lerp(old[name].to(tensor.dtype), tensor, share)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in new.items()
    }


def _training_ids(
    base: LanguageRun, material: Material, own: Rehearsal, options: LearningOptions
) -> tuple[np.ndarray[Any, Any], int]:
    """(the ids of all passes, the columns in which to read them).

    Each pass is the new text and beside it, in other columns of the same batches, older notes and rehearsal, in each
    pass other ones.
    """
    fresh = tokens_of(base.tokenizer, "\n\n".join(material.fresh)).ids
    known = tokens_of(base.tokenizer, "\n\n".join(material.known)).ids
    older = Rehearsal(known, own.judge, "")
    room = int(len(fresh) * options.rehearsal / (1 - options.rehearsal))
    passes = []
    for number in range(options.passes):
        seed = options.seed + (base.step << 8) + number
        again = older.some(room // 2, seed)
        passes.append(np.concatenate([fresh, again, own.some(room - len(again), seed)]))
    columns = max(1, min(options.batch_size, len(passes[0]) // (2 * options.bptt)))
    rows = len(passes[0]) // columns
    if rows < 1:
        raise DataError(f"expected at least 1 token of new text, found {len(fresh)}")
    block = np.stack([each[: rows * columns].reshape(columns, rows) for each in passes])
    return block.swapaxes(0, 1).ravel().astype(np.uint32), columns


def _train(
    base: LanguageRun,
    model: LanguageModel,
    text: tuple[np.ndarray[Any, Any], int],
    held: Tokens,
    options: LearningOptions,
    gate: Gate,
    work: Path,
) -> tuple[int, Mapping[str, Tensor]]:
    """(steps, the weights of the pass that did best on `held`)."""
    ids, columns = text
    parts = {"train": Tokens(ids, 0, 0, 0, [("notes", 0)]), "valid": held}
    streams = StreamOptions(
        batch_size=columns, eval_batch_size=_COLUMNS, bptt=options.bptt, drop_state=_DROPPED
    )
    corpus = Corpus(base.tokenizer, parts, "", [], [])
    learner = PatientLearner(model, corpus, streams, seed=options.seed)
    learner.gate = gate
    steps = -(-learner.positions // options.bptt)
    training = TrainOptions(
        epochs=1.0,
        lr=options.lr,
        schedule="cosine",
        warmup=min(20, steps // 10),
        eval_every=max(1, steps // options.passes),
        keep=1,
        checkpoint_seconds=0,
        seed=options.seed + base.step,
        dtype="float64" if next(model.parameters()).dtype == torch.float64 else "auto",
    )
    with RunFolder.create(work) as folder:
        result = train(learner, folder, training)
        best = folder.best()
    return (best.step if math.isfinite(result.best_nats) else result.steps), best.tensors


_DROPPED = 0.02
"""Columns that begin from the start state, as each text does that a writer opens."""
_COLUMNS = 4


def _cost(model: LanguageModel, text: Tokens, options: LearningOptions, gate: Gate) -> float:
    tally = evaluate_stream(model, text, batch_size=_COLUMNS, stopped=_patient(gate))
    assert tally is not None  # the gate never says stop, it raises
    return tally.cost


def _patient(gate: Gate, stopped: Callable[[], bool] = lambda: False) -> Callable[[], bool]:
    def ask() -> bool:
        gate.wait()
        return stopped()

    return ask


def identity(checkpoint: Checkpoint) -> str:
    """What tells a checkpoint from every other: its step and the sum of its manifest.

    Raises:
        StaleError: it is no longer there.
    """
    try:
        manifest = disk.read_small(checkpoint.path / MANIFEST, 1 << 20)
    except (OSError, disk.UnusableFileError):
        raise StaleError(f"{checkpoint.path} is no longer there") from None
    return f"{checkpoint.step}-{hashlib.sha256(manifest).hexdigest()[:32]}"


def publish(
    run: Path,
    base: Checkpoint,
    outcome: Outcome,
    published: Sequence[int],
    keep: int,
) -> tuple[Checkpoint, list[int]]:
    """Add a checkpoint to the run, and point to it: whoever reads the run from here on reads this one.

    Args:
        run: the run folder.
        base: what the round began from.
        outcome: of the round.
        published: steps of the learnt checkpoints that there are.
        keep: how many of those stay; those of training stay all.
    Returns:
        (the checkpoint, the steps of the learnt ones that there are now)
    Raises:
        StaleError: the run has another best checkpoint than `base` by now.
        CheckpointError: it cannot be written, or another process is writing in the run.
    """
    with RunFolder.resume(run) as folder:
        if identity(folder.best()) != identity(base):
            raise StaleError(f"{run} has another best checkpoint than step {base.step:,} by now")
        learnt = learnt_ones(folder, published)
        trained = [step for step in folder.checkpoints() if step not in learnt]
        step = folder.checkpoints()[-1] + outcome.steps
        folder.save(
            step,
            config={**base.config, LEARNT: {"from": base.step, **outcome.figures()}},
            tensors=outcome.tensors,
            tokenizer_json=base.tokenizer_json,
            extra=base.extra,
            training=_training_state(base, step),
            best=True,
        )
        folder.prune(keep, spare=trained)
        left = [s for s in folder.checkpoints() if s not in trained]
        return folder.best(), left


def learnt_ones(folder: RunFolder, published: Sequence[int]) -> list[int]:
    """Those of the steps whose checkpoints are of learning: another training may have come to the same steps."""
    found = []
    for step in published:
        with contextlib.suppress(CheckpointError):
            if LEARNT in peek(folder.checkpoint_path(step))["config"]:
                found.append(step)
    return found


def _training_state(base: Checkpoint, step: int) -> TrainingState | None:
    """The base's own, so that `--resume` can go on from here on the run's own text."""
    if not base.has_training:
        return None
    state = base.training()
    counters = state.meta.get("counters")
    if isinstance(counters, dict):
        state.meta["counters"] = {**counters, "step": step}
    return state


def served(run: Path) -> tuple[Checkpoint, LanguageRun]:
    """The checkpoint that is served, and its run.

    Raises:
        OptionError: the run cannot learn: another mapping, an export.
        CheckpointError: it is not there, or broken.
    """
    checkpoint = load_checkpoint(run, "best")
    if checkpoint.path.resolve() == run.resolve() or "weights" in checkpoint.config:
        raise OptionError(
            f"{run}: expected a run folder to learn in, found an exported checkpoint: "
            "name the run that it was exported from"
        )
    loaded = load(checkpoint.path)
    if not isinstance(loaded, LanguageRun):
        raise OptionError(
            f"{run}: expected a run of mapping 'lm' to learn, found {loaded.mapping!r}: "
            "only language models learn from notes"
        )
    return checkpoint, loaded
