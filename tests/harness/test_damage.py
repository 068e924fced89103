"""Flipped bits and cut files, anywhere in a run folder: noticed, and never taken for the truth."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatewise.checkpoint import Checkpoint, load_checkpoint, verify_run
from gatewise.errors import CheckpointError
from harness.folders import (
    BEST,
    STEPS,
    damageable,
    flip,
    is_intact,
    make_run,
    quick_folder,
    truncate,
)

HARMS: dict[str, Callable[[Path, random.Random], str]] = {"flip": flip, "truncate": truncate}


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder:
        yield make_run(Path(folder) / "run")


def _load(path: Path, which: str) -> Checkpoint | CheckpointError:
    try:
        return load_checkpoint(path, which)  # type: ignore[arg-type]
    except CheckpointError as error:
        assert "\n" not in str(error)
        return error


def _one_damage(run: Path, file: Path, harm: str, rng: random.Random) -> None:
    before = file.read_bytes()
    where = HARMS[harm](file, rng)
    try:
        assert verify_run(run), f"{where}: not noticed"
        for which, name in (("latest", STEPS[-1]), ("best", BEST)):
            found = _load(run, which)
            assert isinstance(found, Checkpoint), f"{where}: nothing to fall back to"
            assert is_intact(found), f"{where}: damage was loaded"
            concerned = f"{name:010d}" in file.parts or file.name == which
            if concerned:
                assert found.notes, f"{where}: said nothing"
            assert all("\n" not in note for note in found.notes)
    finally:
        file.write_bytes(before)


def _many(run: Path, harm: str, count: int, seed: int) -> None:
    rng = random.Random(seed)
    files = damageable(run)
    for index in range(count):
        _one_damage(run, files[index % len(files)], harm, rng)
    assert verify_run(run) == []


@pytest.mark.parametrize("harm", HARMS)
def test_sixty_damages(run: Path, harm: str) -> None:
    _many(run, harm, 60, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("seed", [2, 3])
def test_three_hundred_damages(run: Path, harm: str, seed: int) -> None:
    _many(run, harm, 300, seed)


@pytest.mark.slow
def test_every_bit_of_the_small_files(run: Path) -> None:
    """The files without a sum of their own, and the pointers: all of their bits."""
    checkpoint = run / "checkpoints" / f"{STEPS[-1]:010d}"
    for file in (run / "latest", run / "best", checkpoint / "manifest.json"):
        before = file.read_bytes()
        for bit in range(8 * len(before)):
            data = bytearray(before)
            data[bit // 8] ^= 1 << bit % 8
            file.write_bytes(data)
            found = load_checkpoint(run, "best" if file.name == "best" else "latest")
            assert found.notes, f"bit {bit} of {file}"
            assert is_intact(found)
        file.write_bytes(before)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("last", ["config.json", "model.safetensors", "training/state.json"])
def test_a_lone_checkpoint_is_an_error(run: Path, tmp_path: Path, harm: str, last: str) -> None:
    path = tmp_path / "one"
    shutil.copytree(run / "checkpoints" / f"{BEST:010d}", path)
    assert is_intact(load_checkpoint(path))
    HARMS[harm](path / last, random.Random(4))
    with pytest.raises(CheckpointError, match=last):
        load_checkpoint(path)


def test_every_checkpoint_damaged(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "all"
    shutil.copytree(run, path)
    for step in STEPS:
        flip(path / "checkpoints" / f"{step:010d}" / "model.safetensors", random.Random(step))
    with pytest.raises(CheckpointError, match="none of its 3 checkpoints is whole"):
        load_checkpoint(path)


@pytest.mark.parametrize("which", ["latest", "best"])
def test_missing_files(run: Path, tmp_path: Path, which: str) -> None:
    """Each file of the run removed in turn: a note, and the newest whole checkpoint."""
    for file in damageable(run):
        before = file.read_bytes()
        file.unlink()
        try:
            assert verify_run(run), file
            assert is_intact(load_checkpoint(run, which))  # type: ignore[arg-type]
        finally:
            file.write_bytes(before)
