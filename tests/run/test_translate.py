"""A loaded encoder-decoder: translations, forced scores, records and controls, attention, vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import RunFolder
from gatewise.errors import CheckpointError, DataError, OptionError, UnknownNameError
from gatewise.generate import SamplingOptions
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.seq_to_vec_to_seq import EncoderDecoderOptions
from gatewise.run import TranslateRun
from gatewise.run.maps import principal_map
from gatewise.run.translate import LONGEST
from gatewise.train import TrainOptions, Watcher, train
from gatewise.train.pairs import PairTextOptions, pair_learner

WORDS = ("null", "eins", "zwei", "drei")
PAIRS = [
    (" ".join(WORDS[int(digit)] for digit in f"{a}{b}"), f"{a}{b}")
    for a in range(4)
    for b in range(4)
]
SOURCE, TARGET = "eins drei", "13"


def make(folder: Path, **model: Any) -> TranslateRun:
    """A run that has learned numbers of two digits."""
    options = EncoderDecoderOptions(
        **{"embedding_size": 16, "hidden_size": 24, "attention": "dot", **model}
    )
    training = TrainOptions(steps=60, lr=0.02, checkpoint_seconds=None, eval_every=30)
    learner, _ = pair_learner(
        {"train": PAIRS, "valid": PAIRS},
        PairTextOptions(tokenizer="char"),
        options,
        BatchOptions(batch_size=16),
        training,
    )
    with RunFolder.create(folder) as run:
        train(learner, run, training, Watcher())
    found = gw.load(folder)
    assert isinstance(found, TranslateRun)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TranslateRun:
    torch.manual_seed(0)
    return make(tmp_path_factory.mktemp("runs") / "numbers")


def test_it_has_learned(run: TranslateRun) -> None:
    found = run.translate([one for one, _ in PAIRS])
    assert [each[0].text for each in found] == [one for _, one in PAIRS]
    assert found[0][0].finish_reason == "end"


def test_a_text_gets_the_same_among_others(run: TranslateRun) -> None:
    texts = [SOURCE, "zwei", "drei drei drei", ""]
    for options in (
        {"beams": 1},
        {"beams": 4, "n": 3},
        {"sampling": SamplingOptions(seed=3), "n": 2},
    ):
        together = run.translate(texts, **options)
        for text, found in zip(texts, together, strict=True):
            alone = run.translate(text, **options)
            assert [one.text for one in alone] == [one.text for one in found]
            for one, other in zip(alone, found, strict=True):
                assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_beams_find_nothing_worse_than_greedy(run: TranslateRun) -> None:
    for text, _ in PAIRS:
        (greedy,) = run.translate(text, beams=1, length_penalty=0)
        best = run.translate(text, beams=6, n=3, length_penalty=0)
        assert best[0].logprob >= greedy.logprob - 1e-5
        assert [one.score for one in best] == sorted((o.score for o in best), reverse=True)


def test_forced_scores_are_those_of_the_search(run: TranslateRun) -> None:
    for found in run.translate(SOURCE, beams=3, n=3):
        scored = run.score(SOURCE, found.text)
        assert scored.logprob == pytest.approx(found.logprob, abs=1e-4)
        assert (-scored.nats).tolist() == pytest.approx(list(found.token_logprobs), abs=1e-4)


def test_evaluation_is_the_mean_of_the_scores(run: TranslateRun) -> None:
    tally = run.evaluate(PAIRS[:5])
    scores = [run.score(*pair) for pair in PAIRS[:5]]
    assert tally.tokens == sum(len(one.nats) for one in scores)
    assert tally.nats == pytest.approx(-sum(one.logprob for one in scores), abs=1e-4)


def test_records_of_both_parts(run: TranslateRun) -> None:
    record = gw.Record("encoder.layers.0.f", "decoder.layers.0.c")
    reading = run.read(SOURCE, TARGET, record=record)
    assert reading.record is not None
    assert set(reading.record) == {"encoder.layers.0.f", "decoder.layers.0.c"}
    assert reading.record["encoder.layers.0.f"].shape == (len(SOURCE) + 1, 1, 24)
    assert reading.record["decoder.layers.0.c"].shape == (len(TARGET) + 1, 1, 24)
    with pytest.raises(UnknownNameError):
        run.read(SOURCE, TARGET, record=gw.Record("encoder.layers.0.q"))


def test_controls_of_one_part(run: TranslateRun) -> None:
    closed = gw.Control.set("decoder.layers.0.o", 0.0)
    record = gw.Record("decoder.layers.0.h", "encoder.layers.0.h")
    found = run.read(SOURCE, TARGET, record=record, control=closed)
    free = run.read(SOURCE, TARGET, record=record)
    assert found.record is not None
    assert free.record is not None
    assert not found.record["decoder.layers.0.h"].any()
    torch.testing.assert_close(
        found.record["encoder.layers.0.h"], free.record["encoder.layers.0.h"]
    )
    assert run.translate(SOURCE, control=closed) != run.translate(SOURCE)


def test_attention(run: TranslateRun, tmp_path: Path) -> None:
    reading = run.attention(SOURCE)
    assert reading.target == TARGET
    assert reading.weights is not None
    assert reading.weights.shape == (len(reading.target_tokens), len(reading.source_tokens))
    torch.testing.assert_close(reading.weights.sum(1), torch.ones(len(reading.target_tokens)))
    plain = make(tmp_path / "plain", attention="none")
    assert plain.read(SOURCE, TARGET).weights is None
    with pytest.raises(OptionError, match="--attention dot"):
        plain.attention(SOURCE)


def test_attention_is_in_the_order_of_the_text(tmp_path: Path) -> None:
    backward = make(tmp_path / "backward", reverse_source=True)
    reading = backward.attention(SOURCE, TARGET)
    model, side = backward.model, backward.sides.source
    ids = torch.from_numpy(side.source(SOURCE)).unsqueeze(1)
    tokens = torch.tensor([[backward.sides.target.mark]])
    out = model(ids, tokens)
    assert reading.weights is not None
    torch.testing.assert_close(reading.weights[0], out.weights[0, 0].flip(0))


@pytest.mark.parametrize("engine", ["reference", "compiled", "closed"])
def test_engines_agree(run: TranslateRun, engine: str) -> None:
    expected = run.read(SOURCE, TARGET, engine="reference")
    found = run.read(SOURCE, TARGET, engine=engine)
    torch.testing.assert_close(found.nats, expected.nats, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        run.vectors([SOURCE, "zwei"], engine=engine),
        run.vectors([SOURCE, "zwei"], engine="reference"),
        atol=1e-5,
        rtol=1e-4,
    )


def test_vectors_and_their_map(run: TranslateRun) -> None:
    phrases = [one for one, _ in PAIRS]
    vectors = run.vectors(phrases)
    assert vectors.shape == (len(PAIRS), 24)
    torch.testing.assert_close(run.vectors(phrases[3:4])[0], vectors[3], atol=1e-6, rtol=1e-4)
    found = principal_map(vectors)
    assert found.points.shape == (len(PAIRS), 2)
    assert 1 >= found.shares[0] >= found.shares[1] > 0
    values = torch.linalg.eigvalsh(torch.cov(vectors.double().T)).flip(0)
    torch.testing.assert_close(found.points.var(0), values[:2])
    x, y = found.points[5].tolist()
    assert 5 in found.inside((x - 0.1, x + 0.1, y - 0.1, y + 0.1))
    for bad in (vectors[:1], vectors[:1].expand(3, -1)):
        with pytest.raises(DataError, match="vectors"):
            principal_map(bad)


def test_notes_of_a_source(run: TranslateRun) -> None:
    assert run.notes_of(SOURCE) == []
    assert run.notes_of("fünf") == ["not in the source vocabulary: f, ü"]
    assert "there is no word" in run.notes_of("")[0]
    (note,) = run.notes_of("eins " * LONGEST)
    assert f"only the first {LONGEST:,} of" in note
    assert run.translate("eins " * LONGEST, max_tokens=3, beams=1)


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
def test_options_outside_their_range(run: TranslateRun, options: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        run.translate(SOURCE, **options)


def test_what_is_not_there(run: TranslateRun) -> None:
    with pytest.raises(DataError, match="at least one phrase"):
        run.vectors([])
    with pytest.raises(DataError, match="at least one pair"):
        run.evaluate([])
    assert run.translate([]) == []


def test_tokenizers_that_are_not_the_models(run: TranslateRun, tmp_path: Path) -> None:
    import json
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    path = copy / "tokenizer.json"
    document = json.loads(path.read_text())
    document["target"]["tokenizer"]["kind"] = "byte"
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError):
        gw.load(copy)
