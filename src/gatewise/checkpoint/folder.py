"""A run folder: its checkpoints, what points to them, its log, and who may write in it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from torch import Tensor

from gatewise.checkpoint import disk
from gatewise.checkpoint.catalogue import Catalogue, check_run, entries, is_checkpoints
from gatewise.checkpoint.contents import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    LATEST,
    LOCK,
    LOG,
    MANIFEST,
    Checkpoint,
    TrainingState,
    step_name,
)
from gatewise.checkpoint.lock import WriterLock
from gatewise.checkpoint.log import RunLog
from gatewise.checkpoint.reading import read_checkpoint
from gatewise.checkpoint.writing import (
    DELETED,
    REPLACED,
    TEMPORARY,
    Parts,
    save_error,
    write_checkpoint,
)
from gatewise.errors import CheckpointError, OptionError, unknown


class RunFolder:
    """A run folder, open for reading (`open`) or, by one process at a time, for writing.

    Attributes:
        path: the folder.
        log: its log.
        notes: what a user should be told, each once.
    """

    def __init__(self, path: Path, log: RunLog, lock: WriterLock | None = None) -> None:
        self.path = path
        self.log = log
        self.notes: list[str] = []
        self._lock = lock
        self._catalogue = Catalogue(path, log)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """An existing run, for reading; an empty folder is one that was killed at its very start.

        Raises:
            CheckpointError: it is not there, or no run folder.
        """
        folder = Path(path)
        check_run(folder, or_empty=True)
        return cls(folder, RunLog(folder / LOG))

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """A new run in a new or empty folder, for writing.

        Raises:
            OptionError: something is already there; it is left untouched.
            CheckpointError: it cannot be made, or another process writes in it.
        """
        folder = Path(path)
        _check_fresh(folder)
        try:
            disk.make_folder(folder.absolute())
        except OSError as error:
            raise save_error(f"cannot make the run folder {folder}", error) from None
        return cls._writable(folder, check=_check_fresh)

    @classmethod
    def resume(cls, path: str | Path) -> RunFolder:
        """An existing run, for writing; what a killed save left behind is removed.

        Where there is no run yet, or it was killed before its first save, it is one without
        checkpoints, and a note says that it starts from the beginning.

        Raises:
            CheckpointError: another process writes in it, or it is no run folder (left untouched).
        """
        folder = Path(path)
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            run = cls.create(folder)
        else:
            check_run(folder)
            run = cls._writable(folder)
            run._clean()
        if not run.checkpoints():
            run.notes.append(f"{folder} holds no checkpoint yet: starting from the beginning")
        return run

    @classmethod
    def _writable(cls, folder: Path, check: Any = None) -> RunFolder:
        lock = WriterLock(folder, LOCK)
        try:
            if check is not None:
                check(folder)  # another process may have come and gone
            return cls(folder, RunLog(folder / LOG, writable=True), lock)
        except BaseException:
            lock.close()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the log and of the lock."""
        self.log.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def checkpoints(self) -> list[int]:
        """The steps of all checkpoints, oldest first; they are not read."""
        return sorted(int(name) for name in self._catalogue.paths())

    def checkpoint_path(self, step: int) -> Path:
        """The folder of the checkpoint of `step`."""
        return self._catalogue.path_of(step_name(step))

    def latest(self) -> Checkpoint:
        """The newest checkpoint that is whole; damage that was met is told in its notes.

        Raises:
            CheckpointError: there is none, or the newest is of another format.
        """
        return self._catalogue.load(LATEST)

    def best(self) -> Checkpoint:
        """The checkpoint saved as best, or the latest where none was.

        Raises:
            CheckpointError: as `latest`.
        """
        return self._catalogue.load(BEST)

    def save(
        self,
        step: int,
        *,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        tokenizer_json: str | None = None,
        extra: Mapping[str, str] | None = None,
        training: TrainingState | None = None,
        best: bool = False,
        keep: int | None = None,
    ) -> Path:
        """Write the checkpoint of `step`, point to it, and remove old ones.

        Checkpoints of later steps are removed too: after going back they belong to no history.

        Args:
            step: 0 or more; an existing checkpoint of this step is replaced.
            config: the settings, JSON.
            tensors: the weights; on the CPU they are not copied.
            tokenizer_json: the text of tokenizer.json.
            extra: the texts of further files (NAME.json, NAME.txt), by name.
            training: what an exact resume needs.
            best: whether it is the best so far.
            keep: how many of the newest to keep; default: all.
        Returns:
            The folder of the checkpoint.
        Raises:
            CheckpointError: the disk is full, or any other system error; the checkpoints from
                before stay as they were.
            OptionError: something that a checkpoint cannot hold; nothing was written.
        """
        self._require_writable()
        _check_step(step)
        _check_keep(keep)
        path = self.path / CHECKPOINTS / step_name(step)
        try:
            self.log.sync()
            disk.make_folder((self.path / CHECKPOINTS).absolute())
            parts = Parts(
                step,
                config,
                tensors,
                tokenizer_json,
                extra or {},
                training,
                best,
                self.log.position(),
            )
            write_checkpoint(path, parts)
            self._drop_later(step)
            for pointer in (BEST, LATEST) if best else (LATEST,):
                disk.replace_file(self.path / pointer, f"{path.name}\n".encode("ascii"))
            if keep is not None:
                self.prune(keep)
        except OSError as error:
            raise save_error(f"cannot save step {step} in {self.path}", error) from None
        return path

    def prune(self, keep: int, spare: Collection[int] = ()) -> None:
        """Remove all but the newest `keep` checkpoints, and never the latest or the best.

        Args:
            keep: how many.
            spare: steps of checkpoints that stay, and are not counted.
        Raises:
            OptionError: keep < 1.
        """
        self._require_writable()
        _check_keep(keep)
        names = [n for n in sorted(self._catalogue.paths(), reverse=True) if int(n) not in spare]
        protected = {
            self._catalogue.pointed(LATEST)[0],
            self._catalogue.pointed(BEST)[0],
            *self._catalogue.flagged()[:1],
        }
        for name in names[keep:]:
            if name not in protected:
                try:
                    self._remove(name)
                except OSError as error:  # no reason to stop a run that is saved
                    self.notes.append(f"cannot remove checkpoint {name}: {error.strerror}")

    def rewind(self, checkpoint: Checkpoint | None) -> None:
        """Take the run up at `checkpoint` (None: at its beginning).

        The log is cut back to what it was then. If the checkpoint is the newest, the pointers are
        set right: a kill may have come between the last save and its pointers.

        Raises:
            CheckpointError: the log or a pointer cannot be written.
        """
        self._require_writable()
        if checkpoint is None:
            self.log.truncate_at((0, ""))
            return
        if checkpoint.log is None or not self.log.truncate_at(checkpoint.log):
            self.log.truncate_to(checkpoint.step)
        name = step_name(checkpoint.step)
        if name == max(self._catalogue.paths(), default=name):
            try:
                self._point(BEST, self._catalogue.flagged()[:1])
                self._point(LATEST, [name])
            except OSError as error:
                raise save_error(f"cannot repair the pointers of {self.path}", error) from None

    def _point(self, pointer: str, names: list[str]) -> None:
        """Make a pointer name what it should, if it does not."""
        if names and self._catalogue.pointed(pointer)[0] != names[0]:
            disk.replace_file(self.path / pointer, f"{names[0]}\n".encode("ascii"))

    def _require_writable(self) -> None:
        if self._lock is None:
            raise CheckpointError(f"{self.path} is not open for writing: use create or resume")

    def _drop_later(self, step: int) -> None:
        """Remove the checkpoints of later steps, and make `best` name one that is there."""
        for name in sorted(self._catalogue.paths()):
            if name > step_name(step):
                self._remove(name)
        pointed = self._catalogue.pointed(BEST)[0]
        if pointed is not None and pointed not in self._catalogue.paths():
            flagged = self._catalogue.flagged()
            if flagged:
                disk.replace_file(self.path / BEST, f"{flagged[0]}\n".encode("ascii"))
            else:
                os.unlink(self.path / BEST)

    def _remove(self, name: str) -> None:
        """Remove a checkpoint: renamed first, so that no half of it can be met."""
        path = self._catalogue.path_of(name)
        gone = path.with_name(f"{DELETED}{name}-{secrets.token_hex(4)}")
        os.rename(path, gone)
        disk.remove_tree(gone)

    def _clean(self) -> None:
        """Remove what killed saves left, and finish a replacement that was cut in two."""
        for entry in entries(self.path / CHECKPOINTS):
            name = entry.name.removeprefix(REPLACED)[:10]
            if entry.name.startswith(REPLACED) and self._catalogue.paths().get(name) == entry:
                with contextlib.suppress(OSError):
                    os.rename(entry, entry.with_name(name))
            elif entry.name.startswith((TEMPORARY, DELETED, REPLACED)):
                disk.remove_tree(entry)
        for entry in entries(self.path):
            if entry.name.startswith((f"{TEMPORARY}{LATEST}-", f"{TEMPORARY}{BEST}-")):
                with contextlib.suppress(OSError):
                    entry.unlink()


def load_checkpoint(path: str | Path, which: Literal["best", "latest"] = "best") -> Checkpoint:
    """The checkpoint in a run folder, or in the folder of one checkpoint.

    Args:
        path: a run folder, or a checkpoint folder (then `which` does not matter, and there is
            nothing to fall back to).
        which: "best" (the latest, where none was saved as best) or "latest".
    Raises:
        CheckpointError: not there, foreign, of another format, or nothing in it is whole.
    """
    if which not in (BEST, LATEST):
        raise unknown("checkpoint", which, (BEST, LATEST))
    folder = Path(path)
    if not (folder / CHECKPOINTS).is_dir() and (
        os.path.lexists(folder / MANIFEST) or os.path.lexists(folder / CONFIG)
    ):
        return read_checkpoint(folder)
    check_run(folder)
    run = RunFolder.open(folder)
    return run.best() if which == BEST else run.latest()


def _check_fresh(folder: Path) -> None:
    """Raise OptionError unless nothing of worth is in `folder`."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise OptionError(f"{folder} is a file: expected a new folder, choose another --out")
    for entry in entries(folder):
        empty_log = entry.name == LOG and entry.is_file() and entry.stat().st_size == 0
        if (
            entry.name == LOCK
            or empty_log
            or (entry.name == CHECKPOINTS and not any(entries(entry)))
        ):
            continue
        if (folder / LOCK).exists() or is_checkpoints(folder / CHECKPOINTS):
            raise OptionError(
                f"{folder} already holds a run: continue it with --resume, or choose another --out"
            )
        raise OptionError(f"{folder} is not empty: expected a new folder, choose another --out")


def _check_step(step: int) -> None:
    if type(step) is not int or not 0 <= step < 10**10:
        raise OptionError(f"expected a step from 0 to 9999999999, found {step!r}")


def _check_keep(keep: int | None) -> None:
    if keep is not None and keep < 1:
        raise OptionError(f"expected to keep 1 checkpoint or more, found {keep}")
