"""Token files on disk under the sum of what they were made of.

An entry is a folder that is complete or absent: written under a temporary name and renamed. Its
sums are checked when it is opened; a broken entry counts as absent. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gatewise.errors import CheckpointError, DataError
from gatewise.text.tokenizers import Tokenizer, from_json

FORMAT = 1
_MANIFEST = "manifest.json"
_TOKENIZER = "tokenizer.json"
_MAX_MANIFEST = 64 * 2**20
_DAY = 86400.0


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every id."""
    if vocab_size <= 2**8:
        return np.dtype("u1")
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


@dataclass(frozen=True)
class Part:
    """The tokens of one split, with what they were made of.

    Attributes:
        tokens: number of ids.
        characters, bytes: of the text (bytes in UTF-8).
        unknown: how many ids are the unknown one where the text has something else.
        starts: (index of the document, first token) of each document in the split.
        sha256: of the token file.
    """

    tokens: int
    characters: int
    bytes: int
    unknown: int
    starts: list[tuple[int, int]]
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A complete, checked folder of token files."""

    folder: Path
    tokenizer: Tokenizer
    parts: dict[str, Part]

    def ids(self, split: str) -> NDArray[np.unsignedinteger[Any]]:
        """The ids of a split as a memory map, (N,)."""
        dtype = token_dtype(self.tokenizer.vocab_size)
        return np.memmap(self.folder / f"{split}.bin", dtype=dtype, mode="r")


class PartWriter:
    """Writes one split's token file, and counts and sums as it goes."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self._file: IO[bytes] = open(path, "wb")  # noqa: SIM115 (closed by `close`)
        self._dtype = dtype
        self._digest = hashlib.sha256()
        self.tokens = 0
        self.characters = 0
        self.bytes = 0
        self.unknown = 0
        self.starts: list[tuple[int, int]] = []

    def start(self, document: int) -> None:
        """What follows comes from `document`."""
        self.starts.append((document, self.tokens))

    def write(self, ids: NDArray[np.int64]) -> None:
        data = ids.astype(self._dtype).tobytes()
        self._file.write(data)
        self._digest.update(data)
        self.tokens += len(ids)

    def close(self) -> Part:
        self._file.close()
        counts = (self.tokens, self.characters, self.bytes, self.unknown)
        return Part(*counts, self.starts, self._digest.hexdigest())


def make_entry(
    cache: Path,
    fingerprint: str,
    make: Callable[[Path], tuple[Tokenizer, dict[str, Part]]],
) -> Entry:
    """The entry that `make` writes, under its final name.

    Two processes may do this at once: one entry stays, and both use it.

    Args:
        cache: the folder of all entries.
        fingerprint: the entry's name.
        make: writes the token files into a folder.
    """
    cache.mkdir(parents=True, exist_ok=True)
    _sweep(cache)
    temporary = Path(tempfile.mkdtemp(prefix=f".{fingerprint[:16]}-", dir=cache))
    try:
        tokenizer, parts = make(temporary)
        tokenizer.save(temporary / _TOKENIZER)
        _write_manifest(temporary, fingerprint, parts)
        return _publish(temporary, cache / fingerprint, fingerprint)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_temporary(make: Callable[[Path], tuple[Tokenizer, dict[str, Part]]]) -> Entry:
    """As `make_entry`, in a folder that is removed with the entry."""
    folder = Path(tempfile.mkdtemp(prefix="gatewise-"))
    try:
        tokenizer, parts = make(folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise DataError(f"cannot write tokens to {folder}: {error.strerror}") from error
        raise
    entry = Entry(folder, tokenizer, parts)
    weakref.finalize(entry, shutil.rmtree, folder, ignore_errors=True)
    return entry


def open_entry(cache: Path, fingerprint: str) -> Entry | None:
    """The entry, or None where there is none, or none that is whole."""
    folder = cache / fingerprint
    try:
        parts = _read_manifest(folder, fingerprint)
        tokenizer = from_json((folder / _TOKENIZER).read_text("utf-8"))
        width = token_dtype(tokenizer.vocab_size).itemsize
        for split, part in parts.items():
            path = folder / f"{split}.bin"
            if path.stat().st_size != part.tokens * width or _sum(path) != part.sha256:
                return None
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    except CheckpointError:
        return None
    return Entry(folder, tokenizer, parts)


def _sweep(cache: Path) -> None:
    """Removes what a process that was killed left a day ago or earlier."""
    with os.scandir(cache) as entries:
        old = [e.path for e in entries if e.name.startswith(".") and _age(e) > _DAY]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)


def _age(entry: os.DirEntry[str]) -> float:
    """Seconds since a change; 0 for what is gone."""
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


def _publish(temporary: Path, final: Path, fingerprint: str) -> Entry:
    """Renames `temporary` to `final`, unless a whole entry came there meanwhile."""
    for _ in range(10):
        try:
            os.rename(temporary, final)
        except OSError:
            if entry := open_entry(final.parent, fingerprint):
                return entry
            # What stands there is broken: move it away as a whole, then try again.
            aside = Path(tempfile.mkdtemp(prefix=".broken-", dir=final.parent))
            try:
                os.rename(final, aside / "entry")
            except OSError:
                pass  # another process was faster
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        else:
            break
    if entry := open_entry(final.parent, fingerprint):
        return entry
    raise DataError(f"cannot write the cache {final}: remove it, or choose another with --cache")


def _body(fingerprint: str, parts: dict[str, Part], folder: Path) -> str:
    splits = {name: vars(part) for name, part in parts.items()}
    tokenizer = _sum(folder / _TOKENIZER)
    body = {"fingerprint": fingerprint, "tokenizer": tokenizer, "splits": splits}
    return json.dumps(body, sort_keys=True)


def _write_manifest(folder: Path, fingerprint: str, parts: dict[str, Part]) -> None:
    body = _body(fingerprint, parts, folder)
    digest = hashlib.sha256(body.encode()).hexdigest()
    manifest = {"format": FORMAT, "body": body, "sha256": digest}
    (folder / _MANIFEST).write_text(json.dumps(manifest), "utf-8")


def _read_manifest(folder: Path, fingerprint: str) -> dict[str, Part]:
    """The parts that a manifest names; any exception means that it is broken."""
    path = folder / _MANIFEST
    if path.stat().st_size > _MAX_MANIFEST:
        raise ValueError("too large")
    manifest = json.loads(path.read_text("utf-8"))
    body = manifest["body"]
    if (
        manifest["format"] != FORMAT
        or hashlib.sha256(body.encode()).hexdigest() != manifest["sha256"]
    ):
        raise ValueError("wrong sum")
    parsed = json.loads(body)
    if parsed["fingerprint"] != fingerprint or parsed["tokenizer"] != _sum(folder / _TOKENIZER):
        raise ValueError("another entry's")
    return {
        split: Part(**{**part, "starts": [(d, at) for d, at in part["starts"]]})
        for split, part in parsed["splits"].items()
        if split in ("train", "valid", "test")
    }


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(2**20):
            digest.update(data)
    return digest.hexdigest()
