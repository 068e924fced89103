"""A tagger: its equations by hand, padding, characters, learning what only one direction or the letters can tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gatewise.errors import DataError, OptionError, ShapeError, UnknownNameError
from gatewise.mappings.examples import BatchOptions
from gatewise.mappings.tagger import IGNORED, Sentences, Tagger, TaggerConfig, TaggerOptions
from gatewise.probe import Control, Record
from gatewise.text.tagging import LONGEST, TagTokens
from gatewise.train import TrainOptions
from gatewise.train.tags import TagTextOptions, encode_sentences, tag_learner

SMALL = {"embedding_size": 3, "character_size": 2, "character_hidden": 2, "hidden_size": 4}


def build(**options: Any) -> Tagger:
    torch.manual_seed(0)
    chosen = TaggerOptions(**{**SMALL, **options})
    return Tagger(TaggerConfig.from_options(chosen, 7, 6, 3)).eval()


def sentences() -> Sentences:
    words = torch.tensor([[1, 2], [0, 3], [4, 0]])
    places = torch.tensor([[0, 1], [2, 0], [3, 0]])
    characters = torch.tensor([[2, 3, 1, 5], [4, 0, 2, 2], [5, 0, 0, 3]])
    return Sentences(words, places, characters, torch.tensor([3, 1, 2, 3]), torch.tensor([3, 2]))


def test_scores_are_those_of_the_equations() -> None:
    """Embedding and spelling side by side into torch's own LSTM."""
    model, of = build(), sentences()
    found = model(of).scores
    plain = dict(model.named_parameters())
    spelled = []
    for k, size in enumerate(of.sizes.tolist()):
        letters = F.embedding(of.characters[:size, k : k + 1], plain["character_embedding.weight"])
        net = _lstm(model, "characters", 2, 2)
        h, _ = net(letters)
        spelled.append(torch.cat((h[-1, 0, :2], h[0, 0, 2:])))
    x = torch.cat(
        (F.embedding(of.words, plain["embedding.weight"]), torch.stack(spelled)[of.places]), -1
    )
    net = _lstm(model, "stack", 7, 4)
    for column, size in enumerate((3, 2)):
        h, _ = net(x[:size, column : column + 1])
        torch.testing.assert_close(found[:size, column], model.decoder(h[:, 0]))


def _lstm(model: Tagger, name: str, width: int, size: int) -> torch.nn.LSTM:
    net = torch.nn.LSTM(width, size, bidirectional=True)
    prefix = f"{name}."
    own = {k.removeprefix(prefix): v for k, v in model.state_dict().items() if k.startswith(prefix)}
    net.load_state_dict(own)
    return net


def test_padding_changes_nothing() -> None:
    model, of = build(), sentences()
    whole = model(of).scores
    first = Sentences(
        of.words[:2, 1:], of.places[:2, 1:], of.characters, of.sizes, torch.tensor([2])
    )
    torch.testing.assert_close(model(first).scores[:, 0], whole[:2, 1])


def test_a_net_of_one_direction_goes_on_from_its_state() -> None:
    model, of = build(bidirectional=False), sentences()
    whole = model(Sentences(of.words, of.places, of.characters, of.sizes))
    parts, state = [], None
    for t in range(3):
        step = Sentences(of.words[t : t + 1], of.places[t : t + 1], of.characters, of.sizes)
        out = model(step, state, start=t)
        state = out.state
        parts.append(out.scores)
    torch.testing.assert_close(torch.cat(parts), whole.scores)


def test_targets_that_are_ignored_cost_nothing() -> None:
    model, of = build(), sentences()
    targets = torch.tensor([[0, 1], [2, IGNORED], [1, IGNORED]])
    _, nats, out = model.loss(of, targets)
    logs = out.scores.log_softmax(-1)
    expected = -(logs[0, 0, 0] + logs[1, 0, 2] + logs[2, 0, 1] + logs[0, 1, 1]) / 4
    torch.testing.assert_close(nats, expected)


def test_record_and_control_by_path() -> None:
    model, of = build(), sentences()
    asked = Record("words.layers.0.f", "characters.layers.0.reverse.c")
    record = model(of, record=asked).record
    assert record["words.layers.0.f"].shape == (3, 2, 4)
    assert record["characters.layers.0.reverse.c"].shape == (3, 4, 2)
    assert set(model(of, record=Record("c")).record) == {
        f"{part}.layers.0.{side}c" for part in ("words", "characters") for side in ("", "reverse.")
    }
    shut = model(
        of, control=Control.off("words.layers.0.o") | Control.off("words.layers.0.reverse.o")
    )
    torch.testing.assert_close(shut.scores[0, 0], model.decoder.bias)
    with pytest.raises(UnknownNameError, match="name to record or control"):
        model(of, record=Record("nothing"))


def test_wrong_use() -> None:
    with pytest.raises(OptionError, match="expected one above 0"):
        build(embedding_size=0, character_size=0)
    with pytest.raises(OptionError, match="--word-dropout"):
        build(word_dropout=1.0)
    model, of = build(), sentences()
    with pytest.raises(DataError, match="expected tokens from 0 to 6"):
        model(Sentences(of.words + 5, of.places, of.characters, of.sizes))
    with pytest.raises(ShapeError, match="places"):
        model(Sentences(of.words, of.places[:2], of.characters, of.sizes))


def test_word_dropout_hides_words_in_training_alone() -> None:
    model, of = build(character_size=0, word_dropout=0.5), sentences()
    assert torch.equal(model(of).scores, model(of).scores)
    model.train()
    hidden = model._hidden(torch.full((40, 40), 3))
    assert set(hidden.unique().tolist()) == {0, 3}
    assert 0.3 < float((hidden == 0).float().mean()) < 0.7


def learned(texts: list[tuple[list[str], list[str]]], test: Any, **options: Any) -> float:
    chosen = {"embedding_size": 8, "character_size": 8, "character_hidden": 8, "hidden_size": 16}
    learner, _ = tag_learner(
        {"train": texts, "test": test},
        TagTextOptions(),
        TaggerOptions(**{**chosen, **options}),
        BatchOptions(batch_size=16),
        TrainOptions(steps=1),
    )
    rule = torch.optim.Adam(learner.model.parameters(), lr=0.02)
    for epoch in range(6):
        position = 0
        while position < learner.positions:
            batch = learner.batch(epoch, position)
            rule.zero_grad()
            learner.loss(batch, None).loss.backward()
            rule.step()
            position = batch.stop
    found = learner.evaluate("test")
    assert found is not None
    return found.accuracy


def test_what_stands_behind_needs_two_directions() -> None:
    """Each word's tag is the word behind it."""
    draws = np.random.default_rng(0)
    texts = []
    for _ in range(200):
        words = [str(k) for k in draws.integers(0, 3, 6)]
        texts.append((words, [*(f"T{w}" for w in words[1:]), "E"]))
    assert learned(texts[:150], texts[150:]) > 0.99
    assert learned(texts[:150], texts[150:], bidirectional=False) < 0.7


def test_unknown_words_are_told_by_their_letters() -> None:
    draws = np.random.default_rng(0)
    endings = {"a": "A", "b": "B", "c": "C"}
    texts = []
    for _ in range(200):
        words = [
            "".join(draws.choice(list("xyzuvw"), 4)) + str(draws.choice(list("abc")))
            for _ in range(3)
        ]
        texts.append((words, [endings[word[-1]] for word in words]))
    assert learned(texts[:150], texts[150:], word_dropout=0.3) > 0.95
    assert learned(texts[:150], texts[150:], character_size=0) < 0.8


# ------------------------------------------------------------------------------ words as ids


def test_words_are_looked_up_with_digits_alike_and_in_lower_case_where_asked() -> None:
    texts = [(["Year", "1999", "x"], ["A", "B", "A"])]
    tokens = TagTokens.build(texts)
    assert tokens.word_ids(["2024", "year", "Year"]).tolist() == [2, 0, 1]
    assert tokens.unknowns(["year", "7", "year"]) == ["year", "7"]
    low = TagTokens.build(texts, lowercase=True)
    assert low.word_ids(["YEAR"]).tolist() == [1]
    assert tokens.character_ids("Yq").tolist()[1] == 1
    assert len(tokens.character_ids("x" * 999)) == LONGEST
    assert tokens.tag_ids(["B", "never"]).tolist() == [1, -1]


def test_rare_words_and_small_vocabularies() -> None:
    texts = [(["a", "a", "b", "c", "c", "c"], ["O"] * 6)]
    assert TagTokens.build(texts, min_count=2).words == ["c", "a"]
    assert TagTokens.build(texts, vocab_size=1).words == ["c"]
    with pytest.raises(OptionError, match="--vocab-size"):
        TagTokens.build(texts, vocab_size=0)
    with pytest.raises(DataError, match="different words"):
        TagTokens.build([])


def test_tokens_go_through_json_and_nothing_else_does() -> None:
    from gatewise.errors import CheckpointError

    tokens = TagTokens.build([(["Ä", "b c"], ["O", "B-X"])])
    again = TagTokens.from_json(tokens.to_json())
    assert vars(again) == vars(tokens)
    good = tokens.to_json()
    for bad in (None, "{", "[]", "{}", good.replace('"format": 1', '"format": 9')):
        with pytest.raises(CheckpointError):
            TagTokens.from_json(bad)
    for name, value in (
        ("words", '["a", "a"]'),
        ("tags", "[]"),
        ("characters", "3"),
        ("tags", "[1]"),
    ):
        import json

        content = json.loads(good)
        content[name] = json.loads(value)
        with pytest.raises(CheckpointError):
            TagTokens.from_json(json.dumps(content))


def test_a_batch_holds_each_distinct_word_once() -> None:
    texts = [(["a", "bb", "a"], ["O"] * 3), (["ccc"], ["O"])]
    part = encode_sentences(texts, TagTokens.build(texts))
    of = part.batch(np.array([0, 1]))
    assert of.words.tolist() == [[1, 3], [2, 0], [1, 0]]
    assert of.places.tolist() == [[0, 2], [1, 0], [0, 0]]
    assert of.sizes.tolist() == [1, 2, 3]
    assert of.characters.shape == (3, 3)
