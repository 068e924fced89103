"""Decoded once: the cache gives the same, notices a changed file, and does without a broken entry."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gatewise.errors import DataError, OptionError
from gatewise.folders import user_cache
from gatewise.tasks.captions import Captions, Described, load_images
from gatewise.tasks.described import CaptionDataOptions, scenes
from gatewise.tasks.pixels import cached, decoded, read_features

pillow = pytest.importorskip("PIL.Image", reason="the extra gatewise[caption] is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, colour in (("a.png", (255, 0, 0)), ("b.png", (0, 0, 255))):
        pillow.new("RGB", (20, 10), colour).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"broken")
    return tmp_path


def captions(folder: Path) -> Captions:
    return Captions([Described(n, ("x",), "", folder / n) for n in ("a.png", "c.png", "b.png")])


def test_the_cache_gives_the_same(folder: Path) -> None:
    kept, images = load_images(captions(folder), 16)
    for _ in range(2):
        again, pixels = decoded(captions(folder), 16)
        assert again.items == kept.items
        assert again.skipped.entries == kept.skipped.entries
        np.testing.assert_array_equal(pixels, images)
    entries = list((user_cache() / "images").glob("*.npz"))
    assert len(entries) == 1
    pillow.new("RGB", (20, 10), (0, 255, 0)).save(folder / "a.png")
    os.utime(folder / "a.png", (1, 1))
    _, changed = decoded(captions(folder), 16)
    assert changed[0, 0, 0].tolist() == [0, 255, 0]
    assert decoded(captions(folder), 16, cache=False)[1].shape == (2, 16, 16, 3)


def test_a_broken_entry_is_made_again(folder: Path) -> None:
    found = cached(("x",), lambda: {"a": np.arange(3)})
    (entry,) = (user_cache() / "images").glob("*.npz")
    entry.write_bytes(entry.read_bytes()[:20])
    again = cached(("x",), lambda: {"a": np.arange(3)})
    np.testing.assert_array_equal(again["a"], found["a"])
    assert cached(("x",), lambda: {"a": np.zeros(1)})["a"].tolist() == [0, 1, 2]


def test_a_cache_that_cannot_be_written(folder: Path) -> None:
    (folder / "cache").write_text("in the way")
    assert cached(("x",), lambda: {"a": np.arange(3)})["a"].tolist() == [0, 1, 2]


def test_features_by_name(folder: Path) -> None:
    path = folder / "f.npz"
    np.savez(path, names=["b.png", "a.png"], vectors=[[1, 2], [3, np.nan]])
    found = read_features(path, captions(folder))
    assert found.vectors is not None
    assert [item.name for item in found.items] == ["b.png"]
    assert found.vectors.tolist() == [[1, 2]]
    assert "1 with features that are not finite" in found.skipped.summary()
    np.savez(path, names=["z.png"], vectors=[[1, 2]])
    with pytest.raises(DataError, match="found none of 3, such as"):
        read_features(path, captions(folder))
    path.write_bytes(b"x")
    with pytest.raises(DataError, match="expected names and vectors"):
        read_features(path, captions(folder))


def test_parts_by_name_by_column_and_drawn(folder: Path) -> None:
    rows = "a,text\n" + "".join(f"{k},t{k}\n" for k in range(40))
    (folder / "rows.csv").write_text(rows)
    (folder / "val.csv").write_text("a,text\n1,x\n")
    whole = CaptionDataOptions().read([str(folder / "rows.csv")])
    sizes = {name: len(part) for name, part in whole.items() if name}
    assert sizes == {"train": 36, "valid": 2, "test": 2}
    names = [item.name for part in ("train", "valid", "test") for item in whole[part].items]
    assert len(set(names)) == 40
    (folder / "train.csv").write_text(rows)
    both = CaptionDataOptions().read([str(folder / "train.csv"), str(folder / "val.csv")])
    assert {name: len(part) for name, part in both.items() if name} == {"train": 40, "valid": 1}
    with pytest.raises(OptionError, match="--fractions"):
        CaptionDataOptions(fractions=(2.0,)).read([str(folder / "rows.csv")])
    (folder / "wide.csv").write_text("a,b,text\n1,2,x\n")
    with pytest.raises(DataError, match="of one width, found"):
        CaptionDataOptions().read([str(folder / "rows.csv"), str(folder / "wide.csv")])


def test_scenes_of_the_parts_differ() -> None:
    found = scenes(16, {"train": 30, "test": 30})
    images, described = found["train"]
    assert images.shape == (30, 16, 16, 3)
    texts = {item.texts[0] for item in described.items}
    assert not texts & {item.texts[0] for item in found["test"][1].items}
