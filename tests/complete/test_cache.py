"""States are found by texts: always those that reading from the beginning would give."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewise.complete.cache import StateCache, common_characters
from gatewise.text.tokenizers import build_tokenizer

CORPUS = "def read_all(self, names):\n    return [open(name) for name in names]\n\nthe cat  sat. "


@pytest.fixture(scope="module", params=["char", "byte", "word", "bpe"])
def tokenizer(request: Any) -> Any:
    return build_tokenizer(
        request.param, [CORPUS * 20], vocab_size=300 if request.param == "bpe" else None
    )


def state_of(ids: Any) -> torch.Tensor:
    """What stands for the state after these tokens."""
    data = np.asarray(ids, np.int64).tobytes()
    return torch.tensor([float(len(ids)), float(zlib.crc32(data))], dtype=torch.float64)


def read(cache: StateCache, tokenizer: Any, text: str, every: int = 3) -> int:
    """Read a text as a batcher does; how many of its tokens were known. All is checked on the way."""
    whole = tokenizer.encode(text)
    known = cache.find(text)
    assert known.total == len(whole)
    assert known.ids.tolist() == whole[known.position :].tolist()
    if known.position:
        assert known.position < len(whole)
        assert torch.equal(known.state, state_of(whole[: known.position]))
    else:
        assert known.state is None
    places = {*range(known.position + every, len(whole) - 1, every), len(whole) - 1}
    states = {p: state_of(whole[:p]) for p in places if p > known.position}
    if text:
        cache.keep(known, states)
    return int(known.position)


PIECES = st.sampled_from(
    ["a", "cat", " ", "\n", "  ", "e", "ß", "\U0001f600", "name", ".", "\r\n", "\t", "the "]
)
EDIT = st.tuples(st.floats(0, 1), st.integers(0, 5), st.lists(PIECES, max_size=4))


@settings(max_examples=60, deadline=None)
@given(
    edits=st.lists(EDIT, min_size=1, max_size=25), start=st.sampled_from(["", CORPUS, CORPUS * 4])
)
def test_whatever_is_edited_the_state_is_that_of_the_text(
    tokenizer: Any, edits: list[tuple[float, int, list[str]]], start: str
) -> None:
    cache = StateCache(tokenizer)
    text = start
    read(cache, tokenizer, text)
    for at, deleted, pieces in edits:
        place = int(at * len(text))
        text = text[:place] + "".join(pieces) + text[place + deleted :]
        read(cache, tokenizer, text)


@settings(max_examples=60, deadline=None)
@given(edits=st.lists(st.tuples(EDIT, st.booleans()), min_size=2, max_size=25), small=st.booleans())
def test_who_reads_at_the_same_time_does_not_matter(
    tokenizer: Any, edits: list[tuple[tuple[float, int, list[str]], bool]], small: bool
) -> None:
    """What was found is kept later, in another order, and some of it was forgotten meanwhile."""
    cache = StateCache(tokenizer, most_bytes=1_000 if small else 1 << 20)
    text, waiting = CORPUS[:40], []
    for (at, deleted, pieces), now in edits:
        place = int(at * len(text))
        text = text[:place] + "".join(pieces) + text[place + deleted :]
        known, whole = cache.find(text), tokenizer.encode(text)
        assert known.ids.tolist() == whole[known.position :].tolist()
        if known.state is not None:
            assert torch.equal(known.state, state_of(whole[: known.position]))
        waiting.append((known, whole))
        if now:
            for one, ids in waiting[:: -1 if small else 1]:
                places = {p for p in (len(ids) - 1,) if p > one.position}
                if one.text:
                    cache.keep(one, {p: state_of(ids[:p]) for p in places})
            waiting = []
    for document in cache._used.values():
        whole = tokenizer.encode(document.text)
        assert document.ids[:].tolist() == whole.tolist()
        for position, state in document.kept.items():
            assert torch.equal(state, state_of(whole[:position]))
    assert cache.nbytes == sum(document.nbytes for document in cache._used.values())


def test_a_text_that_goes_on_is_read_from_its_end(tokenizer: Any) -> None:
    cache, text = StateCache(tokenizer), CORPUS * 30
    read(cache, tokenizer, text)
    for char in "the cat sat on names":
        text += char
        left = len(tokenizer.encode(text)) - read(cache, tokenizer, text)
        assert left <= 4  # the last word, at most
    assert len(cache) == 1


def test_a_change_in_the_middle_costs_a_part_of_what_stands_behind_it() -> None:
    tokenizer = build_tokenizer("char", [CORPUS])
    cache, text = StateCache(tokenizer), CORPUS * 200
    read(cache, tokenizer, text, every=64)
    for place in (len(text) - 500, len(text) // 2, len(text) // 8):
        changed = text[:place] + "e" + text[place:]
        known = read(cache, tokenizer, changed, every=64)
        assert place - known <= 64 + (len(text) - place) / 8


def test_a_long_text_keeps_few_states() -> None:
    tokenizer = build_tokenizer("char", [CORPUS])
    cache, text = StateCache(tokenizer), CORPUS * 1000
    read(cache, tokenizer, text, every=16)
    (document,) = cache._used.values()
    assert 12 < len(document.kept) < 100
    assert document.ids.size == len(text)


def test_the_oldest_texts_are_forgotten_first(tokenizer: Any) -> None:
    cache = StateCache(tokenizer, most_bytes=60_000)
    texts = [f"{k} {CORPUS * 5}" for k in range(40)]
    for text in texts:
        read(cache, tokenizer, text)
        assert cache.nbytes <= 60_000
    assert 0 < len(cache) < 40
    assert cache.find(texts[0]).position == 0
    assert cache.find(texts[-1]).position > 0
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_texts_of_which_nothing_was_read_take_no_memory(tokenizer: Any) -> None:
    cache = StateCache(tokenizer)
    for text in ("a", "  ", "ß", "cat"):
        cache.keep(cache.find(text), {})
    assert (len(cache), cache.nbytes) == (0, 0)


def test_what_texts_and_states_take_is_counted_whole() -> None:
    tokenizer = build_tokenizer("char", [CORPUS])
    cache, row, tracked = StateCache(tokenizer), 500, 0
    tracemalloc.start()
    try:
        for k in range(200):
            known = cache.find(f"{k} \U0001f600" * 50)
            cache.keep(known, {known.total - 1: torch.zeros(row)})
        tracked = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert tracked + len(cache) * 4 * row <= cache.nbytes  # torch's own memory is not traced


def test_each_of_many_whose_texts_begin_alike_finds_its_own(tokenizer: Any) -> None:
    cache, header = StateCache(tokenizer), "from __future__ import annotations\n\n"
    texts = [header + f"{k} " + CORPUS * 4 for k in range(100)]
    for text in texts:
        read(cache, tokenizer, text)
    for text in texts:
        longer = text + "cat"
        assert len(tokenizer.encode(longer)) - read(cache, tokenizer, longer) <= 4
    assert len(cache) == 100
    for text in texts:
        assert read(cache, tokenizer, text[:-5]) > 0
    held = {id(document) for bucket in cache._buckets.values() for document in bucket.values()}
    assert held == set(cache._used)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_long_word_does_not_keep_what_follows_from_being_cut(kind: str) -> None:
    tokenizer = build_tokenizer(kind, [CORPUS * 20], vocab_size=300 if kind == "bpe" else None)
    cache, text = StateCache(tokenizer), "cat " + "x" * 3000 + " " + CORPUS * 100
    read(cache, tokenizer, text, every=64)
    (document,) = cache._used.values()
    assert len(document.ends) > 20
    assert tokenizer.encode(text).tolist() == document.ids[:].tolist()


def test_two_who_go_on_from_one_text_at_once(tokenizer: Any) -> None:
    cache = StateCache(tokenizer)
    read(cache, tokenizer, CORPUS)
    one, other = cache.find(CORPUS + "cat"), cache.find(CORPUS + "name")
    for known, text in ((one, CORPUS + "cat"), (other, CORPUS + "name")):
        whole = tokenizer.encode(text)
        cache.keep(known, {len(whole) - 1: state_of(whole[:-1])})
    for text in (CORPUS + "cat", CORPUS + "name"):  # neither is lost
        assert cache.find(text).position == len(tokenizer.encode(text)) - 1
    for text in (CORPUS + "cats", CORPUS + "names", CORPUS):
        read(cache, tokenizer, text)


def test_common_beginnings() -> None:
    draw = random.Random(3)
    for _ in range(300):
        one = "".join(draw.choices("ab", k=draw.randrange(12)))
        other = "".join(draw.choices("ab", k=draw.randrange(12)))
        count = 0
        while count < min(len(one), len(other)) and one[count] == other[count]:
            count += 1
        assert common_characters(one, other) == count
