from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeDecoder
from gatewise.generate import SamplingOptions, Writer
from gatewise.generate.endings import (
    Characters,
    Closing,
    Ending,
    Lines,
    Sentences,
    StopStrings,
    Words,
)


def through(rule: Ending, pieces: list[str]) -> tuple[list[str], bool]:
    """What came out piece by piece, and whether the rule ended the text."""
    out = []
    for piece in pieces:
        out.append(rule.push(piece))
        if rule.done:
            return out, True
    return [*out, rule.flush()], False


def first_complete(text: str, stops: list[str]) -> str | None:
    """Slowly: grow the text by one character until it ends in a stop string."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return None


@given(
    st.lists(st.text("ab", max_size=4), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_stop_strings_do_not_depend_on_the_pieces(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    expected = first_complete(text, stops)
    out, done = through(StopStrings(stops), pieces)
    assert done == (expected is not None)
    assert "".join(out) == (text if expected is None else expected)


def test_a_possible_beginning_is_held_back_and_nothing_else() -> None:
    rule = StopStrings(["\n\n", "END"])
    assert [rule.push(p) for p in ("xE", "N", "x", "a\n", "b", "EN", "D")] == [
        "x", "", "ENx", "a", "\nb", "", "",
    ]  # fmt: skip
    assert rule.done


@pytest.mark.parametrize(
    ("count", "expected"), [(1, ""), (2, "\na"), (3, "\na\nb"), (4, "\na\nb\n")]
)
def test_lines(count: int, expected: str) -> None:
    for pieces in (["\na\nb\n\n"], list("\na\nb\n\n"), ["\na", "\nb\n", "\n"]):
        out, done = through(Lines(count), pieces)
        assert ("".join(out), done) == (expected, True)
    assert through(Lines(2), ["a\nb"]) == (["a\nb", ""], False)


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("It is 3.14. Yes", 1, "It is 3.14."),
        ('He said "no!" and left. Then', 1, 'He said "no!"'),
        ("One. Two?! Three", 2, "One. Two?!"),
        ("Wait... what", 1, "Wait..."),
        ("好。再见。", 1, "好。"),
        ("no end.", 1, None),
        ("", 1, None),
    ],
)
def test_sentences(text: str, count: int, expected: str | None) -> None:
    for pieces in ([text], list(text)):
        out, done = through(Sentences(count), pieces)
        assert done == (expected is not None)
        assert "".join(out) == (text if expected is None else expected)


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("one two", 1, "one"),
        (" one\ttwo three", 2, " one\ttwo"),
        ("one", 1, None),
        ("one ", 1, "one"),
        ("  ", 1, None),
    ],
)
def test_words(text: str, count: int, expected: str | None) -> None:
    for pieces in ([text], list(text)):
        out, done = through(Words(count), pieces)
        assert done == (expected is not None)
        assert "".join(out) == (text if expected is None else expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a, b) + c", "a, b)"), ("f(x)) y", "f(x))"), ("[{}] (", None), ("]", "]"), ("", None)],
)
def test_a_bracket_that_closes(text: str, expected: str | None) -> None:
    for pieces in ([text], list(text)):
        out, done = through(Closing(), pieces)
        assert done == (expected is not None)
        assert "".join(out) == (text if expected is None else expected)


def test_characters_count_as_a_length() -> None:
    rule = Characters(3)
    assert (rule.push("ab"), rule.done) == ("ab", False)
    assert (rule.push("cd"), rule.done) == ("c", True)
    assert rule.reason == "length"


@given(
    st.lists(st.integers(0, 5), max_size=30),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 12),
)
def test_writer_applies_all_rules_to_the_same_text(
    ids: list[int], size: int, lines: int, characters: int
) -> None:
    tokens = ["a", "b", "ab", "\n", "b\na", "."]
    options = SamplingOptions(
        stop="ba"[:size] * 2, lines=lines, sentences=2, max_characters=characters
    )
    text = "".join(tokens[i] for i in ids)
    for rule in (StopStrings(options.stop), Lines(lines), Sentences(2), Characters(characters)):
        text = "".join(through(rule, [text])[0])
    writer = Writer(FakeDecoder(tokens), options)
    deltas = []
    for id in ids:
        deltas.append(writer.push(id))
        if writer.done:
            break
    else:
        deltas.append(writer.flush())
    assert "".join(deltas) == writer.text == text


def test_writer_flushes_what_the_decoder_holds() -> None:
    writer = Writer(FakeDecoder(["a", "b~"]), SamplingOptions(stop="x"), before=[0])
    assert (writer.push(0), writer.push(1), writer.flush()) == ("a", "", "b~")
    assert not writer.done
