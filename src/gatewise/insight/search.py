"""Where else in a text the same units are on: an index of them on disk, and patterns looked up in it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gatewise.errors import DataError, OptionError, unknown
from gatewise.insight.reading import COLUMNS, WARM, read_long
from gatewise.run import LanguageRun

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

FORMAT = 1
PIECE = 100_000
"""Tokens that are read at once while an index is made."""


@dataclass(frozen=True, eq=False)
class Index:
    """Which units are on at each token of a text: above a threshold.

    Args:
        path: of the gate or state: layers.0.c.
        threshold: above which a unit is on.
        ids: (N,), the tokens.
        bits: (units, ceil(N / 8)) uint8, a bit a token, from a file.
        weights: a sum of the checkpoint that read the text.
    """

    path: str
    threshold: float
    ids: Array
    bits: Array
    weights: str

    def __len__(self) -> int:
        return len(self.ids)

    def on(self, unit: int, begin: int = 0, end: int | None = None) -> Array:
        """Whether a unit is on, of the tokens from `begin` to `end`."""
        whole = np.unpackbits(np.asarray(self.bits[unit]), count=len(self.ids))
        found: Array = whole[begin:end].astype(bool)
        return found


@dataclass(frozen=True)
class Pattern:
    """Units that are on in a span and off around it, and those that are the other way round.

    Args:
        on, off: numbers of the units that are on in it, and that are off in it.
        length: of the span, in tokens.
    """

    on: tuple[int, ...]
    off: tuple[int, ...]
    length: int

    def __len__(self) -> int:
        return len(self.on) + len(self.off)


@dataclass(frozen=True)
class Place:
    """Where a pattern stands.

    Args:
        begin, end: tokens.
        score: 0 to 1: units that are as in the pattern there, the rare ones counting more.
    """

    begin: int
    end: int
    score: float


def weights_of(run: LanguageRun) -> str:
    """A sum of the checkpoint's files, by which an index knows its run."""
    manifest = run.path / "manifest.json"
    if not manifest.is_file():
        raise DataError(f"{run.path}: expected a manifest.json, found none")
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def make_index(
    run: LanguageRun,
    text: str,
    folder: Path,
    *,
    path: str = "layers.0.c",
    threshold: float = 0.3,
    engine: str = "auto",
    told: Callable[[int], None] = lambda done: None,
) -> Index:
    """Read a text, and write down which units are on.

    Cell states are seen through tanh, as the output gate sees them, so that one threshold fits all.

    Args:
        run: of a language model.
        text: at least two tokens.
        folder: a new one; it is there whole, or not at all.
        path: whole, of a gate or state.
        threshold: above which a unit is on.
        engine: of the recurrent layers.
        told: called with the number of tokens that are done.
    Raises:
        DataError: the text is too short, or the folder cannot be written.
        OptionError: the threshold is no finite number.
        UnknownNameError: there is no such path.
    """
    names = run.model.stack.names()
    if path not in names:
        raise unknown("path", path, names)
    if not math.isfinite(threshold):
        raise OptionError(f"threshold: expected a finite number, found {threshold}")
    ids = np.asarray(run.tokenizer.encode(text), np.int64)
    if len(ids) < 2:
        raise DataError(f"expected a text of at least two tokens, found {len(ids)}")
    rows: list[Array] = []
    for begin in range(0, len(ids), PIECE):
        early = max(0, begin - WARM)
        stop = min(begin + PIECE, len(ids))
        on = _on(run, ids[early:stop], path, threshold, engine)[begin - early :]
        rows.append(
            np.packbits(on.T, axis=1)
        )  # a piece is a whole number of bytes, but for the last
        told(stop)
    about = {"format": FORMAT, "path": path, "threshold": threshold, "tokens": len(ids)}
    about["weights"] = weights_of(run)
    _write(folder, ids.astype(np.uint32), np.concatenate(rows, axis=1), about)
    return open_index(folder)


def _write(folder: Path, ids: Array, bits: Array, about: Mapping[str, Any]) -> None:
    """An index under a temporary name, then under its own; DataError if it cannot be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".index-"))
        try:
            np.save(made / "ids.npy", ids)
            np.save(made / "bits.npy", bits)
            (made / "index.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
            os.replace(made, folder)
        except OSError:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise DataError(f"{folder}: cannot write the index: {error.strerror}") from None


def _on(
    run: LanguageRun,
    ids: Array,
    path: str,
    threshold: float,
    engine: str,
    columns: int = COLUMNS,
) -> Array:
    """Which units are on at each token, (N, units)."""
    values = read_long(run, ids, record=[path], columns=columns, engine=engine).record[path]
    if path.rpartition(".")[2] == "c":
        values = np.tanh(values)
    found: Array = values > threshold
    return found


def open_index(folder: Path) -> Index:
    """An index that `make_index` wrote; its bits stay on disk.

    Raises:
        DataError: it is none, or of another format.
    """
    try:
        about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}")
        ids = np.load(folder / "ids.npy", allow_pickle=False)
        bits = np.load(folder / "bits.npy", mmap_mode="r", allow_pickle=False)
        if ids.shape != (about["tokens"],) or bits.shape[1:] != (-(-len(ids) // 8),):
            raise ValueError("sizes that do not fit")
        if bits.dtype != np.uint8 or ids.dtype.kind != "u":
            raise ValueError(f"numbers of {bits.dtype} and {ids.dtype}")
        return Index(about["path"], float(about["threshold"]), ids, bits, str(about["weights"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder}: expected an index of `inspect search`, found {error}") from None


def pattern_of(
    run: LanguageRun,
    text: str,
    span: tuple[int, int],
    index: Index,
    *,
    around: int = 0,
    engine: str = "auto",
) -> Pattern:
    """The units that are on all through a span of a text and off before and after it, or off in it and on around.

    As LSTMVis selects those that are on (Strobelt et al. 2018, section 5).

    Args:
        run: that made the index.
        text: read from the start state.
        span: first token, and the one behind the last.
        index: whose gate or state and threshold count.
        around: tokens on each side, as far as there are some, at which a unit must be the other way; 0: those that
            are on in the span, whatever they are around it.
        engine: of the recurrent layers.
    Raises:
        OptionError: the span is not in the text, or around is less than 0.
        DataError: no unit is like that.
    """
    if around < 0:
        raise OptionError(f"around: expected a whole number of 0 or more, found {around}")
    ids = np.asarray(run.tokenizer.encode(text), np.int64)
    begin, end = span
    if not 0 <= begin < end <= len(ids):
        raise OptionError(
            f"span: expected two of 0 to {len(ids)}, the first smaller, found {begin}:{end}"
        )
    on = _on(run, ids, index.path, index.threshold, engine, columns=1)
    chosen = np.asarray(on[begin:end].all(0))
    other = np.asarray(~on[begin:end].any(0))
    if not around:
        other[:] = False
    for side in (on[max(0, begin - around) : begin], on[end : end + around]):
        chosen &= ~side.any(0)
        other &= side.all(0)
    found = [tuple(np.flatnonzero(one).tolist()) for one in (chosen, other)]
    if not any(found):
        beside = " and off around it, or the other way round" if around else ""
        raise DataError(
            f"expected units of {index.path} that are on (above {index.threshold:g}) all through the span{beside}, "
            f"found none: choose another span or threshold{', or around 0' if around else ''}"
        )
    return Pattern(found[0], found[1], end - begin)


def find(index: Index, pattern: Pattern, *, least: float = 0.5, top: int = 20) -> list[Place]:
    """Where a pattern's units are as in it, the best first; places of the span's length, none over another.

    A unit counts the more the seldomer it is like that in the text, as -ln of its frequency: one that is always on says
    nothing, and one that never is counts as if it were once, so that no place is quite like the span. (LSTMVis counts
    units alike.)

    Args:
        index: of the text.
        pattern: from `pattern_of`.
        least: smallest score of a place, 0 to 1.
        top: how many.
    Raises:
        OptionError: least or top is outside its range, or there is no such unit.
        DataError: all of the units are like that all through the text.
    """
    if not 0 <= least <= 1 or top < 1:
        raise OptionError(
            f"expected a least score from 0 to 1 and a top of 1 or more, found {least} and {top}"
        )
    units = (*pattern.on, *pattern.off)
    if not units or max(units) >= len(index.bits):
        raise OptionError(f"units: expected some of 0 to {len(index.bits) - 1}, found {units}")
    if pattern.length > len(index):
        return []
    scores = np.zeros(len(index), np.float32)
    whole = 0.0
    for unit in units:
        bits = np.unpackbits(np.asarray(index.bits[unit]), count=len(index))
        if unit not in pattern.on:
            bits = 1 - bits
        count = int(bits.sum(dtype=np.int64))
        weight = -float(np.log(max(count, 1) / len(index)))
        whole += weight
        if weight:
            scores += np.float32(weight) * bits
    if not whole:
        raise DataError("expected units that are at times the other way in the text, found none")
    sums = np.concatenate([[0.0], np.cumsum(scores, dtype=np.float64)])
    windows = (sums[pattern.length :] - sums[: -pattern.length]) / (pattern.length * whole)
    return _apart(windows, pattern.length, least, top)


def _apart(windows: Array, length: int, least: float, top: int) -> list[Place]:
    """The best windows that do not overlap."""
    found: list[Place] = []
    left = windows.copy()
    while len(found) < top:
        best = int(left.argmax())
        if left[best] < least:
            break
        found.append(Place(best, best + length, float(left[best])))
        left[max(0, best - length + 1) : best + length] = -1.0
    return found


def context(run: LanguageRun, index: Index, place: Place, tokens: int = 30) -> Sequence[str]:
    """The text before, in and behind a place."""
    cuts = (max(0, place.begin - tokens), place.begin, place.end, place.end + tokens)
    return [run.tokenizer.decode(index.ids[a:b].astype(np.int64)) for a, b in pairwise(cuts)]
