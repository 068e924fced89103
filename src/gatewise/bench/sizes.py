"""The sizes that are measured, and how they are written on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from gatewise.errors import OptionError


@dataclass(frozen=True)
class Size:
    """A training run: T steps, B columns, H units (and inputs), L layers."""

    steps: int
    batch: int
    hidden: int
    layers: int

    def __str__(self) -> str:
        return f"{self.steps},{self.batch},{self.hidden},{self.layers}"

    @property
    def title(self) -> str:
        """As people read it."""
        return f"T {self.steps}, B {self.batch}, H {self.hidden}, L {self.layers}"

    @property
    def tokens(self) -> int:
        """Steps of all columns."""
        return self.steps * self.batch

    def operations(self, blocks: int) -> int:
        """Multiplications and additions of the matrix products, forward and backward.

        Forward W x and R h, backward twice as much: gradients of the inputs and of the weights.
        """
        return 3 * self.layers * self.tokens * 2 * blocks * self.hidden * 2 * self.hidden


@dataclass(frozen=True)
class StepSize:
    """A language model that writes: H units, V tokens, B columns, L layers."""

    hidden: int
    vocabulary: int
    batch: int = 1
    layers: int = 2

    def __str__(self) -> str:
        return f"{self.hidden},{self.vocabulary},{self.batch},{self.layers}"

    @property
    def title(self) -> str:
        """As people read it."""
        return f"H {self.hidden}, V {self.vocabulary:,}, B {self.batch}, L {self.layers}"

    def weights(self, blocks: int) -> int:
        """Numbers that one step must read: all but the embedding, of which it reads a row."""
        return self.layers * blocks * self.hidden * 2 * self.hidden + self.vocabulary * self.hidden


TRAINING = (
    Size(35, 20, 200, 2),
    Size(35, 20, 650, 2),
    Size(35, 20, 1500, 2),
    Size(100, 50, 512, 2),
    Size(50, 64, 256, 1),
)
STEPPING = tuple(
    StepSize(hidden, vocabulary, batch)
    for batch in (1, 16)
    for hidden, vocabulary in (
        (256, 100),
        (512, 100),
        (512, 10_000),
        (1024, 10_000),
        (1500, 33_278),
    )
)
QUICK_TRAINING = (TRAINING[0], TRAINING[4])
QUICK_STEPPING = (STEPPING[0], STEPPING[1])
VOCABULARIES = (100, 10_000)


def read_sizes(text: str, default: tuple[Size, ...]) -> tuple[Size, ...]:
    """Training sizes from ``35,20,200,2;50,64,256,1``; `default` for an empty text.

    Raises:
        OptionError: if one is not four whole numbers from 1.
    """
    return tuple(Size(*_numbers(part, "T,B,H,L", 4)) for part in _parts(text)) or default


def read_step_sizes(text: str, default: tuple[StepSize, ...]) -> tuple[StepSize, ...]:
    """Sizes of a step from ``256,100,1,2;512,100``: H,V, then B (1) and L (2).

    Raises:
        OptionError: if one is not two to four whole numbers from 1.
    """
    return tuple(StepSize(*_numbers(part, "H,V[,B[,L]]", 2)) for part in _parts(text)) or default


def _parts(text: str) -> list[str]:
    return [part for part in text.replace(";", " ").split() if part]


def _numbers(text: str, form: str, fewest: int) -> list[int]:
    words = text.split(",")
    if not fewest <= len(words) <= 4 or not all(w.isdecimal() and int(w) > 0 for w in words):
        raise OptionError(
            f"--sizes: expected {form} in whole numbers from 1, and ; between several; found {text!r}"
        )
    return [int(word) for word in words]
