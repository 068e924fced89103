"""One checkpoint folder, written: under a temporary name, synced, and only then named.

Until the rename nothing of it can be taken for a checkpoint; after it everything is on the disk.
Knows nothing of runs and pointers.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gatewise.checkpoint import disk, strict_json
from gatewise.checkpoint.contents import (
    CONFIG,
    EXTRA,
    FORMAT,
    KNOWN,
    MANIFEST,
    MAX_CONFIG,
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
from gatewise.checkpoint.disk import Digest
from gatewise.checkpoint.tensors import TensorFileError, encode
from gatewise.errors import CheckpointError, OptionError

TEMPORARY, REPLACED, DELETED = ".tmp-", ".old-", ".gone-"


@dataclass
class Parts:
    """Everything that one checkpoint folder is made of; see `Checkpoint` for the fields."""

    step: int
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    tokenizer_json: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    training: TrainingState | None = None
    is_best: bool = False
    log: tuple[int, str] | None = None

    def small_files(self) -> dict[str, bytes]:
        """The content of every file that is text, by name.

        Raises:
            OptionError: something that a checkpoint cannot hold, or could not read back.
        """
        contents: dict[str, bytes] = {CONFIG: _json(CONFIG, self._envelope(), MAX_CONFIG)}
        texts = dict(self.extra)
        for name in texts:
            if name in (*KNOWN, MANIFEST) or not EXTRA.fullmatch(name):
                raise OptionError(f"{name!r} cannot be the name of a file of a checkpoint")
        if self.tokenizer_json is not None:
            texts[TOKENIZER] = self.tokenizer_json
        for name, text in texts.items():
            contents[name] = _limited(name, _utf8(name, text), MAX_TEXT)
        if self.training is not None:
            meta = strict_json.encode_floats(self.training.meta)
            contents[STATE_META] = _json(STATE_META, meta, MAX_META)
        return contents

    def _envelope(self) -> dict[str, Any]:
        from gatewise import __version__

        written: dict[str, Any] = {}
        if self.log is not None:
            written["log"] = {"bytes": self.log[0], "sha256": self.log[1]}
        if self.training is not None and self.training.clock:
            written["clock"] = strict_json.encode_floats(self.training.clock)
        return {
            "format": FORMAT,
            "version": __version__,
            "step": self.step,
            "best": self.is_best,
            "config": dict(self.config),
            **({"written": written} if written else {}),
        }


def write_checkpoint(path: Path, parts: Parts) -> None:
    """Write the checkpoint folder `path`; an older one of that name is replaced.

    Raises:
        OptionError: contents that a checkpoint cannot hold; nothing was written.
        OSError: as the system gives it; the temporary folder is removed where that is possible.
    """
    files = parts.small_files()
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    replaced = path.with_name(f"{REPLACED}{path.name}-{secrets.token_hex(4)}")
    try:
        os.mkdir(temporary)
        _write_files(temporary, parts, files)
        if path.exists():
            os.rename(path, replaced)  # until the next line it is found under this name
        os.rename(temporary, path)
    except BaseException as error:
        disk.remove_tree(temporary)
        if replaced.exists() and not path.exists():
            with contextlib.suppress(OSError):
                os.rename(replaced, path)
        if isinstance(error, TensorFileError):
            raise OptionError(f"cannot save step {parts.step}: {error}") from None
        raise
    disk.sync_folder(path.parent)
    disk.remove_tree(replaced)


def _write_files(folder: Path, parts: Parts, files: Mapping[str, bytes]) -> None:
    digests: dict[str, Digest] = {}
    if parts.training is not None:
        os.mkdir(folder / TRAINING)
        digests[STATE_TENSORS] = disk.write_file(
            folder / STATE_TENSORS, encode(parts.training.tensors)
        )
    digests[MODEL] = disk.write_file(folder / MODEL, encode(parts.tensors))
    for name, content in files.items():
        digests[name] = disk.write_file(folder / name, [content])
    disk.write_file(folder / MANIFEST, [manifest_bytes(digests)])
    if parts.training is not None:
        disk.sync_folder(folder / TRAINING)
    disk.sync_folder(folder)


def manifest_bytes(digests: Mapping[str, Digest]) -> bytes:
    """The content of manifest.json."""
    files = {name: digests[name]._asdict() for name in sorted(digests)}
    return strict_json.dumps({"format": FORMAT, "files": files})


def export_checkpoint(checkpoint: Checkpoint, destination: str | Path) -> Path:
    """Write `checkpoint` to the new folder `destination`, without its training state.

    What is left is what generating and evaluating need: settings, weights, tokenizer.

    Returns:
        The folder.
    Raises:
        OptionError: something is already there; it is left untouched.
        CheckpointError: it cannot be written.
    """
    path = Path(destination)
    if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise OptionError(f"{path} exists: expected a new or empty folder, choose another")
    parts = Parts(
        checkpoint.step,
        checkpoint.config,
        checkpoint.tensors,
        checkpoint.tokenizer_json,
        checkpoint.extra,
        is_best=checkpoint.is_best,
    )
    try:
        path = path.absolute()
        disk.make_folder(path.parent)
        if path.exists():
            path.rmdir()
        write_checkpoint(path, parts)
    except OSError as error:
        raise save_error(f"cannot export to {path}", error) from None
    return path


def save_error(doing: str, error: OSError) -> CheckpointError:
    """The one line for a system call that failed: what was being done, the file, the reason."""
    file = f" ({Path(os.fsdecode(error.filename)).name})" if error.filename else ""
    return CheckpointError(f"{doing}{file}: {error.strerror or type(error).__name__}")


def _json(name: str, value: object, limit: int) -> bytes:
    try:
        return _limited(name, strict_json.dumps(value), limit)
    except strict_json.JsonError as error:
        raise OptionError(f"{name} cannot hold this: {error}") from None


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise OptionError(f"{name} cannot hold this: {error.reason}") from None


def _limited(name: str, content: bytes, limit: int) -> bytes:
    if len(content) > limit:
        raise OptionError(f"{name} would be {len(content)} bytes, at most {limit} are allowed")
    return content
