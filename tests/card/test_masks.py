"""Masks drawn by the card's kernel, on the stand-in for a card: the bits that NumPy gives."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

import emulation
import gatewise as gw
from gatewise.card import driver, masks
from gatewise.noise import Noise

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _compiler() -> None:
    if emulation.compiler() is None:
        pytest.skip("no C++ compiler to emulate a card with")


def _emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw on the stand-in what the CPU would draw by NumPy."""
    draw = masks.drops
    monkeypatch.setattr(masks, "CARD", emulation.platform())
    monkeypatch.setattr(masks, "drops", lambda *rest: draw(*rest, platform=emulation.platform()))


@given(
    st.integers(-(2**70), 2**70),
    st.text(max_size=5),
    st.lists(st.integers(0, 40), max_size=3),
    st.floats(0, 1),
)
def test_the_same_bits(seed: int, name: str, shape: list[int], p: float) -> None:
    expected = Noise(seed).drops(name, shape, p)
    with pytest.MonkeyPatch.context() as patch:
        _emulate(patch)
        assert torch.equal(Noise(seed).drops(name, shape, p), expected)


def test_many_blocks_of_threads() -> None:
    key, shape = (2**63 + 11, 0xFFFF_FFFF), (9, 5, 999)
    found = masks.drops(*key, shape, 0x8001, CPU, emulation.platform())
    raw = np.random.Philox(key=np.array(key, dtype=np.uint64)).random_raw(9 * 5 * 999 // 4 + 1)
    words = raw.astype("<u8").view("<u2")[: found.numel()].reshape(shape)
    assert found.dtype == torch.bool
    assert np.array_equal(found.numpy(), words < 0x8001)


def test_every_mask_of_a_stack_is_drawn_there(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = gw.Stack("lstm", 3, 4, 2, dropout=0.5, weight_drop=0.5, zoneout=0.3)
    x = torch.randn(5, 2, 3)
    torch.manual_seed(3)
    expected = stack(x).h
    _emulate(monkeypatch)
    monkeypatch.setattr("gatewise.noise._drawn_by_numpy", None)
    torch.manual_seed(3)
    assert torch.equal(stack(x).h, expected)


def test_nvrtc_takes_the_text() -> None:
    if driver.nvrtc() is None:
        pytest.skip("no NVRTC: it comes with torch's CUDA build, or as a package of its own")
    assert driver.compile_text(masks.TEXT, (9, 0))[:4] == b"\x7fELF"
