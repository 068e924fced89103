from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gatewise.errors import DataError, UnknownNameError
from gatewise.tasks.captions import load_images, open_image, read_captions, read_vectors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.png and b.png can be read, broken.png cannot."""
    pillow = pytest.importorskip("PIL.Image", reason="the extra gatewise[caption] is not installed")
    for name, colour in (("a.png", (255, 0, 0)), ("b.png", (0, 0, 255))):
        pillow.new("RGB", (20, 10), colour).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    return tmp_path


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_four_formats_give_the_same(folder: Path) -> None:
    texts = {"a.png": ["a red thing", "red"], "b.png": ["blue", "all blue"]}
    split = {"a.png": "train", "b.png": "val"}
    karpathy = [
        {"filename": n, "split": split[n], "sentences": [{"raw": t} for t in ts]}
        for n, ts in texts.items()
    ]
    neural = [{"file_path": n, "captions": ts, "split": split[n]} for n, ts in texts.items()]
    coco = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "annotations": [
            {"image_id": key, "caption": t}
            for key, n in ((7, "a.png"), (9, "b.png"))
            for t in texts[n]
        ],
    }
    tokens = "".join(f"{n}#{k}\t{t}\n" for n, ts in texts.items() for k, t in enumerate(ts))
    lists = {"train": write(folder / "tr", "a.png\n"), "valid": write(folder / "va", "b.png\n")}
    found = [
        read_captions(write(folder / "n.json", neural)),
        read_captions(write(folder / "k.json", {"images": karpathy, "dataset": "x"})),
        read_captions(write(folder / "c.json", coco), splits=lists),
        read_captions(write(folder / "t.token.txt", tokens), splits=lists),
    ]
    for one in found:
        assert one.items == found[0].items
        assert [i.name for i in one.part("valid").items] == ["b.png"]


def test_a_folder_with_texts_beside_its_images(folder: Path) -> None:
    write(folder / "a.txt", "a red thing\n\nred\n")
    found = read_captions(folder)
    assert [(i.name, i.texts) for i in found.items] == [("a.png", ("a red thing", "red"))]
    assert len(found.skipped) == 2
    assert "2 with no caption" in found.skipped.summary()


def test_missing_and_broken_images_are_named_and_left_out(folder: Path) -> None:
    entries = [
        {"file_path": n, "captions": ["x"]} for n in ("a.png", "broken.png", "nowhere.png", "b.png")
    ]
    found = read_captions(write(folder / "n.json", entries))
    assert "1 with no image file" in found.skipped.summary()
    assert "nowhere.png" in found.skipped.summary()
    kept, images = load_images(found, 8)
    assert [i.name for i in kept.items] == ["a.png", "b.png"]
    assert images.shape == (2, 8, 8, 3)
    assert images[0, 0, 0].tolist() == [255, 0, 0]
    assert "1 with a broken image" in kept.skipped.summary()
    with pytest.raises(DataError, match="broken"):
        open_image(folder / "broken.png", 8)


@pytest.mark.parametrize("ending", ["csv", "npz", "parquet", "jsonl"])
def test_tables_of_vectors(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"v.{ending}"
    rows = [{"a": 1.0, "b": 2.0, "text": "low"}, {"a": 3.0, "b": 4.5, "text": "high"}]
    if ending == "csv":
        path.write_text("a,b,text\n1,2,low\n3,4.5,high\n,1,gone\n")
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif ending == "npz":
        np.savez(path, vectors=[[1, 2], [3, 4.5]], texts=["low", "high"])
    else:
        pyarrow = pytest.importorskip(
            "pyarrow", reason="the extra gatewise[tables] is not installed"
        )
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    found = read_vectors(path)
    assert found.vectors is not None
    assert found.vectors.tolist() == [[1, 2], [3, 4.5]]
    assert [i.texts for i in found.items] == [("low",), ("high",)]
    assert len(found.skipped) == (ending == "csv")


def test_flickr8k(shared_data: Path) -> None:
    found = read_captions(shared_data / "flickr8k" / "subset1000.json")
    sizes = [len(found.part(name)) for name in ("train", "valid", "test")]
    assert sizes == [753, 113, 125]
    whole = read_captions(shared_data / "flickr8k" / "Flickr8k.token.txt")
    assert len(whole) == 1000
    assert len(whole) + len(whole.skipped) == 8093  # one name stands there in two spellings


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected JSON"):
        read_captions(write(tmp_path / "x.json", "{"))
    with pytest.raises(DataError, match="without 'captions'"):
        read_captions(write(tmp_path / "x.json", [{"file_path": "a"}]))
    with pytest.raises(DataError, match="line 2: expected name#0"):
        read_captions(write(tmp_path / "x.txt", "a.jpg#0\tx\nnonsense\n"))
    with pytest.raises(DataError, match="found none"):
        read_captions(tmp_path)
    with pytest.raises(UnknownNameError, match="text"):
        read_vectors(write(tmp_path / "x.csv", "a,b\n1,2\n"))
