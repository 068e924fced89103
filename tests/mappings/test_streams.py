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
from gatewise.types import state_tensors
from tolerances import assert_close

TEXT = "the quick brown fox jumps over the lazy dog; " * 30


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    (tmp_path / "text.txt").write_text(TEXT)
    return build_corpus([tmp_path / "text.txt"], cache=False)


def learner(
    corpus: Corpus,
    *,
    rank: int = 0,
    world_size: int = 1,
    cell: str = "lstm",
    learned: bool = False,
    **options: object,
) -> LanguageLearner:
    torch.manual_seed(0)
    config = LanguageModelConfig(
        vocab_size=corpus.tokenizer.vocab_size,
        embedding_size=6,
        hidden_size=8,
        cell=cell,
        learned_state=learned,
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


@pytest.mark.parametrize("cell", ["lstm", "slstm", "rnn_tanh"])
def test_some_columns_begin_anew(corpus: Corpus, cell: str) -> None:
    taught = learner(
        corpus, batch_size=8, bptt=5, drop_state=0.3, cell=cell, learned=cell != "slstm"
    )
    stack = taught.model.stack
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(0.1)  # learned start states are not 0 any more
    assert taught.batch(0, 0).enter is None  # all begin anyway
    state = taught.loss(taught.batch(0, 0), None).state
    start = stack.zero_state(8)
    counts = []
    for position in range(5, taught.positions, 5):
        enter = taught.batch(1, position).enter
        if enter is None:
            counts.append(0)
            continue
        found = list(state_tensors(enter(state)))
        again = list(state_tensors(taught.batch(1, position).enter(state)))
        assert all(map(torch.equal, found, again))
        begun = [
            (tensor == own).flatten(0, -3).all(0).all(-1)
            for tensor, own in zip(found, state_tensors(start), strict=True)
        ]
        counts.append(int(begun[0].sum()))
        for tensor, before, fresh in zip(found, state_tensors(state), begun, strict=True):
            assert torch.equal(fresh, begun[0])
            assert torch.equal(tensor[..., ~fresh, :], before[..., ~fresh, :])
            assert not tensor.requires_grad
    assert 0.2 < np.mean(counts) / 8 < 0.4


def test_processes_drop_the_same_states(corpus: Corpus) -> None:
    options = {"batch_size": 4, "bptt": 5, "drop_state": 0.5}
    whole = learner(corpus, **options)
    shares = [learner(corpus, rank=rank, world_size=2, **options) for rank in (0, 1)]
    state = torch.ones(1, 4, 8), torch.ones(1, 4, 8)
    for position in range(5, 100, 5):
        enter = whole.batch(0, position).enter
        expected = state if enter is None else enter(state)
        parts = []
        for taught in shares:
            enter = taught.batch(0, position).enter
            own = torch.ones(1, 2, 8), torch.ones(1, 2, 8)
            parts.append(own if enter is None else enter(own))
        for k in (0, 1):
            assert torch.equal(torch.cat([part[k] for part in parts], dim=1), expected[k])


def test_shares_of_states_are_shares() -> None:
    for wrong in (-0.1, 1.0, float("nan")):
        with pytest.raises(OptionError, match="--drop-state: expected a share"):
            StreamOptions(drop_state=wrong).validate()


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
