"""Generated series: kinds of waves to tell apart, and single series to forecast.

Each is a function of the seed and its number alone; the test part has other numbers, so no series of
it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from gatewise.errors import OptionError
from gatewise.tasks.sequences import Series
from gatewise.text.ragged import Ragged

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

_TEST = 1  # the second part of the seed


def _sine(t: Array) -> Array:
    return np.sin(t)


def _square(t: Array) -> Array:
    return np.sign(np.sin(t))


def _sawtooth(t: Array) -> Array:
    return 2 * (t / (2 * np.pi) % 1) - 1


def _chirp(t: Array) -> Array:
    return np.sin(t * (0.6 + 0.8 * np.linspace(0, 1, len(t))))


def _beat(t: Array) -> Array:
    return np.sin(t) * np.sin(t / 7)


WAVES: dict[str, Callable[[Array], Array]] = {
    "sine": _sine,
    "square": _square,
    "sawtooth": _sawtooth,
    "chirp": _chirp,
    "beat": _beat,
}


def wave(k: int, seed: int = 0, part: str = "train", noise: float = 0.3) -> tuple[Array, str]:
    """Series number k, (T, 2), T from 40 to 80, and its class.

    Two channels, the second a quarter of a period later; period, phase and size are drawn, so that
    only the form tells the classes apart.

    Args:
        k: its number, 0 or more; the classes take turns.
        seed: of all.
        part: "train" or "test".
        noise: standard deviation of what is added to each value.
    """
    if part not in ("train", "test"):
        raise OptionError(f"expected the part train or test, found {part!r}")
    rng = np.random.default_rng((seed, _TEST if part == "test" else 0, k))
    label = list(WAVES)[k % len(WAVES)]
    steps = int(rng.integers(40, 81))
    period, phase = rng.uniform(12, 20), rng.uniform(0, 2 * np.pi)
    angle: Array = np.asarray(phase + 2 * np.pi * np.arange(steps) / period, np.float64)
    both: Array = np.stack([WAVES[label](angle + quarter) for quarter in (0, np.pi / 2)], 1)
    return rng.uniform(0.7, 1.4) * both + noise * rng.standard_normal(both.shape), label


def waves(n: int, seed: int = 0, part: str = "train", noise: float = 0.3) -> Series:
    """n series of the classes of `WAVES`, of unequal lengths and two channels."""
    found = [wave(k, seed, part, noise) for k in range(n)]
    values = Ragged.of([one for one, _ in found], np.float32)
    ids = [f"{part} {k}" for k in range(n)]
    return Series(values, ["first", "second"], [label for _, label in found], None, ids)


def seasonal(steps: int = 1200, seed: int = 0, season: int = 24, noise: float = 0.2) -> Array:
    """One series to forecast, (steps,): a trend, a season whose size wanders, and noise that lasts.

    The noise is an autoregression, e[t] = 0.7 e[t-1] + w, so the last values help beyond the season.
    """
    rng = np.random.default_rng((seed, 2))
    t = np.arange(steps)
    angle = 2 * np.pi * t / season
    size = 1 + 0.3 * np.sin(2 * np.pi * t / (season * 11.3))
    shocks = noise * rng.standard_normal(steps)
    lasting = np.zeros(steps)
    for k in range(1, steps):
        lasting[k] = 0.7 * lasting[k - 1] + shocks[k]
    waving = size * (np.sin(angle) + 0.4 * np.sin(2 * angle + 1))
    series: Array = 0.002 * t + waving + lasting
    return series


def mackey_glass(steps: int = 1500, seed: int = 0, delay: int = 17) -> Array:
    """The chaotic series of Mackey & Glass 1977, one value a unit of time, (steps,).

    dx/dt = 0.2 x(t - delay) / (1 + x(t - delay)^10) - 0.1 x(t), by the fourth-order Runge-Kutta
    method with steps of 0.1 (the delayed value held within a step); the first 200 units are left out.
    """
    rng = np.random.default_rng((seed, 3))
    per, lead = 10, 200
    lag = delay * per
    x = np.empty(lag + (steps + lead) * per)
    x[: lag + 1] = 1.2 + 0.1 * rng.uniform(-1, 1)
    h = 1 / per
    for k in range(lag, len(x) - 1):
        late = x[k - lag]
        push = 0.2 * late / (1 + late**10)
        a = push - 0.1 * x[k]
        b = push - 0.1 * (x[k] + h / 2 * a)
        c = push - 0.1 * (x[k] + h / 2 * b)
        d = push - 0.1 * (x[k] + h * c)
        x[k + 1] = x[k] + h / 6 * (a + 2 * b + 2 * c + d)
    return x[lag + lead * per :: per][:steps]
