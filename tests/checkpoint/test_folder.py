"""Run folders: what is written, who may write, what is read, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gatewise
from gatewise.checkpoint import (
    FORMAT,
    RunFolder,
    TrainingState,
    export_checkpoint,
    load_checkpoint,
    verify_run,
)
from gatewise.errors import CheckpointError, OptionError, UnknownNameError
from harness.folders import contents, is_intact, make_run, same_tensors, save, seal


def _files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_layout(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=(10, 20))
    files = set(_files(run))
    one = {"config.json", "model.safetensors", "tokenizer.json", "manifest.json"}
    one |= {"training/state.json", "training/state.safetensors"}
    expected = {f"checkpoints/{step:010d}/{name}" for step in (10, 20) for name in one}
    assert files == expected | {"latest", "best", "log.jsonl", ".gatewise.lock"}
    assert (run / "latest").read_text() == "0000000020\n"
    assert (run / "best").read_text() == "0000000020\n"
    config = json.loads((run / "checkpoints" / "0000000010" / "config.json").read_text())
    assert config["format"] == FORMAT
    assert config["version"] == gatewise.__version__
    assert config["config"] == contents(10)["config"]


@pytest.mark.parametrize("which", ["latest", "best"])
def test_round_trip(tmp_path: Path, which: Any) -> None:
    run = make_run(tmp_path / "run")
    for path in (run, run / "checkpoints" / "0000000030", str(run)):
        found = load_checkpoint(path, which)
        assert is_intact(found)
        assert found.notes == []
        assert found.version == gatewise.__version__
    assert load_checkpoint(run, "best").step == 20
    assert load_checkpoint(run, "latest").step == 30
    assert verify_run(run) == []


def test_dtypes_shapes_and_shared_memory(tmp_path: Path) -> None:
    weight = torch.randn(4, 6)
    tensors = {
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "transposed": weight.t(),
        "slice": weight[1:, ::2],
        "tied": weight,
        "twin": weight,
        "complex": torch.randn(3, dtype=torch.complex64).conj(),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "pt": torch.ones(1),
    }
    dtypes = [
        "float16",
        "bfloat16",
        "int8",
        "uint8",
        "int16",
        "int32",
        "int64",
        "bool",
        "uint16",
        "uint32",
        "uint64",
    ]
    tensors |= {n: torch.tensor([1, 0, 1]).to(getattr(torch, n)) for n in dtypes}
    with RunFolder.create(tmp_path / "run") as run:
        path = run.save(1, config={}, tensors=tensors)
        found = run.latest()
    assert same_tensors(found.tensors, {n: t.detach() for n, t in tensors.items()})
    assert found.tensors["tied"] is found.tensors["twin"]
    assert not found.has_training
    with pytest.raises(CheckpointError, match="expected a training state"):
        found.training()
    library = load_file(path / "model.safetensors")
    assert same_tensors(library, {n: found.tensors[n] for n in tensors if n != "twin"})


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run") as run:
        path = run.save(1, config={}, tensors={})
    tensors = {"a": torch.randn(3, 2), "b": torch.tensor([True]), "c": torch.zeros(0)}
    save_file(tensors, path / "model.safetensors")
    seal(path)
    assert same_tensors(load_checkpoint(path).tensors, tensors)


def test_equal_saves_are_equal_files(tmp_path: Path) -> None:
    """Weights and training state depend on what is saved alone, not on log or clock."""
    paths = []
    for name in ("one", "two"):
        with RunFolder.create(tmp_path / name) as run:
            run.log.append({"name": name})
            values = contents(10)
            values["training"].clock["seconds"] = len(paths) + 0.5
            paths.append(run.save(10, **values))
    one, two = (_files(path) for path in paths)
    differing = {name for name in one if one[name] != two[name]}
    assert differing == {"config.json", "manifest.json"}
    assert load_checkpoint(paths[1]).training().clock == {"seconds": 1.5}


def test_extra_files(tmp_path: Path) -> None:
    extra = {"tokenizer.target.json": '{"kind": "char"}', "note.txt": "é"}
    with RunFolder.create(tmp_path / "run") as run:
        run.save(1, config={}, tensors={}, extra=extra)
        assert run.latest().extra == extra
        for name in ("../x.json", "config.json", "x.py", "a/b.json", "manifest.json"):
            with pytest.raises(OptionError, match="cannot be the name"):
                run.save(2, config={}, tensors={}, extra={name: ""})
        assert run.checkpoints() == [1]


REFUSED: dict[str, dict[str, Any]] = {
    "NaN in the settings": {"config": {"x": float("nan")}},
    "an object in the settings": {"config": {"x": object()}},
    "a number as a key": {"config": {1: 2}},
    "settings too large": {"config": {"x": "y" * (2 << 20)}},
    "sparse": {"tensors": {"a": torch.eye(3).to_sparse()}},
    "meta": {"tensors": {"a": torch.empty(3, device="meta")}},
    "complex128": {"tensors": {"a": torch.zeros(3, dtype=torch.complex128)}},
    "no name": {"tensors": {"": torch.zeros(3)}},
    "lone surrogate": {"tokenizer_json": "\ud800"},
    "meta of objects": {"training": TrainingState({}, {"x": {1, 2}})},
    "negative step": {"step": -1},
    "step no integer": {"step": 1.5},
    "keep nothing": {"keep": 0},
}


@pytest.mark.parametrize("name", REFUSED)
def test_contents_that_cannot_be_kept(tmp_path: Path, name: str) -> None:
    values = {"step": 2, "config": {}, "tensors": {}} | REFUSED[name]
    with RunFolder.create(tmp_path / "run") as run:
        run.save(1, config={}, tensors={})
        with pytest.raises(OptionError) as caught:
            run.save(**values)
        assert "\n" not in str(caught.value)
        assert run.checkpoints() == [1]
        assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["0000000001"]
    assert verify_run(tmp_path / "run") == []


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_pruning_keeps_latest_and_best(tmp_path: Path, keep: int) -> None:
    with RunFolder.create(tmp_path / "run") as run:
        for step in range(1, 8):
            run.save(step, config={}, tensors={}, best=step == 2, keep=keep)
            assert run.best().step == (2 if step >= 2 else 1)
        assert run.checkpoints() == sorted({2, *range(max(1, 8 - keep), 8)})
        run.prune(1)
        assert run.checkpoints() == [2, 7]
        assert run.notes == []
    assert verify_run(tmp_path / "run") == []


def test_going_back_drops_what_came_after(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    with RunFolder.resume(path) as run:
        run.rewind(load_checkpoint(path / "checkpoints" / "0000000010"))
        assert [event["step"] for event in run.log.read()] == [10]
        assert run.checkpoints() == [10, 20, 30]
        save(run, 15)
        assert run.checkpoints() == [10, 15]
        assert [event["step"] for event in run.log.read()] == [10, 15]
        assert run.best().step == 15
        assert run.best().notes == []
    assert verify_run(path) == []


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    with RunFolder.resume(path) as run:
        run.save(30, config={"new": 1}, tensors={}, best=True)
        assert run.checkpoints() == [10, 20, 30]
        assert run.best().config == {"new": 1}
    assert verify_run(path) == []


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path) as run:
        save(run, 1)
        with pytest.raises(CheckpointError, match=rf"\(pid {os.getpid()}\) is writing") as caught:
            RunFolder.resume(path)
        assert "\n" not in str(caught.value)
        assert load_checkpoint(path).step == 1  # readers need no lock
        save(run, 2)
    RunFolder.resume(path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_writer_frees_the_run(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    ready, tell = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside torch's threads
        child = os.fork()
    if child == 0:
        RunFolder.resume(path)
        os.write(tell, b"x")
        signal.pause()
    assert os.read(ready, 1) == b"x"
    with pytest.raises(CheckpointError, match=f"pid {child}"):
        RunFolder.resume(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    RunFolder.resume(path).close()
    os.close(ready)
    os.close(tell)


def test_an_existing_run_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    before = _files(path)
    with pytest.raises(OptionError, match="already holds a run: continue it with --resume"):
        RunFolder.create(path)
    assert _files(path) == before


@pytest.mark.parametrize("name", ["thesis.tex", "log.jsonl", "latest"])
def test_a_foreign_folder_is_refused_and_left_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(OptionError, match="is not empty"):
        RunFolder.create(tmp_path)
    for use in (RunFolder.resume, RunFolder.open, load_checkpoint, verify_run):
        with pytest.raises(CheckpointError, match=f"is no run: expected .*found {name}"):
            use(tmp_path)
    assert _files(tmp_path) == {name: b"mine\n"}


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="found an empty folder"):
        load_checkpoint(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="is not a folder"):
        load_checkpoint(tmp_path / "file")
    with pytest.raises(OptionError, match="is a file"):
        RunFolder.create(tmp_path / "file")
    with pytest.raises(CheckpointError, match="is not a folder"):
        RunFolder.resume(tmp_path / "file")
    run = make_run(tmp_path / "run")
    with pytest.raises(CheckpointError, match="is inside a run"):
        load_checkpoint(run / "checkpoints")
    with pytest.raises(UnknownNameError, match="did you mean 'latest'"):
        load_checkpoint(run, "lastest")  # type: ignore[arg-type]
    (tmp_path / "pipe_parent").mkdir()
    with pytest.raises(CheckpointError, match="not open for writing"):
        RunFolder.open(run).save(1, config={}, tensors={})


def test_half_written_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "checkpoints" / "0000000030" / "manifest.json").unlink()
    found = load_checkpoint(run, "latest")
    assert found.step == 20
    assert any("manifest.json is missing" in note for note in found.notes)
    with pytest.raises(CheckpointError, match="half-written"):
        load_checkpoint(run / "checkpoints" / "0000000030")


def test_a_renamed_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "checkpoints" / "0000000030").rename(run / "checkpoints" / "0000000040")
    found = load_checkpoint(run, "latest")
    assert found.step == 20
    assert any("the folder was renamed" in note for note in found.notes)


def test_resuming_nothing_starts_from_the_beginning(tmp_path: Path) -> None:
    for path in (tmp_path / "new", tmp_path / "empty"):
        if path.name == "empty":
            path.mkdir()
            assert RunFolder.open(path).checkpoints() == []
        with RunFolder.resume(path) as run:
            assert run.checkpoints() == []
            assert run.notes == [f"{path} holds no checkpoint yet: starting from the beginning"]
            with pytest.raises(CheckpointError, match="holds no checkpoint"):
                run.latest()
            run.log.append({"step": 1})
        with pytest.raises(OptionError, match="already holds a run"):
            RunFolder.create(path)
        with RunFolder.resume(path) as run:  # killed before its first save
            run.rewind(None)
            assert list(run.log.read()) == []


def test_a_failed_start_does_not_occupy_the_folder(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run").close()
    RunFolder.create(tmp_path / "run").close()


def test_leftovers_are_removed_at_the_next_open(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    for name in (".tmp-0000000040-1-ab", ".gone-0000000001-ab", ".old-0000000020-ab"):
        shutil.copytree(path / "checkpoints" / "0000000010", path / "checkpoints" / name)
    (path / ".tmp-latest-1").write_text("x")
    assert load_checkpoint(path, "latest").notes == []
    RunFolder.resume(path).close()
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == [
        f"{step:010d}" for step in (10, 20, 30)
    ]
    assert not (path / ".tmp-latest-1").exists()


def test_a_replacement_cut_in_two_is_finished(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    checkpoints = path / "checkpoints"
    (checkpoints / "0000000030").rename(checkpoints / ".old-0000000030-ab")
    assert load_checkpoint(path, "latest").step == 30
    RunFolder.resume(path).close()
    assert (checkpoints / "0000000030").is_dir()
    assert verify_run(path) == []


def test_a_pointer_to_another_whole_checkpoint_is_noticed(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    for pointer, true in (("latest", 30), ("best", 20)):
        (path / pointer).write_text("0000000010\n")
        found = load_checkpoint(path, pointer)  # type: ignore[arg-type]
        assert found.step == true
        assert any(f"names 0000000010, but {true:010d} is" in note for note in found.notes)


def test_pointers_that_a_kill_left_behind_are_set_right(tmp_path: Path) -> None:
    """Killed between the last rename and its pointers: nothing is left to save, only to point."""
    path = make_run(tmp_path / "run")
    (path / "latest").write_text("0000000020\n")
    (path / "best").unlink()
    with RunFolder.resume(path) as run:
        found = run.latest()
        assert len(found.notes) == 1
        run.rewind(found)
    assert verify_run(path) == []


def test_without_a_best_the_latest_is_the_best(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run") as run:
        run.save(1, config={}, tensors={})
    found = load_checkpoint(tmp_path / "run")
    assert (found.step, found.notes, found.is_best) == (1, [], False)


def test_export(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    exported = export_checkpoint(load_checkpoint(path), tmp_path / "a" / "b")
    assert exported == (tmp_path / "a" / "b").absolute()
    assert set(_files(exported)) == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "manifest.json",
    }
    found, source = load_checkpoint(exported), load_checkpoint(path)
    assert same_tensors(found.tensors, source.tensors)
    assert (found.config, found.tokenizer_json) == (source.config, source.tokenizer_json)
    assert found.log is None
    assert not found.has_training
    assert [p.name for p in exported.parent.iterdir()] == ["b"]
    for place in (exported, exported / "config.json"):
        with pytest.raises(OptionError, match="expected a new or empty folder"):
            export_checkpoint(found, place)
    (tmp_path / "empty").mkdir()
    export_checkpoint(found, tmp_path / "empty")
    with pytest.raises(CheckpointError, match="cannot export"):
        export_checkpoint(found, exported / "config.json" / "x")


def test_reading_while_another_writes(tmp_path: Path) -> None:
    """A reader beside a writer that prunes as hard as it can always gets a whole checkpoint."""
    path = make_run(tmp_path / "run", steps=(20,))
    faults: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                assert is_intact(load_checkpoint(path, "latest"))
            except FileNotFoundError as error:
                faults.append(error)
            except CheckpointError as error:
                # the state is read when it is asked for: by then the folder may be gone
                if "training" not in str(error):
                    faults.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with RunFolder.resume(path) as run:
            for step in range(21, 61):
                save(run, step, keep=1)
    finally:
        done.set()
        reader.join()
    assert faults == []
