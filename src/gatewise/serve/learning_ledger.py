"""Which paragraphs are learnt from and which are held out: decided once, kept on disk, whatever is edited.

A new paragraph is held out by its own hash. One that shares text with paragraphs known before (an edit, a
continuation, a copy, a part) takes their side; one that shares text with both sides is left out altogether. So what
is held out never comes to be trained on in another wording, nor the other way round. Shared text is found by
fingerprints: hashes of some of the windows of 16 characters, white space and case aside, so that of a stretch in
common some are in common too. What three paragraphs or more have at the same time (a heading, a phrase) counts for
nothing. Nothing but hashes is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gatewise.checkpoint import disk
from gatewise.text.characters import code_points

Marks = NDArray[np.uint64]

FORMAT = 1
HELD, TRAIN, NEITHER = "held", "train", "neither"
SHARED = 0.25
"""Share of a paragraph's fingerprints from which on it counts as an edit of what has them."""

_WINDOW, _FEW, _EVERY, _MANY = 16, 8, 8, 3
_LARGEST = 256 << 20
_NAMES = (HELD, TRAIN, NEITHER, "held.marks", "train.marks", "learnt", "learnt.marks")


class Ledger:
    """The sides of paragraphs, and which of them a checkpoint has learnt.

    Args:
        path: its file; it need not exist.
        share: of paragraphs that are held out.

    Attributes:
        learnt: digests of what the checkpoint named by `base` has learnt.
        tried: digests of what it was to learn in vain; not kept on disk.
        base: identity of that checkpoint, or "".
        published: steps of the checkpoints that learning has added to the run.
        note: what is wrong with the file, or "".
    """

    def __init__(self, path: Path, share: float) -> None:
        self.path, self.share = path, share
        self.learnt: set[int] = set()
        self.tried: set[int] = set()
        self.base = ""
        self.published: list[int] = []
        self.note = ""
        self._sides: dict[int, str] = {}
        self._marks = {name: np.zeros(0, np.uint64) for name in (HELD, TRAIN, "learnt", "tried")}
        self._seen: dict[int, Marks] = {}
        self._read()

    def place(
        self, paragraphs: Sequence[str], between: Callable[[], None] = lambda: None
    ) -> list[tuple[int, str]]:
        """(digest, side) of each; what is new is placed for good. `save` before anything comes of it.

        Args:
            paragraphs: all that there are now: what many of them have in common says nothing.
            between: called before each that is new.
        """
        digests = [digest_of(text) for text in paragraphs]
        marks = self._marks_of(digests, paragraphs, between)
        common = _common(list(marks.values()))
        new: dict[str, set[int]] = {HELD: set(), TRAIN: set()}
        for digest in digests:
            if digest in self._sides:
                continue
            own = marks[digest][~_within(common, marks[digest])]
            side = self._sides[digest] = self._side(digest, own, new)
            if side in new:
                new[side].update(own.tolist())
        for side, found in new.items():
            more = np.fromiter(found, np.uint64, len(found))
            self._marks[side] = np.union1d(self._marks[side], more)
        return [(digest, self._sides[digest]) for digest in digests]

    def news(self, digest: int, size: int) -> int:
        """Characters of a paragraph, `size` long, that no round has read in another wording of it.

        Args:
            digest: of a paragraph that was placed last.
            size: of it.
        """
        marks = self._seen[digest]
        if not len(marks):
            return size
        read = _within(self._marks["learnt"], marks) | _within(self._marks["tried"], marks)
        return round(size * float(np.mean(~read)))

    def note_learnt(self, digests: Iterable[int], base: str) -> None:
        """The checkpoint named by `base` has learnt these, and what the one before it had."""
        digests = list(digests)
        self.learnt.update(digests)
        self.base = base
        self._mark("learnt", digests)

    def note_tried(self, digests: Iterable[int]) -> None:
        """These were to be learnt in vain."""
        digests = list(digests)
        self.tried.update(digests)
        self._mark("tried", digests)

    def begin_anew(self, base: str) -> None:
        """Another training's checkpoint is the best: what it has learnt is not known."""
        self.base, self.learnt, self.tried = base, set(), set()
        self._marks |= {name: np.zeros(0, np.uint64) for name in ("learnt", "tried")}

    def _mark(self, name: str, digests: Sequence[int]) -> None:
        found = [self._seen[digest] for digest in digests if digest in self._seen]
        self._marks[name] = np.unique(np.concatenate([self._marks[name], *found]))

    def _marks_of(
        self, digests: Sequence[int], paragraphs: Sequence[str], between: Callable[[], None]
    ) -> dict[int, Marks]:
        """The fingerprints of each paragraph; those of the last look are not made again."""
        known, self._seen = self._seen, {}
        for digest, text in zip(digests, paragraphs, strict=True):
            if digest not in known:
                between()
            self._seen[digest] = known[digest] if digest in known else fingerprints(text)
        return self._seen

    def _side(self, digest: int, marks: Marks, new: dict[str, set[int]]) -> str:
        near = [side for side in (HELD, TRAIN) if self._shared(marks, side, new[side]) >= SHARED]
        if len(near) == 1:
            return near[0]
        if near:
            return NEITHER
        return HELD if (digest >> 32) < self.share * 2**32 else TRAIN

    def _shared(self, marks: Marks, side: str, new: set[int]) -> float:
        """The share of `marks` that the side has."""
        if not len(marks):
            return 0.0
        fresh = np.array([mark in new for mark in marks.tolist()])
        return float(np.mean(_within(self._marks[side], marks) | fresh))

    def save(self) -> None:
        """Write the file anew, in one step.

        Raises:
            OSError: as the system gives it; the old file is whole.
        """
        arrays = [self._array(name) for name in _NAMES]
        body = b"".join(array.astype("<u8").tobytes() for array in arrays)
        head = {
            "format": FORMAT,
            "base": self.base,
            "published": self.published,
            "counts": [len(array) for array in arrays],
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        disk.replace_file(self.path, json.dumps(head).encode() + b"\n" + body)

    def _array(self, name: str) -> Marks:
        if name.endswith(".marks"):
            return self._marks[name.removesuffix(".marks")]
        if name == "learnt":
            return np.array(sorted(self.learnt), np.uint64)
        return np.array([d for d, side in self._sides.items() if side == name], np.uint64)

    def _read(self) -> None:
        try:
            head, _, body = disk.read_small(self.path, _LARGEST).partition(b"\n")
            self._take(json.loads(head), body)
        except FileNotFoundError:
            return
        except (OSError, disk.UnusableFileError, ValueError, LookupError, TypeError) as error:
            self.note = f"{self.path} cannot be used ({str(error)[:80]}): what was learnt and held out is decided anew"

    def _take(self, head: dict[str, Any], body: bytes) -> None:
        if head["format"] != FORMAT or hashlib.sha256(body).hexdigest() != head["sha256"]:
            raise ValueError("damaged, or of another version")
        numbers = np.frombuffer(body, "<u8").astype(np.uint64)
        counts = head["counts"]
        if len(counts) != len(_NAMES) or sum(counts) != len(numbers):
            raise ValueError("damaged")
        arrays = dict(zip(_NAMES, np.split(numbers, np.cumsum(counts)[:-1]), strict=True))
        for side in (HELD, TRAIN, NEITHER):
            self._sides |= dict.fromkeys(arrays[side].tolist(), side)
        self._marks |= {name: arrays[f"{name}.marks"] for name in (HELD, TRAIN, "learnt")}
        self.learnt = set(arrays["learnt"].tolist())
        self.base, self.published = str(head["base"]), [int(step) for step in head["published"]]


def digest_of(text: str) -> int:
    """64 bits of a text's hash."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def fingerprints(text: str) -> Marks:
    """Hashes of some windows of a text, sorted: the few lowest, and every one that 8 divides."""
    codes = code_points(" ".join(text.casefold().split())).astype(np.uint64)
    count = len(codes) - _WINDOW + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    sums = np.zeros(count, np.uint64)
    for at in range(_WINDOW):
        sums = sums * np.uint64(0x100000001B3) + codes[at : at + count]
    sums = (sums ^ (sums >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    found = np.unique(sums ^ (sums >> np.uint64(32)))
    chosen: Marks = found[(np.arange(len(found)) < _FEW) | (found % np.uint64(_EVERY) == 0)]
    return chosen


def _common(marks: Sequence[Marks]) -> Marks:
    """What `_MANY` paragraphs or more have, sorted."""
    if not marks:
        return np.zeros(0, np.uint64)
    values, counts = np.unique(np.concatenate(marks), return_counts=True)
    return values[counts >= _MANY]


def _within(known: Marks, marks: Marks) -> NDArray[np.bool_]:
    """Which of `marks` are in `known`, which is sorted."""
    if not len(known):
        return np.zeros(len(marks), bool)
    at = np.minimum(np.searchsorted(known, marks), len(known) - 1)
    return np.asarray(known[at] == marks)
