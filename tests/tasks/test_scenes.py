from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import OptionError
from gatewise.tasks.scenes import COLOURS, PARTS, parse, picture, pictures, scene


@given(st.integers(0, 10**6), st.integers(0, 5), st.sampled_from(PARTS))
def test_a_caption_tells_the_scene_and_nothing_else(k: int, seed: int, part: str) -> None:
    found = scene(k, seed, part)
    assert parse(found.caption()) == found
    assert scene(k, seed, part) == found


def test_parts_share_no_scene() -> None:
    said = {part: {scene(k, 0, part).caption() for k in range(1500)} for part in PARTS}
    assert not said["train"] & said["test"]
    assert not said["train"] & said["valid"]
    assert not said["valid"] & said["test"]
    assert len(said["test"]) > 500


def test_pictures_hold_the_colours_in_the_captions_order() -> None:
    pytest.importorskip("PIL", reason="the extra gatewise[caption] is not installed")
    checked = 0
    for k in range(60):
        found = scene(k)
        colours = [thing.colour for thing in found.things]
        if len(set(colours)) < len(colours):
            continue
        image = picture(k, pixels=64).astype(int)
        axis = 0 if found.relation == "above" else 1
        centres = []
        for colour in colours:
            near = np.abs(image - COLOURS[colour]).sum(2) < 12
            assert near.any(), (k, found.caption())
            centres.append(np.nonzero(near)[axis].mean())
        assert centres == sorted(centres), (k, found.caption())
        checked += 1
    assert checked > 30


def test_pictures_are_the_same_again_and_differ_by_number() -> None:
    pytest.importorskip("PIL", reason="the extra gatewise[caption] is not installed")
    images, captions = pictures(3, pixels=48)
    assert images.shape == (3, 48, 48, 3)
    assert images.dtype == np.uint8
    assert len(captions) == 3
    assert (picture(2) == images[2]).all()
    assert (picture(1) != images[2]).any()


@pytest.mark.parametrize(
    "text", ["", "a red circle", "a small red dog", "a small red circle near a small red cross"]
)
def test_what_is_no_sentence(text: str) -> None:
    assert parse(text) is None


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="train, valid, test"):
        scene(0, part="exam")
    with pytest.raises(OptionError, match="1 to 3"):
        scene(0, most=4)
    with pytest.raises(OptionError, match="16 to 1024"):
        picture(0, pixels=1)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(OptionError, match=r"gatewise\[caption\]"):
        picture(0)
