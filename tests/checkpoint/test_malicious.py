"""Folders made to harm: refused at once, in one line, with no large allocation, nothing executed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatewise.checkpoint import load_checkpoint
from gatewise.checkpoint.disk import Digest
from gatewise.checkpoint.tensors import TensorFileError, check_header, read_tensors
from gatewise.errors import CheckpointError
from harness.folders import make_run, seal, write_manifest

SECONDS, BYTES = 1.0, 192 << 20


@contextmanager
def _limits() -> Iterator[None]:
    """At most BYTES more address space, and SECONDS of the processor, for what runs inside.

    The clock on the wall would tell how busy the machine is; it only bounds what blocks.
    """
    statm = Path("/proc/self/statm")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    start, begun = time.process_time(), time.monotonic()
    try:
        if statm.exists():
            used = int(statm.read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.process_time() - start < SECONDS
    assert time.monotonic() - begun < 30 * SECONDS


def _refused(path: Path) -> str:
    with _limits(), pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    assert "memory, which are not free" not in text
    assert "not enough memory" not in text
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = make_run(tmp_path / "run", steps=(10,))
    checkpoint = run / "checkpoints" / "0000000010"
    moved = tmp_path / "foreign"
    checkpoint.rename(moved)
    return moved


def _tensor_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _entry(shape: Any, begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"1234567",
    "huge header": _tensor_file({}, length=1 << 62),
    "header of 2**64 - 1": _tensor_file({}, length=(1 << 64) - 1),
    "header longer than the file": _tensor_file({}, length=100),
    "header over the cap": _tensor_file(b" " * (2 << 20)),
    "header no JSON": _tensor_file(b"\x80\x04hello"),
    "header no object": _tensor_file([1, 2]),
    "header deep": _tensor_file(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "header of brackets": _tensor_file(b"[" * 1_000_000),
    "duplicate names": _tensor_file(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"1234",
    ),
    "overlap": _tensor_file({"a": _entry([2], 0, 8), "b": _entry([2], 4, 12)}, b"x" * 12),
    "same span": _tensor_file({"a": _entry([2], 0, 8), "b": _entry([2], 0, 8)}, b"x" * 8),
    "gap": _tensor_file({"a": _entry([1], 0, 4), "b": _entry([1], 8, 12)}, b"x" * 12),
    "beyond the end": _tensor_file({"a": _entry([1 << 40], 0, 1 << 42)}, b"x" * 8),
    "data left over": _tensor_file({"a": _entry([1], 0, 4)}, b"x" * 8),
    "span backwards": _tensor_file({"a": _entry([1], 4, 0)}, b"x" * 4),
    "negative span": _tensor_file({"a": _entry([1], -4, 0)}, b"x" * 4),
    "negative shape": _tensor_file({"a": _entry([-1, -1], 0, 4)}, b"x" * 4),
    "shape times shape overflows": _tensor_file({"a": _entry([1 << 32, 1 << 32], 0, 0)}),
    "wraps around 64 bits": _tensor_file({"a": _entry([(1 << 62) + 1, 4], 0, 16)}, b"x" * 16),
    "absurd empty shape": _tensor_file({"a": _entry([0, 1 << 61, 1 << 61], 0, 0)}),
    "very many dimensions": _tensor_file({"a": _entry([1] * 1000, 0, 4)}, b"x" * 4),
    "shape of floats": _tensor_file({"a": _entry([1.0], 0, 4)}, b"x" * 4),
    "shape of booleans": _tensor_file({"a": _entry([True], 0, 4)}, b"x" * 4),
    "shape no list": _tensor_file({"a": _entry("1", 0, 4)}, b"x" * 4),
    "unknown dtype": _tensor_file({"a": _entry([1], 0, 4, "OBJECT")}, b"x" * 4),
    "dtype no string": _tensor_file({"a": _entry([1], 0, 4, ["F32"])}, b"x" * 4),
    "entry no object": _tensor_file({"a": 7}),
    "entry with more": _tensor_file({"a": {**_entry([1], 0, 4), "code": "x"}}, b"x" * 4),
    "metadata no table": _tensor_file({"__metadata__": [1], "a": _entry([1], 0, 4)}, b"x" * 4),
    "metadata of numbers": _tensor_file({"__metadata__": {"a": 1}}),
    "NaN in the header": _tensor_file(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}'),
    "huge integer": _tensor_file(b'{"a":' + b"9" * 100_000 + b"}"),
    "many tiny tensors over the cap": _tensor_file(
        {f"tensor {i}": _entry([0], 0, 0) for i in range(80_000)}
    ),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("file", ["model.safetensors", "training/state.safetensors"])
def test_tensor_files(folder: Path, name: str, file: str) -> None:
    (folder / file).write_bytes(HEADERS[name])
    seal(folder)
    if file == "model.safetensors":
        assert file in _refused(folder)
        return
    checkpoint = load_checkpoint(folder)  # the state is read when it is asked for
    with _limits(), pytest.raises(CheckpointError, match=r"state\.safetensors"):
        checkpoint.training()


def test_many_tensors_within_the_cap_are_quick(folder: Path) -> None:
    header = {f"t{i}": _entry([0], 0, 0) for i in range(8_000)}
    (folder / "model.safetensors").write_bytes(_tensor_file(header))
    seal(folder)
    with _limits():
        assert len(load_checkpoint(folder).tensors) == 8_000


CONFIGS: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"not JSON",
    "list": b"[]",
    "NaN": b'{"format":1,"version":"1","step":1,"best":false,"config":{"x":NaN}}',
    "infinity": b'{"format":1,"version":"1","step":1,"best":false,"config":{"x":1e999}}',
    "duplicate keys": b'{"format":1,"format":1,"version":"1","step":1,"best":false,"config":{}}',
    "format a string": b'{"format":"1","version":"1","step":1,"best":false,"config":{}}',
    "format true": b'{"format":true,"version":"1","step":1,"best":false,"config":{}}',
    "step a float": b'{"format":1,"version":"1","step":1.5,"best":false,"config":{}}',
    "config a list": b'{"format":1,"version":"1","step":1,"best":false,"config":[]}',
    "written a list": b'{"format":1,"version":"1","step":1,"best":false,"config":{},"written":[]}',
    "log negative": b'{"format":1,"version":"1","step":1,"best":false,"config":{},'
    b'"written":{"log":{"bytes":-1,"sha256":""}}}',
    "deep": b'{"format":1,"config":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_001,
    "large": b'{"format":1,"config":"' + b"x" * (2 << 20) + b'"}',
    "huge integer": b'{"format":1,"step":' + b"1" * 500_000 + b"}",
    "not UTF-8": b'{"format":1,"version":"\xff"}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(folder: Path, name: str) -> None:
    (folder / "config.json").write_bytes(CONFIGS[name])
    seal(folder)
    assert "json" in _refused(folder)


OUTSIDE = ["../secret.json", "/etc/passwd", "training/../../secret.json", "a/b.json", "..", "", "."]
OUTSIDE += ["C:\\secret.json", "..\\secret.json", "x\0.json", "model.safetensors/", "manifest.json"]
OUTSIDE += ["\N{FULLWIDTH FULL STOP}.json", "x.py", "x.pkl", "-rf.json", "x\n.json"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_manifest_names_no_file_outside(folder: Path, name: str) -> None:
    (folder.parent / "secret.json").write_text("{}")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    write_manifest(folder, {**files, name: {"size": 2, "sha256": "0" * 64}})
    assert "is no file of a checkpoint" in _refused(folder)


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        changed = change(manifest)
        text = json.dumps(manifest if changed is None else changed)
        (folder / "manifest.json").write_text(text)

    return apply


MANIFESTS: dict[str, Callable[[Path], None]] = {
    "list": _manifest(lambda m: [1]),
    "no files": _manifest(lambda m: m.pop("files") and None),
    "files a list": _manifest(lambda m: m.update(files=[])),
    "more keys": _manifest(lambda m: m.update(run="rm")),
    "no model": _manifest(lambda m: m["files"].pop("model.safetensors") and None),
    "no config": _manifest(lambda m: m["files"].pop("config.json") and None),
    "half a state": _manifest(lambda m: m["files"].pop("training/state.json") and None),
    "tokenizer left out": _manifest(lambda m: m["files"].pop("tokenizer.json") and None),
    "size negative": _manifest(lambda m: m["files"]["model.safetensors"].update(size=-1)),
    "size huge": _manifest(lambda m: m["files"]["model.safetensors"].update(size=1 << 60)),
    "config huge": _manifest(lambda m: m["files"]["config.json"].update(size=1 << 40)),
    "size a string": _manifest(lambda m: m["files"]["model.safetensors"].update(size="1")),
    "sum a number": _manifest(lambda m: m["files"]["model.safetensors"].update(sha256=1)),
    "entry a string": _manifest(lambda m: m["files"].update({"model.safetensors": "x"})),
    "very many files": _manifest(
        lambda m: m["files"].update(
            {f"f{i}.txt": {"size": 0, "sha256": "0" * 64} for i in range(99)}
        )
    ),
    "deep": lambda f: (f / "manifest.json").write_bytes(b"[" * 900_000) and None,
    "large": lambda f: (f / "manifest.json").write_bytes(b" " * (2 << 20)) and None,
    "a folder": lambda f: (f / "manifest.json").unlink() or (f / "manifest.json").mkdir(),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(folder: Path, name: str) -> None:
    MANIFESTS[name](folder)
    _refused(folder)


@pytest.mark.parametrize("form", [0, 2, 10**30, "1", None, 1.0, True, [1]])
def test_other_formats(folder: Path, form: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": form, "version": "9.8.7"}))
    seal(folder)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    write_manifest(folder, files, form)
    text = _refused(folder)
    assert "format" in text
    if type(form) is int:
        assert "9.8.7" in text
        assert "this version (0.1.0) reads format 1" in text


def test_format_of_the_config_alone(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": 7}))
    seal(folder)
    assert "is of format 7" in _refused(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_links_are_not_followed(folder: Path, name: str) -> None:
    target = folder.parent / "elsewhere"
    (folder / name).rename(target)
    (folder / name).symlink_to(target)
    assert "is a link" in _refused(folder)


def test_linked_training_folder(folder: Path) -> None:
    (folder / "training").rename(folder.parent / "elsewhere")
    (folder / "training").symlink_to(folder.parent / "elsewhere")
    assert "link" in _refused(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes in folders")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_pipes_do_not_block(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "not a plain file" in _refused(folder)


@pytest.mark.parametrize("size", [1 << 32, 1 << 42])
def test_files_that_are_mostly_holes(folder: Path, size: int) -> None:
    """Gigabytes and terabytes by name, one page on the disk, with a header and sizes that agree."""
    begin = _tensor_file({"a": _entry([size // 4], 0, size)})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(begin)
        file.truncate(len(begin) + size)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files["model.safetensors"] = {"size": len(begin) + size, "sha256": "0" * 64}
    write_manifest(folder, files)
    assert "on the disk" in _refused(folder)


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(Path(os.environ["GATEWISE_TRAP"])),))


def test_nothing_is_unpickled(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "sprung"
    monkeypatch.setenv("GATEWISE_TRAP", str(trap))
    (folder / "model.safetensors").write_bytes(pickle.dumps(_Trap()))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap()))
    seal(folder)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files.pop("pytorch_model.bin")
    write_manifest(folder, files)
    assert "header" in _refused(folder)
    torch.save({"a": torch.zeros(2)}, folder / "model.safetensors")
    seal(folder)
    _refused(folder)
    assert not trap.exists()


@given(st.binary(max_size=300), st.integers(0, 64))
def test_random_headers(header: bytes, data_size: int) -> None:
    with contextlib.suppress(TensorFileError):
        check_header(header, data_size)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "I64", "x"]) | _JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | _JSON,
        "data_offsets": st.lists(st.integers(-1, 16), min_size=2, max_size=2) | _JSON,
    }
)


@given(st.dictionaries(st.text(max_size=12), _ENTRY | _JSON, max_size=4), st.integers(0, 16))
def test_random_entries(entries: dict[str, Any], data_size: int) -> None:
    """What is accepted covers the data exactly once."""
    try:
        spans, _ = check_header(json.dumps(entries).encode(), data_size)
    except TensorFileError:
        return
    assert sum(span.end - span.begin for span in spans.values()) == data_size


def test_unaligned_tensors_of_other_writers(tmp_path: Path) -> None:
    path = tmp_path / "x"
    data = b"\1" + struct.pack("<f", 2.5)
    path.write_bytes(_tensor_file({"a": _entry([1], 0, 1, "U8"), "b": _entry([], 1, 5)}, data))
    digest = Digest(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert read_tensors(path, digest)["b"].item() == 2.5
