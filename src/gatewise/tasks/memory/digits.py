"""Sequential digits: handwritten digits read as a sequence, and named at the end (after Le et al. 2015)."""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np

from gatewise.errors import FailedError, OptionError
from gatewise.tasks.memory.base import (
    Array,
    MemoryBatch,
    MemoryTask,
    Published,
    Sequences,
    Success,
    at_end,
    check_numbers,
    last_step,
)
from gatewise.tasks.programs import PARTS, stream

_HELD = 180
"""Images of validation, and as many of test, of 1,797."""
_BRIGHTEST = 16.0


class Digits(MemoryTask):
    """The 8 x 8 digits of scikit-learn, pixel by pixel; at the end, which digit it was.

    Raises:
        FailedError: scikit-learn, which brings the images, is not installed.
    """

    name: ClassVar[str] = "digits"
    summary: ClassVar[str] = "a handwritten digit, one pixel at a time: which is it"
    published: ClassVar[Published] = Published(
        source="after Le, Jaitly & Hinton 2015 (arXiv 1504.00941), section 4.3, who read the 784 pixels of MNIST; here the "
        "8 x 8 images that scikit-learn brings (extra sklearn)",
        lengths="pixels: 64 steps, row by row; permuted: the same in one random order for all",
        data="1,437 images to train on, again and again, 180 of validation, 180 of test",
        success="published is the accuracy on other images; solved here: 95 % of 180, by the largest probability",
    )
    success: ClassVar[Success] = Success(_HELD, 0.95)
    lengths: ClassVar[tuple[str, ...]] = ("pixels", "permuted")
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    symbols: ClassVar[tuple[str, ...]] = ("pixel",)
    numeric: ClassVar[bool] = True

    def __init__(self, length: str | int | None = None) -> None:
        super().__init__(length)
        if self.length not in self.lengths:
            raise OptionError(
                f"--length: expected one of {', '.join(self.lengths)} for {self.name}, found {self.length!r}"
            )

    def batch(self, part: str, index: int, size: int, *, seed: int = 1) -> MemoryBatch:
        """Batch number `index` of a part; see `MemoryTask.batch`.

        Of training, images drawn without one twice, as long as there are others. Of validation and test the batches
        of one size go on through all of them in one order, so that 180 are all different.
        """
        check_numbers(index, size, seed)
        rng, rows = stream(seed, index if part == "train" else 0, part), _parts()[part]
        if part != "train":
            places = (index * size + np.arange(size)) % len(rows)
            return self._tensors(self._sequences(rng.permutation(rows)[places]))
        rounds = [rng.permutation(rows) for _ in range(-(-size // len(rows)))]
        return self._tensors(self._sequences(np.concatenate(rounds)[:size]))

    def draw(self, rng: np.random.Generator, count: int, part: str) -> Sequences:
        """Any images of the part."""
        return self._sequences(rng.choice(_parts()[part], size=count))

    def _sequences(self, rows: Array) -> Sequences:
        images, answers = _images()
        steps = images.shape[1]
        inputs = images[rows]
        if self.length == "permuted":
            inputs = inputs[:, np.random.default_rng(0).permutation(steps)]
        inputs = inputs.reshape(len(rows), steps, -1)
        lengths = np.full(len(rows), steps)
        return Sequences(
            inputs, at_end(answers[rows], lengths, steps), last_step(lengths, steps), lengths
        )


@functools.cache
def _images() -> tuple[Array, Array]:
    """(1797, 64) float32 of [0, 1], and (1797,) digits."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise FailedError(
            "the task digits needs scikit-learn, which brings the images: run pip install 'gatewise[sklearn]'"
        ) from None
    found = load_digits()
    return (found.data / _BRIGHTEST).astype(np.float32), found.target.astype(np.int64)


@functools.cache
def _parts() -> dict[str, Array]:
    """The images of each part, the same everywhere."""
    order = np.random.default_rng(1).permutation(len(_images()[1]))
    train, valid, test = np.split(order, [len(order) - 2 * _HELD, len(order) - _HELD])
    return dict(zip(PARTS, (train, valid, test), strict=True))
