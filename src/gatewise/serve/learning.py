"""Learning from a folder while one writes: a process beside a server that trains its run on new text.

    learning = start_learning("runs/mine", "my_notes")
    learning.hold()          # a request came: no step begins within the next second
    learning.pause(); learning.resume(); learning.status(); learning.close()

The process has the lowest priority and one thread, reads the folder, trains a copy of the served checkpoint, and
adds its weights to the run as the best checkpoint only where they cost less on text that was held out. Whoever serves
the run sees its pointer change. Nothing is written outside the run folder (compiled kernels go to the user's cache, as
ever), nothing is sent anywhere. `python -m gatewise.serve.learning RUN FOLDER` is the same without a server.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from gatewise.checkpoint import Checkpoint, RunFolder, RunLog, disk, load_checkpoint
from gatewise.checkpoint.catalogue import Catalogue
from gatewise.checkpoint.contents import BEST, CHECKPOINTS
from gatewise.checkpoint.contents import LOCK as RUN_LOCK
from gatewise.checkpoint.contents import LOG as RUN_LOG
from gatewise.checkpoint.lock import WriterLock
from gatewise.errors import DataError, GatewiseError
from gatewise.run import LanguageRun, load
from gatewise.serve.learning_gate import Closed, Gate
from gatewise.serve.learning_handle import (
    LOCK,
    WORK,
    Learning,
    check_learning,
    line_of,
    start_learning,
)
from gatewise.serve.learning_ledger import HELD, NEITHER, TRAIN, Ledger, digest_of
from gatewise.serve.learning_notes import Notes
from gatewise.serve.learning_options import LearningOptions
from gatewise.serve.learning_priority import lower, woken_at_the_end_of
from gatewise.serve.learning_rehearsal import Rehearsal, rehearsal
from gatewise.serve.learning_round import (
    Material,
    Outcome,
    StaleError,
    identity,
    learn,
    publish,
    served,
)
from gatewise.text.base import display
from gatewise.train import keep_freed_memory

__all__ = [
    "Learner",
    "Learning",
    "LearningOptions",
    "check_learning",
    "line_of",
    "main",
    "start_learning",
]

LOG, LEDGER = "learning.jsonl", "learning.ledger"

_LISTED = 10
_RETRY = 30.0

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
        self._tried: set[int] = set()
        self._unknown: set[str] = set()
        self._log = RunLog(run / LOG, writable=True)
        self._waits = ""
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
                seconds = self._options.poll
            except (GatewiseError, OSError) as error:  # a full disk, a run in use: it may pass
                self._wait_for(str(error))
                seconds = max(_RETRY, self._options.poll)
            self._gate.sleep(seconds)

    def _wait_for(self, message: str) -> None:
        if message != self._waits:
            self._notice(f"learning waits: {message}")
        self._waits = message

    def turn(self) -> str:
        """Look at the folder once; the decision of a round, or "" where none was due."""
        self._gate.wait()
        self._notes.look(self._gate.wait)
        if news := self._notes.news():
            self._notice(news)
        self._follow()
        paragraphs = list(dict.fromkeys(self._notes.paragraphs()))
        placed = self._ledger.place(paragraphs)
        material, untried = self._choose(paragraphs, placed)
        held = sum(map(len, material.held))
        state = {
            "files": self._notes.files,
            "skipped": len(self._notes.skipped),
            "new_characters": sum(map(len, untried)),
            "held_characters": held,
            "left_out": sum(side == NEITHER for _, side in placed),
        }
        due = state["new_characters"] >= self._options.fresh and held >= self._options.held
        self._say("state", state=("learning" if due else "waiting"), **state, **self._totals())
        return self._round(material) if due else ""

    def _follow(self) -> None:
        """Take up another best checkpoint, if the run has one by now."""
        if _best_step(self._run) != self._base.step:
            self._base, self._model = served(self._run)
        known = identity(self._base)
        if self._ledger.base != known:  # another training: what it knows is not known
            self._ledger.base, self._ledger.learnt = known, set()
            self._tried.clear()

    def _choose(
        self, paragraphs: Sequence[str], placed: Sequence[tuple[int, str]]
    ) -> tuple[Material, list[str]]:
        """(what a round would learn from, what of it no round has tried)."""
        learnt, tried = self._ledger.learnt, self._tried
        both = list(zip(paragraphs, placed, strict=True))
        held = [text for text, (_, side) in both if side == HELD]
        known = [text for text, (d, side) in both if side == TRAIN and d in learnt]
        fresh = [(t, d) for t, (d, side) in both if side == TRAIN and d not in learnt]
        fresh.sort(key=lambda each: each[1] in tried)  # stable: what was not tried comes first
        taken, room = [], self._options.most
        for text, digest in fresh:
            if room <= 0:
                break
            room -= len(text)
            taken.append((text, digest))
        untried = [text for text, digest in taken if digest not in tried]
        order = {text: at for at, text in enumerate(paragraphs)}
        chosen = sorted((text for text, _ in taken), key=order.__getitem__)
        return Material(chosen, known, held), untried

    def _round(self, material: Material) -> str:
        WriterLock(self._run, RUN_LOCK).close()  # who trains in the run is let finish
        self._note_unknown(material)
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
        if decision not in ("taken over", "stale"):
            self._tried.update(map(digest_of, material.fresh))
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
        ledger.published, ledger.base = left, identity(self._base)
        ledger.learnt.update(map(digest_of, material.fresh))
        ledger.save()
        return "taken over"

    def _rehearsal(self) -> Rehearsal:
        """Of the newest checkpoint that learning has not made; drawn or read once for each."""
        first = self._first()
        if self._own is None or self._own[0] != first.step:
            self._own = first.step, rehearsal(first, self._options.seed, self._gate.wait)
        return self._own[1]

    def _first(self) -> LanguageRun:
        if self._base.step not in self._ledger.published:
            return self._model
        folder = RunFolder.open(self._run)
        before = [s for s in folder.checkpoints() if s not in self._ledger.published]
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


def _loaded(checkpoint: Checkpoint) -> LanguageRun:
    run = load(checkpoint.path)
    assert isinstance(run, LanguageRun)
    return run


def main(words: Sequence[str] | None = None) -> int:
    """`python -m gatewise.serve.learning RUN FOLDER`: learn until told to end; events as lines of JSON.

    Args:
        words: of the command line; default: this process's.
    Returns:
        the exit status.
    """
    given = _parser().parse_args(words)
    names = [field.name for field in dataclasses.fields(LearningOptions)]
    options = LearningOptions(**{name: getattr(given, name) for name in names})
    lower()
    keep_freed_memory()
    gate, code = Gate(), 0

    def end(number: int, _: Any) -> None:
        nonlocal code
        code = 128 + number
        gate.close()

    signal.signal(signal.SIGTERM, end)
    # Ctrl-C in a terminal reaches the server too, and that ends what it controls
    signal.signal(signal.SIGINT, signal.SIG_IGN if given.controlled else end)
    if given.controlled:
        threading.Thread(target=gate.obey, args=(sys.stdin,), daemon=True).start()
        with contextlib.suppress(BrokenPipeError):
            tell({"event": "ready", "stoppable": woken_at_the_end_of(given.controlled)})
    failure: list[BaseException] = []
    work = threading.Thread(target=_work, args=(given.run, given.folder, options, gate, failure))
    work.start()
    work.join()
    return exit_code_of(failure[0]) if failure else code


def _work(
    run: Path, folder: Path, options: LearningOptions, gate: Gate, failure: list[BaseException]
) -> None:
    """All of the work, in a thread beside the one that takes signals."""
    torch.set_num_threads(1)  # each thread has a setting of its own
    try:
        with contextlib.ExitStack() as stack:
            if (run / CHECKPOINTS).is_dir():  # else the learner says what is wrong
                stack.callback(WriterLock(run, LOCK).close)
            learner = Learner(run, folder, options, gate, tell)
            stack.callback(learner.close)
            learner.live()
    except Closed:
        return
    except BrokenPipeError:  # who listened is gone
        return
    except BaseException as error:
        failure.append(error)
        with contextlib.suppress(OSError):
            tell({"event": "failed", "message": _message_of(error)})


def _message_of(error: BaseException) -> str:
    """Of an error of gatewise what it says; of another one its place only: it may hold the user's text."""
    if isinstance(error, GatewiseError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    return f"an error in gatewise itself: {type(error).__name__} at {where}"


def exit_code_of(error: BaseException) -> int:
    """The exit status for an error that ended the process."""
    return error.exit_code if isinstance(error, GatewiseError) else 1


def tell(event: dict[str, Any]) -> None:
    """An event as a line on standard output."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m gatewise.serve.learning", allow_abbrev=False)
    parser.add_argument("run", type=Path, help="the run folder that is served")
    parser.add_argument("folder", type=Path, help="the folder of texts to learn from")
    parser.add_argument(
        "--controlled",
        type=int,
        default=0,
        metavar="PID",
        help="orders of that process come on standard input",
    )
    for field in dataclasses.fields(LearningOptions):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default)
    return parser


if __name__ == "__main__":
    status = main()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(status)  # what a process of the lowest priority tidies up takes long on a busy machine
