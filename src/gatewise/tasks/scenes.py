"""Rendered scenes of shapes, each with its one true caption: captioning without any download.

A scene holds one to three objects; its caption follows a grammar with one form for each scene, so that
"exactly right" is defined:

    scene    = object | object relation object | object relation object relation object
    object   = "a" size colour shape
    relation = "left of" | "above"

The first object is the leftmost (left of) or the topmost (above); both relations of a sentence are the
same. Train and test share no combination of objects and relations. Drawing needs Pillow, the extra `caption`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gatewise.errors import OptionError

Image: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 210, 40),
    "purple": (150, 60, 180),
    "white": (245, 245, 245),
}
SIZES = {"small": 0.13, "large": 0.24}  # width as a share of the image's
RELATIONS = ("left of", "above")
PARTS = ("train", "valid", "test")
_BACKGROUNDS = ((20, 20, 24), (58, 58, 66), (92, 88, 84))
_TENTHS = {"test": (0,), "valid": (1,), "train": tuple(range(2, 10))}
_FINER = 4  # drawn so many times larger, then averaged: smooth edges


@dataclass(frozen=True)
class Thing:
    """One object: its size, colour and shape, by name."""

    size: str
    colour: str
    shape: str

    def phrase(self) -> str:
        """As a caption says it."""
        return f"a {self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What is in a picture, without where exactly.

    >>> two = Scene((Thing("small", "red", "circle"), Thing("large", "blue", "cross")), "left of")
    >>> two.caption()
    'a small red circle left of a large blue cross'

    Args:
        things: one to three, in the order of the relation.
        relation: of each to the next; "" for one thing.
    """

    things: tuple[Thing, ...]
    relation: str

    def caption(self) -> str:
        """The one sentence that is exactly right."""
        phrases = [thing.phrase() for thing in self.things]
        return f" {self.relation} ".join(phrases)

    def tenth(self) -> int:
        """0 to 9, by the caption alone: which part the scene belongs to."""
        return hashlib.sha256(self.caption().encode()).digest()[0] % 10


def scene(k: int, seed: int = 0, part: str = "train", most: int = 3) -> Scene:
    """What is in picture number k: a function of seed, part and k.

    Args:
        k: its number, 0 or more.
        seed: of all.
        part: train, valid or test: they share no scene, whatever their seeds.
        most: most things in a picture, 1 to 3.
    Raises:
        OptionError: if an argument is none of these.
    """
    if part not in PARTS:
        raise OptionError(f"expected the part {', '.join(PARTS)}, found {part!r}")
    if k < 0 or not 1 <= most <= 3:
        raise OptionError(f"expected a number from 0 and 1 to 3 things, found {k} and {most}")
    rng = _stream(seed, part, k, 0)
    while True:
        found = _draw_scene(rng, most)
        if found.tenth() in _TENTHS[part]:
            return found


def picture(k: int, seed: int = 0, part: str = "train", most: int = 3, pixels: int = 48) -> Image:
    """Picture number k, (pixels, pixels, 3) uint8: `scene(k, ...)` at drawn places.

    Raises:
        OptionError: if Pillow is not installed, or an argument is out of its range.
    """
    if not 16 <= pixels <= 1024:
        raise OptionError(f"expected pictures of 16 to 1024 pixels, found {pixels}")
    return render(scene(k, seed, part, most), _stream(seed, part, k, 1), pixels)


def pictures(
    n: int, seed: int = 0, part: str = "train", most: int = 3, pixels: int = 48
) -> tuple[Image, list[str]]:
    """The first n pictures, (n, pixels, pixels, 3), and their captions."""
    images = [picture(k, seed, part, most, pixels) for k in range(n)]
    shape = (0, pixels, pixels, 3)
    stacked = np.stack(images) if images else np.zeros(shape, np.uint8)
    return stacked, [scene(k, seed, part, most).caption() for k in range(n)]


def parse(caption: str) -> Scene | None:
    """The scene that a caption tells of; None if it is no sentence of the grammar.

    >>> parse("a small red circle above a large blue cross").relation
    'above'
    """
    relation = next((r for r in RELATIONS if f" {r} " in caption), "")
    things = []
    for phrase in caption.split(f" {relation} ") if relation else [caption]:
        words = phrase.split(" ")
        if len(words) != 4 or words[0] != "a":
            return None
        _, size, colour, shape = words
        if size not in SIZES or colour not in COLOURS or shape not in SHAPES:
            return None
        things.append(Thing(size, colour, shape))
    return Scene(tuple(things), relation) if len(things) <= 3 else None


def _stream(seed: int, part: str, k: int, use: int) -> np.random.Generator:
    return np.random.default_rng((seed, PARTS.index(part), k, use))


def _draw_scene(rng: np.random.Generator, most: int) -> Scene:
    count = int(rng.integers(1, most + 1))
    drawn: list[Thing] = []
    while len(drawn) < count:
        sizes, colours = list(SIZES), list(COLOURS)
        thing = Thing(
            sizes[int(rng.integers(len(sizes)))],
            colours[int(rng.integers(len(colours)))],
            SHAPES[int(rng.integers(len(SHAPES)))],
        )
        if thing not in drawn:
            drawn.append(thing)
    relation = RELATIONS[int(rng.integers(len(RELATIONS)))] if count > 1 else ""
    return Scene(tuple(drawn), relation)


def render(scene: Scene, rng: np.random.Generator, pixels: int = 48) -> Image:
    """The scene at places drawn from `rng`, (pixels, pixels, 3).

    The things of a relation stand in strips of equal width, in its order, so they never overlap and
    the order is plain; across the relation their places differ by less than along it.
    """
    draw, image = _canvas(pixels, rng)
    count, width = len(scene.things), pixels * _FINER
    across = rng.uniform(0.25, 0.75)
    for k, thing in enumerate(scene.things):
        radius = SIZES[thing.size] / 2
        strip = 1 / count
        free = strip / 2 - radius - 0.01
        along = (k + 0.5) * strip + rng.uniform(-free, free)
        beside = float(np.clip(across + rng.uniform(-0.08, 0.08), radius, 1 - radius))
        x, y = (beside, along) if scene.relation == "above" else (along, beside)
        _draw_thing(draw, thing, x * width, y * width, radius * width)
    return _smoothed(image, pixels)


def _draw_thing(draw: Any, thing: Thing, x: float, y: float, r: float) -> None:
    colour = COLOURS[thing.colour]
    if thing.shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif thing.shape == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    elif thing.shape == "triangle":
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    else:
        w = r / 3
        draw.rectangle((x - r, y - w, x + r, y + w), fill=colour)
        draw.rectangle((x - w, y - r, x + w, y + r), fill=colour)


def _canvas(pixels: int, rng: np.random.Generator) -> tuple[Any, Any]:
    try:
        import PIL.Image
        from PIL import ImageDraw
    except ImportError:
        raise OptionError(
            "drawing scenes needs Pillow, which is not installed: run pip install 'gatewise[caption]'"
        ) from None
    ground = _BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))]
    image = PIL.Image.new("RGB", (pixels * _FINER,) * 2, ground)
    return ImageDraw.Draw(image), image


def _smoothed(drawn: Any, pixels: int) -> Image:
    """The mean of each square of what was drawn larger, rounded: by whole numbers, so everywhere the same."""
    parts = np.asarray(drawn, np.uint16).reshape(pixels, _FINER, pixels, _FINER, 3)
    mean = (parts.sum((1, 3)) + _FINER**2 // 2) // _FINER**2
    smooth: Image = mean.astype(np.uint8)
    return smooth
