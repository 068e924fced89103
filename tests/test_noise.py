"""Masks that depend on a seed and a name alone."""

from __future__ import annotations

import time

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import gatewise as gw
from gatewise.noise import Noise

shapes = st.lists(st.integers(0, 7), max_size=3)


@given(st.integers(), st.text(max_size=5), shapes, st.floats(0, 1))
def test_the_same_seed_and_name_give_the_same_mask(
    seed: int, name: str, shape: list[int], p: float
) -> None:
    mask = Noise(seed).drops(name, shape, p)
    assert mask.shape == tuple(shape)
    other = Noise(seed)
    other.drops("another", (5, 5), 0.3)
    assert torch.equal(other.drops(name, shape, p), mask)
    kept = other.keep(name, shape, p, dtype=torch.float64)
    assert torch.equal(kept == 0, mask)


def test_names_and_seeds_are_independent() -> None:
    masks = [Noise(s).drops(n, (10_000,), 0.5) for s in (1, 2) for n in ("a", "b", "layers.0.a")]
    for k, a in enumerate(masks):
        for b in masks[:k]:
            assert abs(float((a == b).float().mean()) - 0.5) < 0.03


@pytest.mark.parametrize("p", [0.0, 0.01, 0.25, 0.5, 0.9, 1.0])
def test_the_probability_is_kept(p: float) -> None:
    n = 200_000
    mask = Noise(3).drops("a", (n,), p)
    assert abs(float(mask.float().mean()) - p) < 5 * (p * (1 - p) / n) ** 0.5 + 2**-16
    kept = Noise(3).keep("a", (n,), p)
    assert torch.equal(kept.unique().round(decimals=5), torch.tensor(
        sorted({0.0 if p > 0 else 1 / (1 - p), 1 / (1 - p) if p < 1 else 0.0})
    ).round(decimals=5))  # fmt: skip
    assert float(kept.mean()) == pytest.approx(1 if p < 1 else 0, abs=0.02)


def test_a_mask_is_a_prefix_of_a_longer_one() -> None:
    """So what a step sees does not depend on how many steps follow."""
    short, long = Noise(5).drops("a", (3, 4), 0.5), Noise(5).drops("a", (7, 4), 0.5)
    assert torch.equal(long[:3], short)


def test_a_known_mask() -> None:
    """Philox4x64-10 with the key (seed, crc32(name)), 16 bits a value, low ones first."""
    mask = Noise(7).drops("layers.0.dropout", (12,), 0.5)
    assert "".join("x" if m else "." for m in mask.tolist()) == KNOWN


KNOWN = ".....x......"


def test_one_seed_a_call_from_torchs_generator() -> None:
    torch.manual_seed(4)
    first = Noise.draw().seed
    torch.manual_seed(4)
    assert Noise.draw().seed == first
    assert Noise.draw().seed != first
    stack = gw.Stack("lstm", 3, 4, 2, dropout=0.5, weight_drop=0.5, zoneout=0.5)
    x = torch.randn(2, 1, 3)
    torch.manual_seed(4)
    stack(x)
    after = torch.rand(())
    torch.manual_seed(4)
    Noise.draw()
    assert torch.equal(torch.rand(()), after)
    stack.eval()
    torch.manual_seed(4)
    untouched = torch.rand(())
    torch.manual_seed(4)
    stack(x)
    assert torch.equal(torch.rand(()), untouched)


def test_the_default_device_does_not_matter() -> None:
    torch.manual_seed(1)
    expected = Noise.draw().seed
    torch.manual_seed(1)
    with torch.device("meta"):
        assert Noise.draw().seed == expected
        assert Noise(1).keep("a", (3,), 0.5).device.type == "cpu"


def test_a_mask_costs_little() -> None:
    """1 to 2 ms for a word model's (35, 20, 650) here; far from it would be a mistake."""
    best = min(_seconds() for _ in range(7))
    assert best < 0.05


def _seconds() -> float:
    start = time.process_time()
    Noise(1).keep("a", (35, 20, 650), 0.5)
    return time.process_time() - start
