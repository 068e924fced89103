"""Which checkpoints a run folder holds, and which of them to read; nothing is written here.

Pointers are a convenience; the checkpoints themselves are the truth. The latest is the newest whole
one, the best is the newest that was saved as best. A pointer that says otherwise (a kill between a
rename and the pointer, a flipped bit) is told in a note and not followed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from gatewise.checkpoint import disk
from gatewise.checkpoint.contents import (
    BEST,
    CHECKPOINTS,
    LATEST,
    LOCK,
    LOG,
    MANIFEST,
    NAME,
    Checkpoint,
    step_name,
)
from gatewise.checkpoint.log import RunLog
from gatewise.checkpoint.reading import OtherFormatError, peek, read_checkpoint
from gatewise.checkpoint.writing import DELETED, REPLACED, TEMPORARY
from gatewise.errors import CheckpointError

_EXPECTED = (
    f"expected a run folder (with {CHECKPOINTS}/ and {LATEST}) or a checkpoint (with {MANIFEST})"
)


class Catalogue:
    """The checkpoints of the run folder `path`, whose log is `log`."""

    def __init__(self, path: Path, log: RunLog) -> None:
        self.path = path
        self.log = log

    def path_of(self, name: str) -> Path:
        """The folder of a checkpoint."""
        return self.paths().get(name, self.path / CHECKPOINTS / name)

    def paths(self) -> dict[str, Path]:
        """Where each checkpoint is; while one is replaced, the old one under its passing name."""
        found: dict[str, Path] = {}
        folder = self.path / CHECKPOINTS
        try:
            for entry in sorted(folder.iterdir(), reverse=True):
                name = entry.name.removeprefix(REPLACED)[:10]
                passing = entry.name.startswith(f"{REPLACED}{name}-")
                if NAME.fullmatch(name) and (passing or entry.name == name) and entry.is_dir():
                    found.setdefault(name, entry)
        except FileNotFoundError:
            return {}
        except OSError as error:  # an incomplete list would pass for a complete one
            raise CheckpointError(f"cannot list {folder}: {error.strerror}") from None
        return found

    def pointed(self, pointer: str) -> tuple[str | None, str | None]:
        """The name in a pointer file, and what is wrong with the file."""
        path = self.path / pointer
        try:
            text = disk.read_small(path, 64).decode("ascii", "replace")
        except FileNotFoundError:
            return None, f"{path} is missing"
        except (disk.UnusableFileError, OSError) as error:
            return None, f"{path} cannot be read: {error}"
        if not text.endswith("\n") or not NAME.fullmatch(text[:-1]):
            return None, f"{path} is damaged: expected the name of a checkpoint, found {text!r}"
        return text[:-1], None

    def flagged(self) -> list[str]:
        """The checkpoints saved as best, newest first, without those that are damaged."""
        found = []
        for name, path in sorted(self.paths().items(), reverse=True):
            with contextlib.suppress(CheckpointError):
                if peek(path)["best"]:
                    found.append(name)
        return found

    def order(self, pointer: str, notes: list[str]) -> list[str]:
        """The checkpoints in the order in which to try them."""
        names = sorted(self.paths(), reverse=True)
        flagged = self.flagged() if pointer == BEST else []
        pointed, fault = self.pointed(pointer)
        expected = (flagged or names)[:1] if pointer == BEST else names[:1]
        if fault is not None and (flagged or pointer == LATEST):
            notes.append(f"{fault}: using checkpoint {expected[0]}" if expected else fault)
        elif fault is not None and not fault.endswith("missing"):
            notes.append(fault)
        elif pointed is not None and [pointed] != expected:
            notes.append(self._disagreement(pointer, pointed, flagged, names))
        return flagged + [name for name in names if name not in flagged]

    def _disagreement(
        self, pointer: str, pointed: str, flagged: list[str], names: list[str]
    ) -> str:
        path = self.path / pointer
        if pointed not in names:
            return f"{path} names {pointed}, which is not there"
        if pointer == BEST:
            try:
                peek(self.path_of(pointed))
            except CheckpointError as error:
                return f"{path} names {pointed}, which is damaged ({error})"
        newer = (flagged or names)[0]
        return (
            f"{path} names {pointed}, but {newer} is the {pointer} one: "
            "a save was interrupted, or the file is damaged"
        )

    def load(self, pointer: str) -> Checkpoint:
        """The latest or the best checkpoint that is whole, with notes on what was met."""
        for _ in range(3):
            notes: list[str] = []
            faults: list[str] = []
            order = self.order(pointer, notes)
            for name in order:
                path = self.path_of(name)
                try:
                    checkpoint = _read_of_run(path, name)
                except OtherFormatError:
                    raise
                except CheckpointError as error:
                    if not path.exists():  # a writer removed it in this moment
                        break
                    faults.append(str(error))
                    continue
                notes += _fallback(faults, name) + self.log_notes(checkpoint)
                checkpoint.notes[:0] = notes
                return checkpoint
            else:
                raise self._none_whole(order, faults)
        raise CheckpointError(f"{self.path} changes while it is read: try again")

    def log_notes(self, checkpoint: Checkpoint) -> list[str]:
        """A note if the log has lost or changed what `checkpoint` says it held."""
        if checkpoint.log is None or self.log.agrees(checkpoint.log):
            return []
        return [
            f"{self.log.path} is not what it was when checkpoint {step_name(checkpoint.step)} was "
            "saved: damaged or edited (the weights are not affected)"
        ]

    def _none_whole(self, order: list[str], faults: list[str]) -> CheckpointError:
        if not order:
            return CheckpointError(
                f"{self.path} holds no checkpoint: expected {CHECKPOINTS}/<step>, "
                "written while training; was it stopped before its first save?"
            )
        count = f"none of its {len(order)} checkpoints is" if len(order) > 1 else "its one is not"
        return CheckpointError(f"{self.path} cannot be used, {count} whole: {faults[0]}")


def verify_run(path: str | Path) -> list[str]:
    """Everything that is wrong with a run folder, each in one line; empty if nothing is.

    Raises:
        CheckpointError: it is no run folder.
    """
    folder = Path(path)
    check_run(folder)
    run = Catalogue(folder, RunLog(folder / LOG))
    faults: list[str] = []
    for pointer in (LATEST, BEST):
        run.order(pointer, faults)
    for name in sorted(run.paths()):
        try:
            checkpoint = _read_of_run(run.path_of(name), name)
            if checkpoint.has_training:
                checkpoint.training()
            faults += run.log_notes(checkpoint)
        except CheckpointError as error:
            faults.append(str(error))
    damaged = run.log.damaged_lines()
    if damaged:
        faults.append(f"{run.log.path}: lines that are no JSON objects: {damaged}")
    return faults


def _fallback(faults: list[str], name: str) -> list[str]:
    return [f"{fault}; using checkpoint {name} instead" for fault in faults]


def _read_of_run(path: Path, name: str) -> Checkpoint:
    checkpoint = read_checkpoint(path)
    if checkpoint.step != int(name):
        raise CheckpointError(f"{path} holds step {checkpoint.step}: the folder was renamed")
    return checkpoint


def entries(path: Path) -> Iterator[Path]:
    """What is in a folder, sorted; nothing where it cannot be read."""
    with contextlib.suppress(OSError):
        yield from sorted(path.iterdir())


def check_run(folder: Path, *, or_empty: bool = False) -> None:
    """Raise CheckpointError, with what was found, unless `folder` is a run's (`or_empty`: or new)."""
    try:
        if not os.path.lexists(folder):
            raise CheckpointError(f"{folder} does not exist: {_EXPECTED}")
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is not a folder: {_EXPECTED}")
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"cannot read {folder}: {error.strerror}") from None
    if LOCK in names or (or_empty and not names) or is_checkpoints(folder / CHECKPOINTS):
        return
    if is_checkpoints(folder):
        raise CheckpointError(f"{folder} is inside a run: expected the run itself, {folder.parent}")
    found = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise CheckpointError(f"{folder} is no run: {_EXPECTED}, found {found or 'an empty folder'}")


def is_checkpoints(folder: Path) -> bool:
    """Whether `folder` is the checkpoints/ of a run."""
    return any(
        NAME.fullmatch(entry.name) or entry.name.startswith((TEMPORARY, REPLACED, DELETED))
        for entry in entries(folder)
    )
