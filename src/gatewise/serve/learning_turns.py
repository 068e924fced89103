"""What a learner does again and again: it looks at the folder, and where there is enough new text, a round."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.checkpoint import Checkpoint, RunFolder, RunLog, disk, load_checkpoint
from gatewise.checkpoint.catalogue import Catalogue
from gatewise.checkpoint.contents import BEST
from gatewise.checkpoint.contents import LOCK as RUN_LOCK
from gatewise.checkpoint.contents import LOG as RUN_LOG
from gatewise.checkpoint.lock import WriterLock
from gatewise.errors import DataError, GatewiseError
from gatewise.run import LanguageRun, load
from gatewise.run.language import tokens_of
from gatewise.serve.learning_gate import Gate
from gatewise.serve.learning_handle import WORK
from gatewise.serve.learning_ledger import HELD, NEITHER, TRAIN, Ledger, digest_of
from gatewise.serve.learning_notes import Notes
from gatewise.serve.learning_options import LearningOptions
from gatewise.serve.learning_rehearsal import Rehearsal, rehearsal
from gatewise.serve.learning_round import (
    Material,
    Outcome,
    StaleError,
    identity,
    learn,
    learnt_ones,
    publish,
    served,
)
from gatewise.text.base import display

LOG, LEDGER = "learning.jsonl", "learning.ledger"

_LISTED = 10
_JUDGED = 100_000
"""Characters of held-out notes by which a round is judged, at most."""
_RETRY, _LONGEST = 30.0, 3600.0
"""Seconds until what went wrong is tried again; twice as long each time a whole round was in vain, up to the second."""
_UNKNOWN = 0.25
"""Share of a paragraph's tokens from which on it is not learnt, if the model does not know them."""
_REST = 20
"""Rest after a look at the folder, in the time that the look has taken."""

Tell = Callable[[dict[str, Any]], None]


class Learner:
    """What the process does, again and again: look, and where there is enough new text, a round.

    Args:
        run: the run folder.
        folder: of the notes.
        options: how; checked here.
        gate: waited at.
        tell: given every event, JSON-able: {"event": "state", ...}, {"event": "notice", "message": ...} or
            {"event": "round", ...}.
    """

    def __init__(
        self, run: Path, folder: Path, options: LearningOptions, gate: Gate, tell: Tell
    ) -> None:
        options.validate()
        if not folder.is_dir():
            raise DataError(f"expected a folder of texts to watch, found none at {folder}")
        self._run, self._options, self._gate, self._tell = run, options, gate, tell
        self._base, self._model = served(run)
        self._notes = Notes(
            folder,
            run,
            file_bytes=options.file_bytes,
            total_bytes=options.total_bytes,
            settle=options.settle,
        )
        self._ledger = Ledger(run / LEDGER, options.held_share)
        self._own: tuple[int, Rehearsal] | None = None
        self._unknown: set[str] = set()
        self._strange: dict[int, bool] = {}
        self._log = RunLog(run / LOG, writable=True)
        self._waits = ""
        self._idle, self._looked, self._failed = False, 0.0, 0
        self._told_strange = False
        self.rounds = self.taken = 0
        disk.remove_tree(run / WORK)  # of a round that was killed
        if self._ledger.note:
            self._notice(self._ledger.note)

    def live(self) -> None:
        """Go on for ever.

        Raises:
            Closed: learning was told to end.
        """
        while True:
            try:
                self.turn()
                seconds = max(self._options.poll, _REST * self._looked)
            except (GatewiseError, OSError) as error:  # a full disk, a run in use: it may pass
                self._wait_for(str(error))
                seconds = max(self._options.poll, min(_RETRY * 2**self._failed, _LONGEST))
            self._gate.sleep(seconds)

    def _wait_for(self, message: str) -> None:
        if message != self._waits:
            self._notice(f"learning waits: {message}")
        self._waits = message

    def turn(self) -> str:
        """Look at the folder once; the decision of a round, or "" where none was due."""
        self._gate.wait()
        begin = time.thread_time()
        if self._notes.look(self._gate.wait):
            self._idle = False
        if news := self._notes.news():
            self._notice(news)
        if not self._follow() and self._idle:
            self._looked = time.thread_time() - begin
            return ""
        self._idle = False
        paragraphs = list(dict.fromkeys(self._notes.paragraphs()))
        placed = self._ledger.place(paragraphs, self._gate.wait)
        placed = self._without_strange(paragraphs, placed)
        material, new = self._choose(paragraphs, placed)
        held = sum(
            len(text) for text, (_, side) in zip(paragraphs, placed, strict=True) if side == HELD
        )
        state = {
            "files": self._notes.files,
            "skipped": len(self._notes.skipped),
            "new_characters": new,
            "held_characters": held,
            "left_out": sum(side == NEITHER for _, side in placed),
        }
        due = new >= self._options.fresh and held >= self._options.held
        self._say("state", state=("learning" if due else "waiting"), **state, **self._totals())
        self._looked = time.thread_time() - begin
        if due:
            return self._round(material)
        self._idle = True
        return ""

    def _follow(self) -> bool:
        """Take up another best checkpoint, if the run has one by now; whether it had."""
        if _best_step(self._run) != self._base.step:
            self._base, self._model = served(self._run)
        known = identity(self._base)
        if self._ledger.base == known:
            return False
        self._ledger.begin_anew(known)
        self._strange = {}
        return True

    def _without_strange(
        self, paragraphs: Sequence[str], placed: Sequence[tuple[int, str]]
    ) -> list[tuple[int, str]]:
        """The sides, but "neither" for what this model can hardly read: it would learn what is unknown."""
        tokenizer, known = self._model.tokenizer, self._strange
        self._strange, found = {}, []
        for text, (digest, side) in zip(paragraphs, placed, strict=True):
            if digest not in known:
                self._gate.wait()
                tokens = tokens_of(tokenizer, text)
                known[digest] = tokens.unknown > _UNKNOWN * len(tokens.ids)
            self._strange[digest] = known[digest]
            found.append((digest, NEITHER if known[digest] else side))
        count = sum(self._strange.values())
        if count and not self._told_strange:
            self._notice(
                f"{count:,} paragraphs are left out: the model knows too few of their characters or words"
            )
        self._told_strange = bool(count)
        return found

    def _choose(
        self, paragraphs: Sequence[str], placed: Sequence[tuple[int, str]]
    ) -> tuple[Material, int]:
        """(what a round would learn from, characters of it that no round has read)."""
        learnt, tried = self._ledger.learnt, self._ledger.tried
        both = [(text, *at) for text, at in zip(paragraphs, placed, strict=True)]
        # the same ones of a large folder each time, whatever is added
        held = _some(sorted((d, t) for t, d, side in both if side == HELD), _JUDGED)
        # other ones each time
        turn = np.random.default_rng(self._options.seed + self._base.step)
        known = [(d, t) for t, d, side in both if side == TRAIN and d in learnt]
        known = [known[at] for at in turn.permutation(len(known))]
        fresh = [(d, t) for t, d, side in both if side == TRAIN and d not in learnt]
        fresh.sort(key=lambda each: each[0] in tried)  # stable: what was not tried comes first
        taken = _some(fresh, self._options.most)
        new = sum(self._ledger.news(d, len(t)) for d, t in taken.items() if d not in tried)
        known_some = _some(known, self._options.most)
        texts = [[t for t, d, _ in both if d in some] for some in (taken, known_some, held)]
        return Material(*texts), new

    def _round(self, material: Material) -> str:
        WriterLock(self._run, RUN_LOCK).close()  # who trains in the run is let finish
        self._ledger.save()  # before anything is learnt or judged
        self._note_unknown(material)
        self._failed += 1  # until it has come to its end
        work, before = self._run / WORK, self._base.step
        try:
            outcome = learn(
                self._model, material, self._rehearsal(), self._options, self._gate, work
            )
            self.rounds += 1
            decision = outcome.decision
            if decision == "better":
                decision = self._publish(outcome, material)
        finally:
            disk.remove_tree(work)
        self._failed, self._waits = 0, ""
        if decision not in ("taken over", "stale"):
            self._ledger.note_tried(map(digest_of, material.fresh))
        event = {**outcome.figures(), "decision": decision, "from": before, "to": self._base.step}
        self._log.append({"time": datetime.now(timezone.utc).isoformat(), **event})
        self._say("round", **event, **self._totals())
        return decision

    def _publish(self, outcome: Outcome, material: Material) -> str:
        ledger, keep = self._ledger, self._options.keep
        try:
            self._base, left = publish(self._run, self._base, outcome, ledger.published, keep)
        except StaleError:
            return "stale"
        self.taken += 1
        self._model = _loaded(self._base)
        ledger.published = left
        ledger.note_learnt(map(digest_of, material.fresh), identity(self._base))
        ledger.save()
        return "taken over"

    def _rehearsal(self) -> Rehearsal:
        """Of the newest checkpoint that learning has not made; drawn or read once for each."""
        first = self._first()
        if self._own is None or self._own[0] != first.step:
            self._own = first.step, rehearsal(first, self._options.seed, self._gate.wait)
        return self._own[1]

    def _first(self) -> LanguageRun:
        folder = RunFolder.open(self._run)
        learnt = learnt_ones(folder, self._ledger.published)
        if self._base.step not in learnt:
            return self._model
        before = [s for s in folder.checkpoints() if s not in learnt]
        if not before:
            return self._model
        return _loaded(load_checkpoint(folder.checkpoint_path(before[-1])))

    def _note_unknown(self, material: Material) -> None:
        text = "\n".join((*material.fresh, *material.held))
        new = [u for u in self._model.tokenizer.unknowns(text) if u not in self._unknown]
        self._unknown.update(new)
        if (
            new and self._model.tokenizer.kind == "word"
        ):  # words are the user's text: they are only counted
            self._notice(f"not in the model's vocabulary, read as unknown: {len(new):,} more words")
        elif new:
            shown = ", ".join(repr(display(unit)) for unit in new[:_LISTED])
            more = f" and {len(new) - _LISTED} more" if len(new) > _LISTED else ""
            self._notice(f"not in the model's vocabulary, read as unknown: {shown}{more}")

    def _totals(self) -> dict[str, Any]:
        return {"rounds": self.rounds, "taken_over": self.taken, "step": self._base.step}

    def _notice(self, message: str) -> None:
        self._say("notice", message=message)

    def _say(self, event: str, **values: Any) -> None:
        self._tell({"event": event, **values})

    def close(self) -> None:
        """Let go of the log, and of what a round has begun."""
        self._log.close()
        disk.remove_tree(self._run / WORK)


def _best_step(run: Path) -> int | None:
    """The step of the best checkpoint, found without its weights."""
    order = Catalogue(run, RunLog(run / RUN_LOG)).order(BEST, [])
    return int(order[0]) if order else None


def _some(texts: Sequence[tuple[int, str]], most: int) -> dict[int, str]:
    """The first ones by their digests, up to a number of characters; one at least, if there is one."""
    taken: dict[int, str] = {}
    for digest, text in texts:
        if most <= 0:
            break
        most -= len(text)
        taken[digest] = text
    return taken


def _loaded(checkpoint: Checkpoint) -> LanguageRun:
    run = load(checkpoint.path)
    assert isinstance(run, LanguageRun)
    return run
