"""A loaded tagger: tags of texts and of words, the same alone and among others, records, streams, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import RunFolder
from gatewise.errors import CheckpointError, DataError, OptionError
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.tagger import TaggerOptions
from gatewise.run import TagRun
from gatewise.tasks.notices import notices
from gatewise.train import TrainOptions, Watcher, train
from gatewise.train.tags import TagTextOptions, tag_learner

SMALL = {"embedding_size": 12, "character_size": 6, "character_hidden": 6, "hidden_size": 16}
TEXTS = notices(counts={"train": 300, "valid": 40}).parts


def make(folder: Path, **model: Any) -> TagRun:
    training = TrainOptions(steps=100, lr=0.02, checkpoint_seconds=None, eval_every=50)
    options = TaggerOptions(**{**SMALL, **model})
    learner, _ = tag_learner(
        TEXTS, TagTextOptions(), options, BatchOptions(batch_size=32), training
    )
    with RunFolder.create(folder) as run:
        train(learner, run, training, Watcher())
    found = gw.load(folder)
    assert isinstance(found, TagRun)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TagRun:
    return make(tmp_path_factory.mktemp("runs") / "tags")


@pytest.fixture(scope="module")
def forwards(tmp_path_factory: pytest.TempPathFactory) -> TagRun:
    return make(tmp_path_factory.mktemp("runs") / "forwards", bidirectional=False)


def test_it_has_learned(run: TagRun) -> None:
    found = run.evaluate(TEXTS["valid"])
    assert found.accuracy > 0.9
    assert found.spans is not None
    assert found.spans.f1 > 0.6
    words, tags = TEXTS["train"][0]
    own = run.tag([words])[0]
    assert own.words == words
    assert np.mean([a == b for a, b in zip(own.tags, tags, strict=True)]) > 0.8
    assert all(0 < p <= 1 for p in own.probabilities)


def test_a_sentence_gets_the_same_among_others(run: TagRun) -> None:
    sentences = [words for words, _ in TEXTS["valid"][:9]]
    for words, found in zip(sentences, run.tag(sentences), strict=True):
        (alone,) = run.tag([words])
        assert alone.tags == found.tags
        np.testing.assert_allclose(alone.probabilities, found.probabilities, atol=1e-5)


def test_marks_are_split_off_where_training_had_them_apart(run: TagRun) -> None:
    assert run.words_of("In Xy, it rained.") == ["In", "Xy", ",", "it", "rained", "."]
    assert run.words_of("Xy Ltd. fell.") == ["Xy", "Ltd.", "fell", "."]
    assert run.words_of("Xy's driver") == ["Xy", "'s", "driver"]
    assert run.words_of("a;b (c)") == ["a;b", "(c)"]  # marks that it has never seen
    assert run.words_of(["as", "given."]) == ["as", "given."]


def test_notes_and_empty_texts(run: TagRun) -> None:
    found = run.tag(["It rained in Qwrtz .", "", "  "])
    assert found[0].notes == ["not in the vocabulary: Qwrtz"]
    assert found[1].words == []
    assert found[1].notes == ["there is no word in it"]
    assert run.tag("").tags == []
    with pytest.raises(DataError, match="words as texts"):
        run.tag([["a", ""]])
    with pytest.raises(DataError, match="at least one word"):
        run.read("")


def test_records_and_controls(run: TagRun) -> None:
    reading = run.read("It rained in Belmor in Belmor .", record=gw.Record("f"))
    assert reading.record is not None
    assert reading.record["words.layers.0.f"].shape == (7, 1, 16)
    assert reading.record["characters.layers.0.f"].shape[1:] == (5, 6)
    assert reading.distinct == ["It", "rained", "in", "Belmor", "."]
    torch.testing.assert_close(reading.chances.sum(-1), torch.ones(7))
    shut = gw.Control.off("words.layers.0.o") | gw.Control.off("words.layers.0.reverse.o")
    same = run.read("It rained .", control=shut).chances
    torch.testing.assert_close(same[0], same[1])
    assert run.tag("It rained .", control=shut).probabilities == pytest.approx(
        same.max(-1).values.tolist()
    )


def test_a_stream_equals_the_whole_sentence(forwards: TagRun) -> None:
    words = TEXTS["valid"][0][0]
    whole = forwards.tag([words])[0]
    stream = forwards.stream(record=gw.Record("c"))
    found = [stream.push(words[0]), stream.push(words[1:3])]
    twin, state = stream.fork(), stream.state
    found.append(stream.push(words[3:]))
    assert stream.time == len(words)
    assert stream.record is not None
    tags = [tag for part in found for tag in part.tags]
    assert tags == whole.tags
    chances = [p for part in found for p in part.probabilities]
    np.testing.assert_allclose(chances, whole.probabilities, atol=1e-5)
    assert twin.push(words[3:]).tags == found[2].tags
    stream.state = state
    assert stream.push(words[3:]).tags == found[2].tags
    stream.reset()
    assert stream.push(words[0]).tags == found[0].tags
    assert stream.push([]).tags == []


def test_two_directions_do_not_stream(run: TagRun) -> None:
    with pytest.raises(OptionError, match="--no-bidirectional"):
        run.stream()


def test_tags_that_training_never_saw_count_as_errors(run: TagRun) -> None:
    found = run.evaluate([(["It"], ["B-NEVER"])]).summary()
    assert (found["unknown_tags"], found["accuracy"]) == (1, 0)
    with pytest.raises(DataError, match="at least one sentence"):
        run.evaluate([])


def test_foreign_tokens_are_refused(run: TagRun, tmp_path: Path) -> None:
    from dataclasses import replace

    from gatewise.checkpoint import load_checkpoint

    found = load_checkpoint(str(run.path))
    for text, said in (("{}", "words, characters"), (None, "found none")):
        with pytest.raises(CheckpointError, match=said):
            TagRun(replace(found, tokenizer_json=text), run.model)
    assert found.tokenizer_json is not None
    fewer = found.tokenizer_json.replace('"tags": [', '"tags": ["new", ')
    with pytest.raises(CheckpointError, match="do not belong together"):
        TagRun(replace(found, tokenizer_json=fewer), run.model)
