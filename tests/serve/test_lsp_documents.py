from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.serve.lsp_documents import UNITS, Change, Document, Place, whole
from gatewise.serve.lsp_shapes import behind, fitted, label, window

WIDTH = {
    "utf-16": lambda c: 1 + (ord(c) > 0xFFFF),
    "utf-32": lambda c: 1,
    "utf-8": lambda c: len(c.encode()),
}
# other characters at which Python, but not the protocol, ends a line are among them
texts = st.text(alphabet="ab \r\n\u2028\x0c\x85\U0001f60b\u00e9\u6f22", max_size=12)
places = st.builds(Place, st.integers(0, 5), st.integers(0, 8))


def slow_offset(text: str, place: Place, units: str) -> int:
    starts = [0, *(found.end() for found in re.finditer(r"\r\n|\n|\r", text))]
    if place.line >= len(starts):
        return len(text)
    at, left = starts[place.line], place.character
    while at < len(text) and text[at] not in "\r\n":
        left -= WIDTH[units](text[at])
        if left < 0:
            break
        at += 1
    return at


@given(
    st.sampled_from(UNITS),
    texts,
    st.lists(st.tuples(texts, places, places, st.booleans()), max_size=6),
)
def test_edits_and_places_are_those_of_the_slow_way(units, text, edits):
    document = Document(text, units)
    for new, one, other, everything in edits:
        start, end = sorted((one, other))
        if everything:
            text, at = new, len(new)
            assert document.change([Change(new)]) == at
        else:
            first, last = (slow_offset(text, place, units) for place in (start, end))
            text = text[:first] + new + text[max(first, last) :]
            assert document.change([Change(new, start, end)]) == first + len(new)
        assert document.text == text
    for offset in range(len(text) + 1):
        place = document.place(offset)
        if text[offset - 1 : offset + 1] != "\r\n" or not offset:
            assert document.offset(place) == slow_offset(text, place, units) == offset


def test_places_beyond_are_the_end():
    document = Document("ab\r\ncd")
    assert document.offset(Place(0, 99)) == 2  # before the line's end
    assert document.offset(Place(9, 0)) == 6
    assert Document("").offset(Place(3, 3)) == 0


def test_within_a_character_is_before_it():
    assert Document("a\U0001f60bb").offset(Place(0, 2)) == 1
    assert Document("a\U0001f60bb", "utf-8").offset(Place(0, 4)) == 1


def test_words_and_rests():
    document = Document("x = caf\u00e9_1(\nnext")
    assert document.word(10) == 4
    assert document.word(11) == 11  # a bracket is no word
    assert document.rest(4) == "caf\u00e9_1("
    assert document.rest(13) == "ext"


def test_halves_of_characters_become_marks_of_as_many_units():
    assert whole("a\ud83db\udc00") == "a\ufffdb\ufffd"
    assert whole("\ud83d\ude0b") == "\U0001f60b"
    assert Document("\ud83dx").offset(Place(0, 1)) == 1


def test_what_is_read_begins_at_the_same_place_for_many_keys():
    text = "".join(f"line {number}\r\n" for number in range(2_000))
    begun = [window(text, offset, 1_000) for offset in range(9_000, 9_300)]
    assert len({one[:50] for one in begun}) <= 2
    assert all(900 <= len(one) <= 2_000 and one.startswith("line") for one in begun)
    assert "\r" not in begun[0]
    assert window(text, 500, 1_000) == text[:500].replace("\r\n", "\n")
    assert len(window("x" * 9_000, 9_000, 100)) >= 100  # one long line


def test_a_blank_rest_ranks_nothing():
    assert behind("ab \r\n ", 2) == ""
    assert behind("ab\r\nc", 2) == "\nc"


@pytest.mark.parametrize(
    ("text", "rest", "is_whole", "offered"),
    [
        ("x)", ")", True, "x"),
        ("x)", ") + 1", True, "x"),
        ("x))", ")", True, "x)"),
        ('x")', '")', True, "x"),
        ("x)", "", True, "x)"),
        ("ab", "abc", True, "ab"),  # words may stand twice
        (")", ")", True, ""),
        ("  \n ", "", True, ""),
        ("a:\n    b\n    c", "", True, "a:\n    b\n    c"),
        ("a:\n    b\n    c", "", False, "a:\n    b"),
        ("half a li", "", False, "half a li"),
    ],
)
def test_what_of_a_continuation_is_offered(text, rest, is_whole, offered):
    assert fitted(text, rest, is_whole=is_whole) == offered


def test_labels_have_one_line():
    assert label("a\tb\x1b\nmore") == "a b \u2026"
    assert len(label("x" * 500)) == 80
