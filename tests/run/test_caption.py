"""A loaded captioner: captions, forced scores, records and controls, engines; with an image model of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import RunFolder, load_checkpoint
from gatewise.errors import CheckpointError, DataError, OptionError, ShapeError, UnknownNameError
from gatewise.generate import SamplingOptions
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.image_encoder import ImageOptions
from gatewise.mappings.vec_to_seq import CaptionOptions
from gatewise.run import CaptionRun
from gatewise.tasks.captions import Captions, Described
from gatewise.train import TrainOptions, Watcher, train
from gatewise.train.captions import (
    CaptionTextOptions,
    EncoderOptions,
    Pretrained,
    caption_learner,
)

WORDS = ("black", "grey", "white")
LEVELS = (0, 128, 255)
PAIRS = [(a, b) for a in range(3) for b in range(3)]
TEXTS = [f"{WORDS[a]} over {WORDS[b]}" for a, b in PAIRS]


def pictures(pixels: int = 16) -> np.ndarray[Any, Any]:
    """Two halves, one over the other."""
    found = np.zeros((len(PAIRS), pixels, pixels, 3), np.uint8)
    for image, (a, b) in zip(found, PAIRS, strict=True):
        image[: pixels // 2], image[pixels // 2 :] = LEVELS[a], LEVELS[b]
    return found


def make(
    folder: Path, *, steps: int = 150, pretrained: Pretrained | None = None, **model: Any
) -> CaptionRun:
    """A run that has learned those pictures."""
    pixels = pretrained.pixels if pretrained else 16
    items = [Described(str(k), (text,), "train") for k, text in enumerate(TEXTS)]
    options = CaptionOptions(**{"embedding_size": 8, "hidden_size": 16, **model})
    training = TrainOptions(steps=steps, lr=0.02, checkpoint_seconds=None)
    learner, _ = caption_learner(
        {"train": (pictures(pixels), Captions(items))},
        CaptionTextOptions(),
        options,
        ImageOptions(image_size=pixels, image_channels=8, image_blocks=1),
        BatchOptions(batch_size=9),
        training,
        pretrained=pretrained,
    )
    with RunFolder.create(folder) as run:
        train(learner, run, training, Watcher())
    found = gw.load(folder)
    assert isinstance(found, CaptionRun)
    return found


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gatewise.tasks.pixels.user_cache", lambda: cache)
        cache = tmp_path_factory.mktemp("cache")
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> CaptionRun:
    torch.manual_seed(0)
    return make(tmp_path_factory.mktemp("runs") / "halves", attention="additive")


def test_it_has_learned(run: CaptionRun) -> None:
    found = run.caption(list(pictures()))
    assert [each[0].text for each in found] == TEXTS
    assert found[0][0].finish_reason == "end"


def test_every_kind_of_image(run: CaptionRun, tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="the extra gatewise[caption] is not installed")
    array = pictures(40)[5]
    image = pillow.fromarray(array)
    image.save(tmp_path / "a.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    for thing in (tmp_path / "a.png", str(tmp_path / "a.png"), image, array, tensor):
        assert run.caption(thing)[0].text == TEXTS[5]
    with pytest.raises(DataError, match="no such file"):
        run.caption(tmp_path / "b.png")
    with pytest.raises(ShapeError, match=r"\(H, W, 3\) of bytes"):
        run.caption(array / 255)
    with pytest.raises(ShapeError, match="an image or its path, found dict"):
        run.caption({})


def test_a_thing_gets_the_same_among_others(run: CaptionRun) -> None:
    things = list(pictures())
    for options in (
        {"beams": 1},
        {"beams": 4, "n": 3},
        {"sampling": SamplingOptions(seed=3), "n": 2},
    ):
        for thing, found in zip(things[:3], run.caption(things, **options)[:3], strict=True):
            alone = run.caption(thing, **options)
            assert [one.text for one in alone] == [one.text for one in found]
            for one, other in zip(alone, found, strict=True):
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_forced_scores_are_those_of_the_search(run: CaptionRun) -> None:
    thing = pictures()[3]
    for found in run.caption(thing, beams=3, n=3):
        scored = run.score(thing, found.text)
        if found.finish_reason == "end":
            assert scored.logprob == pytest.approx(found.logprob, abs=1e-4)
    assert run.read(thing, "black over purple").notes == ["not in the vocabulary: purple"]
    tally = run.evaluate(pictures(), [[text] for text in TEXTS])
    scores = [run.score(a, t).logprob for a, t in zip(pictures(), TEXTS, strict=True)]
    assert tally.nats == pytest.approx(-sum(scores), abs=1e-3)


def test_records_and_controls(run: CaptionRun) -> None:
    thing = pictures()[2]
    record = gw.Record("decoder.layers.0.c", "decoder.layers.0.h")
    reading = run.read(thing, TEXTS[2], record=record)
    assert reading.record is not None
    assert reading.record["decoder.layers.0.c"].shape == (4, 1, 16)
    assert reading.weights is not None
    torch.testing.assert_close(reading.weights.sum(1), torch.ones(4))
    shut = gw.Control.set("decoder.layers.0.o", 0.0)
    closed = run.read(thing, TEXTS[2], record=record, control=shut)
    assert closed.record is not None
    assert not closed.record["decoder.layers.0.h"].any()
    assert run.caption(thing, control=shut) != run.caption(thing)
    with pytest.raises(UnknownNameError):
        run.read(thing, record=gw.Record("decoder.layers.0.q"))


@pytest.mark.parametrize("engine", ["reference", "compiled", "closed"])
def test_engines_agree(run: CaptionRun, engine: str) -> None:
    expected = run.read(pictures()[1], TEXTS[1], engine="reference")
    found = run.read(pictures()[1], TEXTS[1], engine=engine)
    torch.testing.assert_close(found.nats, expected.nats, atol=1e-5, rtol=1e-4)


def test_vectors(run: CaptionRun) -> None:
    vectors = run.vectors(list(pictures()))
    assert vectors.shape == (len(PAIRS), 32)
    assert len({tuple(row) for row in vectors.round(decimals=3).tolist()}) == len(PAIRS)
    with pytest.raises(DataError, match="at least one thing"):
        run.vectors([])


def test_a_tokenizer_that_is_not_the_models(run: CaptionRun) -> None:
    from dataclasses import replace

    from gatewise.text.sides import Side, Sides

    side = Side.build("byte", ["x"])
    found = replace(load_checkpoint(str(run.path)), tokenizer_json=Sides(side, side).to_json())
    with pytest.raises(CheckpointError, match="do not belong together"):
        CaptionRun(found, run.model)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("fine_tune", [False, True])
def test_an_image_model_of_transformers(kind: str, fine_tune: bool, tmp_path: Path) -> None:
    library = pytest.importorskip(
        "transformers", reason="the extra gatewise[vision] is not installed"
    )
    torch.manual_seed(0)
    if kind == "resnet":
        config = library.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
        )
        library.ResNetModel(config).save_pretrained(tmp_path / "model")
    else:
        config = library.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            image_size=32, patch_size=8,
        )  # fmt: skip
        library.ViTModel(config).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "size": {"shortest_edge": 32}}'
    )
    options = EncoderOptions(image_model=str(tmp_path / "model"), fine_tune=fine_tune)
    pretrained = Pretrained.read(options)
    assert pretrained is not None
    assert pretrained.pixels == 32
    before = {k: v.clone() for k, v in pretrained.net.state_dict().items()}
    run = make(tmp_path / "run", steps=5, pretrained=pretrained)
    images = run.model.images
    assert images is not None
    after = images.net.state_dict()
    same = [torch.equal(before[name], after[name]) for name in before]
    assert all(same) != fine_tune, "a frozen model stays, a tuned one moves"
    found = run.caption(list(pictures(32)), beams=1)
    assert len(found) == len(PAIRS)
    whole = run.model.look(run.batch([pictures(32)[0]])).vector
    features = run.model.features(run.batch([pictures(32)[0]]))
    torch.testing.assert_close(run.model.look(features).vector, whole)


def test_no_image_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra gatewise[vision] is not installed")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="--image-model: expected a model"):
        Pretrained.read(EncoderOptions(image_model=str(tmp_path / "empty")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 6}, "beams"),
        ({"n": 0}, "n: expected"),
        ({"beams": -1}, "beams: expected"),
        ({"max_tokens": 0}, "max_tokens: expected"),
        ({"length_penalty": -1.0}, "length penalty"),
    ],
)
def test_options_outside_their_range(run: CaptionRun, options: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        run.caption(pictures()[0], **options)
