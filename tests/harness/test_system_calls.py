"""A save whose k-th real system call fails, by strace: below Python, nothing is left out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewise.checkpoint import RunFolder, load_checkpoint, verify_run
from gatewise.errors import GatewiseError
from harness.folders import copy_run, is_intact, make_run, quick_folder, save

CALLS = {
    "write": "write",
    "fsync": "fsync",
    "close": "close",
    "open": "?open,?openat,?openat2",
    "mkdir": "?mkdir,?mkdirat",
    "rename": "?rename,?renameat,?renameat2",
    "unlink": "?unlink,?unlinkat,?rmdir",
    "stat": "?stat,?lstat,?newfstatat,?statx,?fstat",
}


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder:
        yield Path(folder)


def _child(run: RunFolder) -> None:
    """Stop until traced, save, and end as the command line would."""
    status = 70
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
        save(run, 40, keep=2)
        status = 0
    except GatewiseError as error:
        status = error.exit_code
    finally:
        os._exit(status)


def _save_traced(path: Path, calls: str, code: str, at: int) -> tuple[int, bool]:
    """Save in a child whose call number `at` fails; its exit status, and whether that call came."""
    run = RunFolder.resume(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside torch's threads
        child = os.fork()
    if child == 0:
        _child(run)
    os.waitpid(child, os.WUNTRACED)
    trace = path.parent / "trace"
    inject = f"inject={calls}:error={code}:when={at}"
    command = ["strace", "-p", str(child), "-o", str(trace), "-e", f"trace={calls}", "-e", inject]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    first = tracer.stderr.readline()
    if "attached" not in first:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        tracer.communicate()
        run.close()
        pytest.skip(f"strace cannot attach here: {first.strip()}")
    os.kill(child, signal.SIGCONT)
    _, status = os.waitpid(child, 0)
    tracer.communicate(timeout=30)
    run.close()
    return os.waitstatus_to_exitcode(status), "(INJECTED)" in trace.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("code", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("name", CALLS)
def test_each_system_call_of_a_save(place: Path, name: str, code: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    good = make_run(place / "good")
    statuses: list[int] = []
    for at in range(1, 400):
        path = copy_run(good, place / "run")
        status, came = _save_traced(path, CALLS[name], code, at)
        if not came:
            assert status == 0
            break
        statuses.append(status)
        where = f"{name} {at}"
        assert status in (0, 1), where
        found = load_checkpoint(path, "latest")
        assert is_intact(found), where
        assert is_intact(load_checkpoint(path, "best")), where
        assert found.step == 40 if status == 0 else found.step in (30, 40), where
        with RunFolder.resume(path) as run:
            run.rewind(run.latest())
            save(run, 50)
        assert verify_run(path) == [], where
    else:
        pytest.fail("the save does not end")
    assert len(statuses) >= 2
    print(f"{name} {code}: {len(statuses)} calls, {statuses.count(1)} errors")
    if name in ("write", "fsync", "mkdir", "rename"):
        # what is left after the rename is only clearing away, which may fail
        assert statuses.count(1) >= len(statuses) - 2
