"""`gatewise train caption` and what uses such a run: caption, eval, ratings, export."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gatewise.checkpoint import load_checkpoint
from gatewise.cli import main

pillow = pytest.importorskip("PIL.Image", reason="the extra gatewise[caption] is not installed")

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240,) * 3}
SMALL = (
    "--image-size",
    "16",
    "--image-channels",
    "8",
    "--image-blocks",
    "1",
    "--hidden-size",
    "16",
    "--embedding-size",
    "8",
    "--batch-size",
    "8",
    "--dtype",
    "float32",
    "--min-count",
    "1",
)
PLAIN = (
    *SMALL,
    "--dropout",
    "0",
    "--smoothing",
    "0",
    "--no-mirror",
    "--warmup",
    "0",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows two halves of colours; the images are beside it, one broken and one missing."""
    folder = tmp_path_factory.mktemp("caption")
    (folder / "images").mkdir()
    entries = []
    for left, first in COLOURS.items():
        for right, second in COLOURS.items():
            image = pillow.new("RGB", (24, 20), first)
            image.paste(second, (12, 0, 24, 20))
            name = f"{left}_{right}.png"
            image.save(folder / "images" / name)
            for split in ("train", "test"):
                texts = [f"{left} then {right}", f"first {left} and then {right}"]
                row = {"file_path": name, "captions": texts[: 1 + (split == "test")]}
                entries.append(row | {"split": split})
    (folder / "images" / "broken.png").write_bytes(b"no image")
    for name in ("broken.png", "nowhere.png"):
        entries.append({"file_path": name, "captions": ["x"], "split": "train"})
    (folder / "captions.json").write_text(json.dumps(entries))
    words = ["train", "caption", str(folder / "captions.json"), "--out", str(folder / "run")]
    words += [*PLAIN, "--steps", "400", "--lr", "0.02", "--no-cache"]
    assert main(words) == 0
    return folder


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "run"


def test_without_data_rendered_scenes_are_used(
    gatewise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewise.tasks.described.SCENES", {"train": 12, "valid": 6, "test": 6})
    out = tmp_path / "run"
    called = gatewise("train", "caption", "--out", out, *PLAIN, "--steps", "2")
    assert called.status == 0, called.err
    assert "no data given: drawing scenes of shapes" in called.err
    assert "texts: train 12 of 12" in called.err
    assert load_checkpoint(out, "latest").config["mapping"] == "caption"
    found = json.loads(gatewise("eval", out, "--part", "test", "--beams", "1", "--json").out)
    rows = found["parts"]["test"]["captions"]
    assert next(iter(rows)) == "greedy"
    assert "most frequent caption" in rows
    again = gatewise("train", "caption", tmp_path, "--out", out, "--resume", "--steps", "3")
    assert "was begun without data" in again.line


def test_what_is_left_out_is_said(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    called = gatewise(
        "train",
        "caption",
        trained / "captions.json",
        "--out",
        tmp_path / "r",
        *PLAIN,
        "--steps",
        "1",
    )
    assert called.status == 0, called.err
    assert "1 with no image file" in called.err
    assert "nowhere.png" in called.err
    assert "1 with a broken image" in called.err
    assert "broken.png" in called.err
    assert "texts: train 16 of 16, test 32 of 16" in called.err
    again = gatewise(
        "train",
        "caption",
        trained / "captions.json",
        "--out",
        tmp_path / "s",
        *PLAIN,
        "--steps",
        "1",
    )
    assert "1 with a broken image" in again.err  # from the cache too


def test_resuming_is_exact(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    noisy = ["--dropout", "0.2", "--smoothing", "0.1", "--weight-drop", "0.1", "--zoneout", "0.1"]
    noisy += ["--scheduled-sampling", "0.2", "--schedule", "constant", "--mirror", "--warmup", "0"]
    noisy += ["--attention", "additive", "--bucket", "1"]
    base = ("train", "caption", trained / "captions.json", "--out")
    assert gatewise(*base, tmp_path / "whole", *SMALL, *noisy, "--steps", "12").status == 0
    assert gatewise(*base, tmp_path / "parts", *SMALL, *noisy, "--steps", "5").status == 0
    again = gatewise(*base, tmp_path / "parts", "--resume", "--steps", "12")
    assert again.status == 0, again.err
    whole, parts = (load_checkpoint(tmp_path / name, "latest") for name in ("whole", "parts"))
    assert whole.step == parts.step == 12
    assert whole.tokenizer_json == parts.tokenizer_json
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name
    without = gatewise("train", "caption", "--out", tmp_path / "parts", "--resume")
    assert "name the same data again" in without.line


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    gatewise: Any, trained: Path, tmp_path: Path
) -> None:
    words = ["train", "caption", str(trained / "captions.json"), *SMALL, "--mirror"]
    words += ["--dropout", "0.2", "--attention", "additive", "--schedule", "constant"]
    words += ["--steps", "60", "--checkpoint-every", "5"]
    command = [sys.executable, "-m", "gatewise", *words, "--out", str(tmp_path / "parts")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "parts" / "checkpoints"
    while process.poll() is None and not any(checkpoints.glob("*15*")):
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gatewise(*words, "--out", tmp_path / "parts", "--resume").status == 0
    assert gatewise(*words, "--out", tmp_path / "whole").status == 0
    whole, parts = (load_checkpoint(tmp_path / name, "latest") for name in ("whole", "parts"))
    assert whole.step == parts.step == 60
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name


def test_images_folders_and_their_captions(gatewise: Any, trained: Path, run: Path) -> None:
    one = trained / "images" / "red_blue.png"
    assert gatewise("caption", run, one).out == "red then blue\n"
    called = gatewise("caption", run, trained / "images")
    lines = dict(line.split("\t") for line in called.out.splitlines())
    assert len(lines) == 16
    right = [
        lines[str(trained / "images" / f"{a}_{b}.png")] == f"{a} then {b}"
        for a in COLOURS
        for b in COLOURS
    ]
    assert sum(right) >= 14
    assert "skipped: " in called.err
    assert "broken.png: expected an image, found a broken one" in called.err
    missing = gatewise("caption", run, one, trained / "no.png")
    assert missing.status == 0
    assert "no.png: expected an image, found no such file" in missing.err


def test_several_with_their_probabilities(gatewise: Any, trained: Path, run: Path) -> None:
    one = trained / "images" / "red_blue.png"
    lines = gatewise("caption", run, one, "-n", "3").out.splitlines()
    assert len(lines) == 3
    assert lines[0].split()[0] == "1"
    assert lines[0].endswith("red then blue")
    drawn = ("caption", run, one, "--temperature", "3", "--seed", "4", "-n", "4")
    assert gatewise(*drawn).out == gatewise(*drawn).out
    document = json.loads(gatewise("caption", run, one, "-n", "2", "--json").out)
    (found,) = document["captions"]
    assert found["image_id"] == str(one)
    first, second = found["captions"]
    assert first["score"] >= second["score"]
    assert first["logprob"] == pytest.approx(sum(first["token_logprobs"]))


def test_gallery_ratings_and_results(
    gatewise: Any, trained: Path, run: Path, tmp_path: Path
) -> None:
    images = [
        trained / "images" / f"{name}.png" for name in ("red_blue", "blue_red", "white_green")
    ]
    ratings, page, results = (tmp_path / name for name in ("r.jsonl", "g.html", "c.json"))
    called = gatewise(
        "caption",
        run,
        *images,
        "--rate",
        "--ratings",
        ratings,
        "--rater",
        "ann",
        stdin="4\n9\n3\nq\n",
    )
    assert called.status == 0, called.err
    assert "expected 1, 2, 3, 4, s or q" in called.err
    assert "describes with minor errors" in called.out
    again = gatewise(
        "caption", run, *images, "--rate", "--ratings", ratings, "--rater", "ann", stdin="s\n"
    )
    assert "2 rated before by ann" in again.err
    gatewise(
        "caption", run, *images, "--rate", "--ratings", ratings, "--rater", "bob", stdin="3\n3\n1\n"
    )
    lines = [json.loads(line) for line in ratings.read_text().splitlines()]
    assert [(one["rater"], one["level"]) for one in lines] == [
        ("ann", 4), ("ann", 3), ("bob", 3), ("bob", 3), ("bob", 1)
    ]  # fmt: skip
    made = gatewise("caption", run, *images, "--html", page, "--out", results, "--ratings", ratings)
    assert made.status == 0, made.err
    text = page.read_text()
    assert text.count("<figure>") == 3
    assert text.index("describes without errors (1)") < text.index("unrelated to the image (1)")
    assert "data:image/jpeg;base64," in text
    assert [set(one) for one in json.loads(results.read_text())] == [{"image_id", "caption"}] * 3
    assert "exists" in gatewise("caption", run, *images, "--html", page).line


def test_ratings_are_summed_up(gatewise: Any, tmp_path: Path) -> None:
    pytest.importorskip("krippendorff", reason="the extra gatewise[ratings] is not installed")
    pytest.importorskip("scipy", reason="the extra gatewise[ratings] is not installed")
    rows = [
        ("a.jpg", "a dog runs", 4, 4),
        ("b.jpg", "a man sits", 3, 2),
        ("c.jpg", "a dog runs", 1, 1),
    ]
    lines = [
        {"item": f"x/{item}", "caption": text, "rater": rater, "level": level}
        for item, text, *levels in rows
        for rater, level in zip(("ann", "bob"), levels, strict=True)
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    own = {
        "a.jpg": ["a dog runs", "the dog runs"],
        "b.jpg": ["a man stands up"],
        "c.jpg": ["two cars"],
    }
    (tmp_path / "t.json").write_text(
        json.dumps([{"file_path": n, "captions": t} for n, t in own.items()])
    )
    words = ("inspect", "ratings", tmp_path / "r.jsonl", "--references", tmp_path / "t.json")
    found = json.loads(gatewise(*words, "--json").out)
    assert found["ratings"]["raters"] == 2
    assert 0.7 < found["agreement"] < 1
    assert found["correlations"]["captions"] == 3
    assert found["correlations"]["bleu_1"]["tau_b"] == pytest.approx(1)
    shown = gatewise(*words).out
    assert "6 ratings of 3 captions by 2" in shown
    assert "Krippendorff" in shown
    assert "CIDEr-D" in shown
    (tmp_path / "u.json").write_text(json.dumps([{"file_path": "z.jpg", "captions": ["x"]}]))
    refused = gatewise(
        "inspect", "ratings", tmp_path / "r.jsonl", "--references", tmp_path / "u.json"
    )
    assert "--references: expected captions of the images that were rated" in refused.line


def test_eval_beside_what_costs_nothing(
    gatewise: Any, trained: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "captions.json"
    called = gatewise("eval", run, trained / "captions.json", "--out", out, "--json")
    assert called.status == 0, called.err
    (name,) = parts = json.loads(called.out)["parts"]
    assert name == "test"
    rows = parts["test"]["captions"]
    assert list(rows) == [
        "greedy",
        "5 beams",
        "most frequent caption",
        "nearest image's, by pixels",
        "nearest image's, by the run's vector",
    ]
    assert rows["nearest image's, by pixels"]["exact"] == 1  # the same images
    assert rows["most frequent caption"]["exact"] == 1 / 16
    assert rows["greedy"]["exact"] >= 14 / 16
    assert rows["greedy"]["bleu_4"] <= 1
    assert len(json.loads(out.read_text())) == 16
    table = gatewise("eval", run, trained / "captions.json", "--beams", "1").out
    assert "CIDEr-D" in table
    assert "greedy" in table


def test_a_collapsed_model_is_said(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    base = ("train", "caption", trained / "captions.json", "--out", tmp_path / "r", *PLAIN)
    assert gatewise(*base, "--steps", "1", "--lr", "1e-9").status == 0
    called = gatewise("caption", tmp_path / "r", trained / "images", "--max-tokens", "3")
    assert "got the same caption" in called.err
    assert "the model has collapsed" in called.err
    found = gatewise("eval", tmp_path / "r", trained / "captions.json", "--beams", "1", "--json")
    assert json.loads(found.out)["parts"]["test"]["collapsed"]["share"] == 1


@pytest.mark.parametrize("to", ["input", "state"])
def test_vectors_of_a_table(gatewise: Any, tmp_path: Path, to: str) -> None:
    words = ("low", "high")
    rows = [f"{10 * a},{1000 * b},{words[a]} {words[b]}" for a in (0, 1) for b in (0, 1)]
    table = tmp_path / "train.csv"
    table.write_text("a,b,text\n" + "\n".join(rows * 4) + "\n,1,gone\n")
    out = tmp_path / "run"
    options = (*PLAIN, "--steps", "60", "--lr", "0.03", "--vector-to", to, "--fractions", "1")
    called = gatewise("train", "caption", table, "--out", out, *options)
    assert called.status == 0, called.err
    assert "1 with a value that is missing or not finite" in called.err
    asked = tmp_path / "asked.csv"
    asked.write_text("a,b\n10,0\n0,1000\n?,3\n")
    called = gatewise("caption", out, asked)
    assert called.out == f"{asked}, line 2\thigh low\n{asked}, line 3\tlow high\n"
    assert "line 4: a value that is missing" in called.err
    found = json.loads(gatewise("eval", out, table, "--json", "--part", "train").out)
    assert found["parts"]["train"]["captions"]["greedy"]["exact"] == 1
    wide = tmp_path / "wide.csv"
    wide.write_text("a,b,c\n1,2,3\n")
    assert "expected vectors of 2 numbers, found 3" in gatewise("caption", out, wide).line


def test_a_file_of_features(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    names = [f"{a}_{b}.png" for a in COLOURS for b in COLOURS]
    vectors = np.stack(
        [np.array([*COLOURS[a], *COLOURS[b]], np.float32) for a in COLOURS for b in COLOURS]
    )
    np.savez(tmp_path / "f.npz", names=names, vectors=vectors)
    base = ("train", "caption", trained / "captions.json", "--features", tmp_path / "f.npz")
    called = gatewise(*base, "--out", tmp_path / "r", *PLAIN, "--steps", "80", "--lr", "0.02")
    assert called.status == 0, called.err
    assert "2 with no features" in called.err
    found = json.loads(
        gatewise("eval", tmp_path / "r", trained / "captions.json", "--beams", "1", "--json").out
    )
    assert found["parts"]["test"]["captions"]["greedy"]["exact"] > 0.8
    called = gatewise("caption", tmp_path / "r", tmp_path / "f.npz")
    assert "red_blue.png\tred then blue\n" in called.out


def test_export(gatewise: Any, trained: Path, run: Path, tmp_path: Path) -> None:
    assert gatewise("export", run, "--to", tmp_path / "small").status == 0
    one = trained / "images" / "red_blue.png"
    assert gatewise("caption", tmp_path / "small", one).out == "red then blue\n"
    pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")
    made = json.loads(gatewise("export", run, "--to", tmp_path / "m.onnx", "--json").out)
    assert made["largest_difference"] < 1e-4
    assert set(made["parts"]) == {"encoder", "decoder"}


Make = Callable[[Path], list[object]]


def _no_texts(folder: Path) -> list[object]:
    pillow.new("RGB", (20, 20)).save(folder / "a.png")
    return ["train", "caption", folder, "--out", folder / "r"]


def _names_that_are_not_there(folder: Path) -> list[object]:
    (folder / "c.json").write_text('[{"file_path": "a.jpg", "captions": ["x"]}]')
    return ["train", "caption", folder / "c.json", "--out", folder / "r"]


def _a_wrong_key(folder: Path) -> list[object]:
    good, bad = {"file_path": "a.jpg", "captions": ["x"]}, {"file_path": "b.jpg", "caption": "x"}
    (folder / "c.json").write_text(json.dumps([good, bad]))
    return ["train", "caption", folder / "c.json", "--out", folder / "r"]


def _not_a_format(folder: Path) -> list[object]:
    (folder / "c.json").write_text('{"images": 3}')
    return ["train", "caption", folder / "c.json", "--out", folder / "r"]


def _only_test(folder: Path) -> list[object]:
    (folder / "c.csv").write_text("a,text,part\n1,x,test\n")
    return ["train", "caption", folder / "c.csv", "--split", "part", "--out", folder / "r"]


def _too_large(folder: Path) -> list[object]:
    (folder / "c.csv").write_text("a,text\n1,x\n")
    words = ["--fractions", "1", "--min-count", "1", "--hidden-size", "500000"]
    return ["train", "caption", folder / "c.csv", "--out", folder / "r", *words]


def _attention_on_vectors(folder: Path) -> list[object]:
    (folder / "c.csv").write_text("a,text\n1,x\n")
    words = ["--fractions", "1", "--min-count", "1", "--attention", "dot"]
    return ["train", "caption", folder / "c.csv", "--out", folder / "r", *words]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_no_texts, "expected a text beside each image (a.txt, a caption a line), found 1 images"),
        (_a_wrong_key, "entry 2: expected neuraltalk2's list, Karpathy's dataset or COCO's"),
        (_a_wrong_key, "found one without 'captions'; it has 'file_path', 'caption'"),
        (_names_that_are_not_there, "1 with no image file"),
        (_not_a_format, "expected neuraltalk2's list, Karpathy's dataset or COCO's captions"),
        (_only_test, "at least one text to train on"),
        (_too_large, "choose smaller sizes"),
        (_attention_on_vectors, "--attention: looks at the regions of an image"),
        (lambda f: ["train", "caption", f / "no", "--out", f / "r"], "found nothing at"),
        (
            lambda f: ["train", "caption", "--out", f / "r", "--fine-tune", "--steps", "1"],
            "--fine-tune: expected --image-model",
        ),
    ],
)
def test_bad_input_is_one_clear_line(gatewise: Any, tmp_path: Path, make: Make, said: str) -> None:
    called = gatewise(*make(tmp_path))
    assert called.status in (1, 2)
    assert said in called.err.splitlines()[-1]
    assert called.err.splitlines()[-1].startswith("gatewise: ")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["caption", "RUN", "IMAGE", "--beams", "2", "-n", "3"], "--n: expected at most"),
        (["caption", "RUN", "IMAGE", "--seed", "2"], "--seed: expected --temperature"),
        (["caption", "RUN", "IMAGE", "--html", "no/where.html"], "--html: no is no folder"),
        (["caption", "RUN", "IMAGE", "--rate", "--rater", " "], "--rater: expected a name"),
        (["eval", "RUN", "no.json"], "found nothing at"),
        (["eval", "RUN", "DATA", "--beams", "a"], "--beams: expected whole numbers"),
        (["eval", "RUN", "DATA", "--part", "valid"], "valid"),
        (["complete", "RUN", "x"], "cannot complete"),
        (["translate", "RUN", "x"], "cannot translate"),
    ],
)
def test_wrong_use_is_one_clear_line(
    gatewise: Any, trained: Path, words: list[str], said: str
) -> None:
    names = {
        "RUN": trained / "run",
        "DATA": trained / "captions.json",
        "IMAGE": trained / "images" / "red_blue.png",
    }
    called = gatewise(*(names.get(word, word) for word in words))
    assert called.status in (1, 2)
    assert said in called.err.splitlines()[-1]


@pytest.mark.data
@pytest.mark.skipif("GATEWISE_DATA" not in os.environ, reason="GATEWISE_DATA is not set")
def test_flickr8k(gatewise: Any, tmp_path: Path) -> None:
    data = Path(os.environ["GATEWISE_DATA"]) / "flickr8k"
    if not data.is_dir():
        pytest.skip(f"{data} is not there")
    called = gatewise(
        "train",
        "caption",
        data / "subset1000.json",
        "--out",
        tmp_path / "r",
        *PLAIN,
        "--steps",
        "2",
    )
    assert called.status == 0, called.err
    assert "texts: train 3,765 of 753, valid 565 of 113, test 625 of 125" in called.err


def test_inspect_read(gatewise: Any, trained: Path, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    image = trained / "images" / "red_red.png"
    words = ("inspect", "read", run, image, "--record", "decoder.layers.0.h")
    called = gatewise(*words, "--plot", tmp_path / "read.svg", "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    assert len(found["tokens"]) == len(found["nats"]) == len(found["record"]["decoder.layers.0.h"])
    assert found["text"].startswith(f"{image}: ")
    assert b"decoder.layers.0.h, unit" in (tmp_path / "read.svg").read_bytes()
