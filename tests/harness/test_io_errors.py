"""A save that fails or dies at each of its system calls: the last good checkpoint stays."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gatewise.checkpoint import RunFolder, load_checkpoint, verify_run
from gatewise.errors import CheckpointError
from harness.faulty import Killed, System
from harness.folders import copy_run, is_intact, make_run, quick_folder, save

SAVES: dict[str, tuple[int, dict[str, int]]] = {
    "new": (40, {}),
    "pruning": (40, {"keep": 1}),
    "again": (30, {}),  # replaces the checkpoint of that step
    "back": (15, {}),  # drops the later ones
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("good") / "run")


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder:
        yield Path(folder)


def _attempt(path: Path, kind: str, system: System) -> bool:
    """Save under a faulty system; whether the save said that it succeeded."""
    step, options = SAVES[kind]
    run = RunFolder.resume(path)
    try:
        with system.active():
            save(run, step, **options)
    except CheckpointError as error:
        failure: BaseException | None = error
    except Killed as death:
        failure = death
    else:
        failure = None
    finally:
        run.close()
    if isinstance(failure, CheckpointError):
        assert failure.exit_code == 1
        assert "\n" not in str(failure)
        assert os.strerror(system.code or 0) in str(failure)
    return failure is None


def _check_after(path: Path, kind: str, saved: bool, where: str) -> None:
    """What was good before is still there, and the run can go on."""
    step, options = SAVES[kind]
    found = load_checkpoint(path, "latest")
    assert is_intact(found), where
    assert found.step == step if saved else found.step in (30, step), where
    assert is_intact(load_checkpoint(path, "best")), where
    with RunFolder.resume(path) as run:
        run.rewind(run.latest())
        save(run, step, **options)
        left = [p.name for p in (path / "checkpoints").iterdir() if p.name.startswith(".")]
        assert left == [], where
        assert run.latest().step == step, where
        assert run.latest().notes == [], where
    assert verify_run(path) == [], where


def _all_calls(
    good: Path, path: Path, kind: str, make: Callable[[int], System], every: int = 1
) -> int:
    """Try each call (or each `every`-th) of a save in turn; how many calls it makes."""
    at = 1
    while True:
        copy_run(good, path)
        system = make(at)
        saved = _attempt(path, kind, system)
        if system.failed is None:
            return at - 1
        where = f"call {at} ({system.failed})"
        if not saved and system.code is not None and not system.forever:
            assert list((path / "checkpoints").glob(".tmp-*")) == [], where
        _check_after(path, kind, saved, where)
        at += every


# Each call of each kind of save; the long kinds every third call, and all of them when slow.
EACH: list[Any] = [("new", 1), ("again", 2), ("pruning", 3), ("back", 3)]
EACH += [pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("again", "pruning", "back")]


@pytest.mark.parametrize(("kind", "every"), EACH)
def test_disk_full_at_each_call(good: Path, place: Path, kind: str, every: int) -> None:
    calls = _all_calls(good, place / "run", kind, lambda at: System(at, errno.ENOSPC), every)
    assert calls > 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAVES)
def test_disk_full_and_staying_full(good: Path, place: Path, kind: str) -> None:
    _all_calls(good, place / "run", kind, lambda at: System(at, errno.ENOSPC, forever=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAVES)
@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_other_errors_at_each_call(good: Path, place: Path, kind: str, code: int) -> None:
    _all_calls(good, place / "run", kind, lambda at: System(at, code))


@pytest.mark.parametrize(("kind", "every"), EACH)
def test_death_at_each_call(good: Path, place: Path, kind: str, every: int) -> None:
    _all_calls(good, place / "run", kind, System, every)


def test_partial_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    make_run(tmp_path / "run")
    monkeypatch.undo()
    assert verify_run(tmp_path / "run") == []


def test_real_size_limit(good: Path, tmp_path: Path) -> None:
    """The system itself refuses to let a file grow: every size up to a whole save."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 1, 100, 300, 500):
        path = copy_run(good, tmp_path / "run")
        with RunFolder.resume(path) as run:
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
                with pytest.raises(CheckpointError, match=os.strerror(errno.EFBIG)):
                    save(run, 40)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        _check_after(path, "new", False, f"limit {limit}")


@pytest.mark.slow
def test_real_full_disk(good: Path, tmp_path: Path) -> None:
    """A file system of the size of the run and a little more, filled to the last page."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    try:
        reasons: list[str] = []
        for pages in range(1, 16):
            path = copy_run(good, mount / "run")
            free = os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize
            (mount / "ballast").write_bytes(b"x" * max(0, free - 4096 * pages))
            with RunFolder.resume(path) as run:
                try:
                    save(run, 40)
                    saved = True
                except CheckpointError as error:
                    reasons.append(str(error))
                    saved = False
            (mount / "ballast").unlink()
            _check_after(path, "new", saved, f"{pages} pages")
        assert len(reasons) > 3
        assert all(os.strerror(errno.ENOSPC) in reason for reason in reasons)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no /dev/full")
def test_log_on_a_full_device(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with RunFolder.create(tmp_path / "run") as run:
        descriptor = os.open("/dev/full", os.O_WRONLY)
        os.dup2(descriptor, run.log._descriptor or -1)
        os.close(descriptor)
        with pytest.raises(CheckpointError, match=r"log\.jsonl.*No space left"):
            run.log.append({"step": 1})
