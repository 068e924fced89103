"""One checkpoint folder, read and verified: sizes, sums, limits, formats.

A folder from elsewhere is a claim. Its manifest may name only files of ours, sums and sizes must
agree before a file is used, and only plain files are opened. Knows nothing of runs and pointers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gatewise.checkpoint import strict_json
from gatewise.checkpoint.contents import (
    CONFIG,
    EXTRA,
    FORMAT,
    KNOWN,
    MANIFEST,
    MAX_CONFIG,
    MAX_FILES,
    MAX_MANIFEST,
    MAX_META,
    MAX_TEXT,
    MODEL,
    STATE_META,
    STATE_TENSORS,
    TOKENIZER,
    TRAINING,
    Checkpoint,
    TrainingState,
)
from gatewise.checkpoint.disk import (
    CHUNK,
    Digest,
    UnusableFileError,
    open_plain,
    read_small,
    refuse_holes,
)
from gatewise.checkpoint.tensors import TensorFileError, read_tensors
from gatewise.errors import CheckpointError


class OtherFormatError(CheckpointError):
    """A whole checkpoint, but of a format that this version does not read."""


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in the folder `path`.

    Raises:
        CheckpointError: damaged, half-written, of another format or dangerous; one line.
    """
    manifest = read_manifest(path)
    envelope = _read_config(path, manifest)
    texts = {
        name: _read_text(path, name, digest)
        for name, digest in manifest.items()
        if name == TOKENIZER or name not in KNOWN
    }
    for name in (STATE_META, STATE_TENSORS):
        if name in manifest:
            verify_file(path, name, manifest[name])
    with _reading(path, MODEL):
        tensors = read_tensors(path / MODEL, manifest[MODEL])
    has_training = STATE_META in manifest
    clock = envelope["written"].get("clock", {}) if has_training else {}
    return Checkpoint(
        path=path,
        step=envelope["step"],
        version=envelope["version"],
        config=envelope["config"],
        tensors=tensors,
        tokenizer_json=texts.pop(TOKENIZER, None),
        extra=texts,
        is_best=envelope["best"],
        log=envelope["written"].get("log"),
        load_training=(lambda: _read_training(path, manifest, clock)) if has_training else None,
    )


def read_manifest(path: Path) -> dict[str, Digest]:
    """Size and SHA-256 of each file of a checkpoint, by name; no file has been opened yet."""
    with _reading(path, MANIFEST):
        manifest = strict_json.loads_object(read_small(path / MANIFEST, MAX_MANIFEST))
        if type(manifest.get("format")) is not int or manifest["format"] != FORMAT:
            _refuse_format(path, manifest.get("format"))
        files = manifest.get("files")
        if set(manifest) != {"format", "files"} or not isinstance(files, dict):
            raise strict_json.JsonError("expected the keys 'format' and 'files'")
        if len(files) > MAX_FILES:
            raise strict_json.JsonError(f"names {len(files)} files, at most {MAX_FILES} expected")
        digests = {_known(name): _digest(name, entry) for name, entry in files.items()}
        _check_complete(path, digests)
    return digests


def peek(path: Path) -> dict[str, Any]:
    """What config.json says beside the settings (step, best, ...), read without the weights."""
    return _read_config(path, read_manifest(path))


def verify_file(path: Path, name: str, digest: Digest) -> None:
    """Read a file of the checkpoint once, in small pieces, and compare size and sum."""
    with _reading(path, name):
        descriptor, found = open_plain(path / name)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if found.st_size != digest.size:
                raise UnusableFileError(_size_text(digest.size, found.st_size))
            refuse_holes(descriptor, found.st_size)
            total = hashlib.sha256()
            while chunk := file.read(CHUNK):
                total.update(chunk)
        _compare(total.hexdigest(), digest)


def _known(name: str) -> str:
    if name not in KNOWN and (name == MANIFEST or not EXTRA.fullmatch(name)):
        raise strict_json.JsonError(f"names {name[:80]!r}, which is no file of a checkpoint")
    return name


def _digest(name: str, entry: object) -> Digest:
    size = entry.get("size") if isinstance(entry, dict) else None
    sha256 = entry.get("sha256") if isinstance(entry, dict) else None
    if type(size) is not int or not isinstance(sha256, str) or len(sha256) != 64 or size < 0:
        raise strict_json.JsonError(f"expected size and sha256 of {name!r}")
    limit = {CONFIG: MAX_CONFIG, STATE_META: MAX_META, MODEL: None, STATE_TENSORS: None}
    most = limit.get(name, MAX_TEXT)
    if most is not None and size > most:
        raise strict_json.JsonError(f"{name} claims {size} bytes, at most {most} are expected")
    return Digest(size, sha256)


def _check_complete(path: Path, digests: dict[str, Digest]) -> None:
    for name in (CONFIG, MODEL):
        if name not in digests:
            raise strict_json.JsonError(f"does not name {name}")
    if (STATE_META in digests) != (STATE_TENSORS in digests):
        raise strict_json.JsonError("names one half of the training state")
    for name in KNOWN:
        if name not in digests and os.path.lexists(path / name):
            raise strict_json.JsonError(f"does not name {name}, which is there")
    if (path / TRAINING).is_symlink():
        raise UnusableFileError(f"stands beside a link {TRAINING!r}, expected a folder")


def _refuse_format(path: Path, found: object) -> None:
    """Another format only if config.json says the same: else it is one flipped digit."""
    with contextlib.suppress(strict_json.JsonError, UnusableFileError, OSError):
        envelope = strict_json.loads_object(read_small(path / CONFIG, MAX_CONFIG))
        if type(found) is int and envelope.get("format") == found:
            raise OtherFormatError(_format_text(path, found, envelope.get("version")))
    raise strict_json.JsonError(f"expected format {FORMAT}, found {str(found)[:40]}")


def _format_text(path: Path, found: int, version: object) -> str:
    from gatewise import __version__

    writer = f"gatewise {version[:20]!r}" if isinstance(version, str) else "another version"
    return (
        f"{path} is of format {str(found)[:20]}, written by {writer}; this version "
        f"({__version__}) reads format {FORMAT}: use the version that wrote it"
    )


def _read_config(path: Path, manifest: dict[str, Digest]) -> dict[str, Any]:
    with _reading(path, CONFIG):
        data = read_small(path / CONFIG, MAX_CONFIG)
        _check_sum(data, manifest[CONFIG])
        envelope = strict_json.loads_object(data)
        if type(envelope.get("format")) is int and envelope["format"] != FORMAT:
            raise OtherFormatError(_format_text(path, envelope["format"], envelope.get("version")))
        expected = {"format": int, "version": str, "step": int, "best": bool, "config": dict}
        for key, kind in expected.items():
            if type(envelope.get(key)) is not kind:
                raise strict_json.JsonError(f"expected {key!r} of type {kind.__name__}")
        envelope["written"] = _check_written(envelope.get("written", {}))
    return envelope


def _check_written(written: object) -> dict[str, Any]:
    if not isinstance(written, dict) or not isinstance(written.get("clock", {}), dict):
        raise strict_json.JsonError("expected 'written' to be a table")
    log = written.get("log")
    if log is None:
        return written
    good = isinstance(log, dict) and type(log.get("bytes")) is int and log["bytes"] >= 0
    if not good or not isinstance(log.get("sha256"), str):
        raise strict_json.JsonError("expected bytes and sha256 of the log")
    return {**written, "log": (log["bytes"], log["sha256"])}


def _read_text(path: Path, name: str, digest: Digest) -> str:
    with _reading(path, name):
        data = read_small(path / name, MAX_TEXT)
        _check_sum(data, digest)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UnusableFileError(f"is not UTF-8 at byte {error.start}") from None


def _read_training(path: Path, manifest: dict[str, Digest], clock: Any) -> TrainingState:
    with _reading(path, STATE_META):
        data = read_small(path / STATE_META, MAX_META)
        _check_sum(data, manifest[STATE_META])
        meta = strict_json.decode_floats(strict_json.loads_object(data))
        clock = strict_json.decode_floats(clock)
        if not isinstance(meta, dict) or not isinstance(clock, dict):
            raise strict_json.JsonError("expected a table")
    with _reading(path, STATE_TENSORS):
        tensors = read_tensors(path / STATE_TENSORS, manifest[STATE_TENSORS])
    return TrainingState(tensors, meta, clock)


def _check_sum(data: bytes, digest: Digest) -> None:
    if len(data) != digest.size:
        raise UnusableFileError(_size_text(digest.size, len(data)))
    _compare(hashlib.sha256(data).hexdigest(), digest)


def _compare(sha256: str, digest: Digest) -> None:
    if sha256 != digest.sha256:
        raise UnusableFileError("has another SHA-256 than the manifest says: damaged or edited")


def _size_text(expected: int, found: int) -> str:
    return f"is {found} bytes, expected {expected}: damaged or half-written"


@contextlib.contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    """Turn what can go wrong with the file `name` into one line."""
    try:
        yield
    except strict_json.JsonError as error:
        raise CheckpointError(f"{path / name}: {error}") from None
    except (UnusableFileError, TensorFileError) as error:
        raise CheckpointError(f"{path / name}: {error}") from None
    except FileNotFoundError:
        raise CheckpointError(f"{path / name} is missing: half-written or damaged") from None
    except MemoryError:
        raise CheckpointError(f"{path / name}: not enough memory to read it") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise CheckpointError(f"cannot read {path / name}: {reason}") from None
