"""Batches by position, and evaluation against a loop written by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gatewise.errors import DataError, OptionError
from gatewise.mappings import (
    LanguageLearner,
    LanguageModel,
    LanguageModelConfig,
    StreamOptions,
    evaluate_stream,
)
from gatewise.mappings.streams import random_length
from gatewise.text.corpora import Corpus, build_corpus
from tolerances import assert_close

TEXT = "the quick brown fox jumps over the lazy dog; " * 30


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    (tmp_path / "text.txt").write_text(TEXT)
    return build_corpus([tmp_path / "text.txt"], cache=False)


def learner(
    corpus: Corpus, *, rank: int = 0, world_size: int = 1, **options: object
) -> LanguageLearner:
    torch.manual_seed(0)
    config = LanguageModelConfig(
        vocab_size=corpus.tokenizer.vocab_size, embedding_size=6, hidden_size=8
    )
    return LanguageLearner(
        LanguageModel(config),
        corpus,
        StreamOptions(**options),  # type: ignore[arg-type]
        rank=rank,
        world_size=world_size,
    )


def test_an_epoch_predicts_every_row_but_the_first_once(corpus: Corpus) -> None:
    taught = learner(corpus, batch_size=4, bptt=7)
    ids = np.asarray(corpus.splits["train"].ids, dtype=np.int64)
    rows = len(ids) // 4
    columns = ids[: rows * 4].reshape(4, rows).T
    position, x_parts, y_parts = 0, [], []
    while position < taught.positions:
        batch = taught.batch(0, position)
        assert batch.start == position
        assert batch.lr_scale == 1.0
        x_parts.append(batch.inputs[0])
        y_parts.append(batch.inputs[1])
        assert batch.tokens == x_parts[-1].numel()
        position = batch.stop
    assert np.array_equal(torch.cat(x_parts).numpy(), columns[:-1])
    assert np.array_equal(torch.cat(y_parts).numpy(), columns[1:])


def test_random_lengths_are_those_of_awd_lstm_and_repeat() -> None:
    lengths = [random_length(70, 1, 0, position) for position in range(4000)]
    assert lengths == [random_length(70, 1, 0, position) for position in range(4000)]
    assert min(lengths) >= 5
    short = [n for n in lengths if n < 52]
    assert 0.03 < len(short) / len(lengths) < 0.07
    long = [n for n in lengths if n >= 52]
    assert abs(np.mean(long) - 69.5) < 0.5
    assert abs(np.std(long) - 5) < 0.5


def test_random_lengths_scale_the_learning_rate(corpus: Corpus) -> None:
    taught = learner(corpus, batch_size=4, bptt=20, random_bptt=True)
    batches, position = [], 0
    while position < taught.positions:
        batches.append(taught.batch(3, position))
        position = batches[-1].stop
    assert len({len(b.inputs[0]) for b in batches}) > 3
    for batch in batches:
        assert batch.lr_scale == len(batch.inputs[0]) / 20


def test_processes_share_the_columns(corpus: Corpus) -> None:
    whole = learner(corpus, batch_size=4).batch(0, 3).inputs
    parts = [learner(corpus, batch_size=4, rank=r, world_size=2).batch(0, 3).inputs for r in (0, 1)]
    for k in (0, 1):
        assert torch.equal(torch.cat([part[k] for part in parts], dim=1), whole[k])
    with pytest.raises(OptionError, match="equally"):
        learner(corpus, batch_size=4, world_size=3)


def by_hand(model: LanguageModel, ids: np.ndarray, columns: int, bptt: int) -> float:
    """word_language_model's evaluate."""
    rows = len(ids) // columns
    source = torch.from_numpy(ids[: rows * columns].astype(np.int64)).view(columns, rows).t()
    total, state = 0.0, None
    with torch.no_grad():
        for i in range(0, rows - 1, bptt):
            length = min(bptt, rows - 1 - i)
            out = model(source[i : i + length], state)
            target = source[i + 1 : i + 1 + length].reshape(-1)
            total += length * F.cross_entropy(out.logits.flatten(0, 1), target).item()
            state = out.state
    return total / (rows - 1)


@pytest.mark.parametrize("columns", [1, 3])
def test_evaluation_averages_as_the_reference_program(corpus: Corpus, columns: int) -> None:
    taught = learner(corpus)
    taught.model.train()
    part = corpus.splits["train"]
    result = evaluate_stream(taught.model, part, corpus.tokenizer, batch_size=columns, window=13)
    assert result is not None
    assert taught.model.training
    taught.model.eval()
    expected = by_hand(taught.model, np.asarray(part.ids), columns, bptt=35)
    assert_close(torch.tensor(result.nats_per_token), torch.tensor(expected))
    assert result.tokens == (len(part.ids) // columns - 1) * columns
    assert result.characters == result.tokens  # one character each
    assert math.isclose(result.perplexity, math.exp(result.nats_per_token))
    assert math.isclose(result.bits_per_character * math.log(2), result.nats_per_character)


def test_characters_of_words_are_counted(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a bc def\nbc a\n" * 20)
    corpus = build_corpus([tmp_path / "train.txt"], tokenizer="word", cache=False)
    taught = learner(corpus)
    part = corpus.splits["train"]
    result = evaluate_stream(taught.model, part, corpus.tokenizer, batch_size=1)
    assert result is not None
    widths = np.asarray(corpus.tokenizer.lengths(part.ids))
    assert result.characters == int(widths[1:].sum())


def test_evaluation_can_be_stopped_and_refuses_nothing_to_read(corpus: Corpus) -> None:
    taught = learner(corpus)
    assert taught.evaluate("valid", lambda: True) is None
    assert not taught.has_part("elsewhere")
    with pytest.raises(DataError, match="elsewhere"):
        taught.evaluate("elsewhere")


def test_a_text_too_small_for_the_columns_is_refused(corpus: Corpus) -> None:
    with pytest.raises(OptionError, match=r"--batch-size.*use 607 or less"):
        learner(corpus, batch_size=608 * 2)
    for name in ("batch_size", "bptt", "eval_batch_size"):
        for value in (0, -1, 10**9):
            with pytest.raises(OptionError, match="--" + name.replace("_", "-")):
                learner(corpus, **{name: value})
