from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeModel
from gatewise.complete import Completer, Completion, ranked
from gatewise.errors import OptionError
from gatewise.generate import SamplingOptions, beam_search
from gatewise.probe import Control
from gatewise.text.tokenizers import Tokenizer, build_tokenizer

TEXT = "def read_file(path):\n    return open(path).read()\n\nHe said no. She said yes!\n" * 4
KINDS = ("char", "byte", "word", "bpe")


def tokenizer_of(kind: str) -> Tokenizer:
    return build_tokenizer(kind, [TEXT], vocab_size=300 if kind == "bpe" else None)


TOKENIZERS = {kind: tokenizer_of(kind) for kind in KINDS}
MODELS = {kind: FakeModel(t.vocab_size, order=1).eval() for kind, t in TOKENIZERS.items()}


def completer(kind: str) -> Completer:
    return Completer(MODELS[kind], TOKENIZERS[kind])


def options(**settings: Any) -> SamplingOptions:
    return SamplingOptions(**{"max_tokens": 12, "seed": 1, **settings})


# "Cs": lone surrogates, as a shell hands them on for bytes that are no UTF-8
unicode = st.text(st.characters(exclude_categories=()), max_size=30)


@pytest.mark.parametrize("kind", KINDS)
@given(
    unicode | st.builds("-{}".format, unicode) | st.text("rea d_fi\n", max_size=12),
    st.integers(0, 5),
)
def test_any_prompt_is_continued(kind: str, prefix: str, seed: int) -> None:
    continuation = completer(kind).start(prefix, options(n=2, seed=seed, max_tokens=6, stop=["\n"]))
    texts = ["", ""]
    for delta in continuation:
        assert delta.text
        texts[delta.sample] += delta.text
    assert texts == [sample.text for sample in continuation.samples]
    assert not any("\n" in text for text in texts)
    assert all(len(note.splitlines()) == 1 for note in continuation.notes)
    if not continuation.notes:
        assert not TOKENIZERS[kind].unknowns(prefix)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_prompts(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(200):
        size = int(torch.randint(0, 200, (), generator=generator))
        codes = torch.randint(0, 0x110000, (size,), generator=generator).tolist()
        prefix = "-" * (number % 3) + "".join(map(chr, codes))
        assert len(completer(kind).start(prefix, options(n=3)).run()) == 3


def test_unknown_characters_are_told_once_and_never_drawn() -> None:
    model = FakeModel(TOKENIZERS["char"].vocab_size, scale=0.01).eval()
    with torch.no_grad():
        model.table[:, TOKENIZERS["char"].unknown_id] = 50.0
    continuation = Completer(model, TOKENIZERS["char"]).start("a☃d☃\x00", options(n=3))
    assert continuation.notes == [
        "not in the model's vocabulary, read as unknown: '☃', '\\\\x00'",
    ]
    assert all("\ufffd" not in sample.text for sample in continuation.run())
    many = completer("char").notes("".join(map(chr, range(0x4E00, 0x4E10))))
    assert len(many) == 1
    assert many[0].endswith("'三' and 6 more")
    assert completer("byte").notes("☃") == []


def test_completions_are_distinct_and_in_the_order_of_their_probability() -> None:
    found = [
        Completion("a", -3.0, 1, "stop"),
        Completion("", -0.1, 1, "stop"),
        Completion("b", -1.0, 1, "length"),
        Completion("a", -2.0, 2, "stop"),
    ]
    assert [(c.text, c.logprob) for c in ranked(found)] == [("b", -1.0), ("a", -2.0)]
    assert ranked([found[1]] * 3) == [found[1]]
    assert ranked([]) == []
    continuation = completer("char").start("def ", options(n=6, temperature=0.2))
    continuation.run()
    completions = continuation.completions
    assert len({c.text for c in completions}) == len(completions) <= 6
    assert completions == sorted(completions, key=lambda c: -c.logprob)


def test_it_can_be_left_at_any_time() -> None:
    model = FakeModel(TOKENIZERS["char"].vocab_size).eval()
    continuation = Completer(model, TOKENIZERS["char"]).start("def", options(max_tokens=50))
    for _ in range(3):
        next(continuation)
    calls = len(model.calls)
    continuation.close()
    assert list(continuation) == []
    assert len(model.calls) == calls == 3
    assert [sample.tokens for sample in continuation.samples] == [3]


def test_words_follow_a_space_only_once() -> None:
    for seed in range(5):
        inside = completer("word").start("He said", options(seed=seed)).run()[0].text
        after = completer("word").start("He said ", options(seed=seed)).run()[0].text
        assert inside.removeprefix(" ") == after
        assert inside[:1] in (" ", "\n")


@pytest.mark.parametrize("kind", KINDS)
def test_beams_find_distinct_texts_and_the_same_each_time(kind: str) -> None:
    found = completer(kind).search("He", 3, 5, options(max_tokens=6))
    assert found == completer(kind).search("He", 3, 5, options(max_tokens=6, seed=9))
    assert 1 <= len(found) <= 3
    assert len({c.text for c in found}) == len(found)
    assert found == sorted(found, key=lambda c: -c.logprob)


@pytest.mark.parametrize("kind", KINDS)
def test_beams_are_those_of_the_search_without_the_unknown_token(kind: str) -> None:
    tokenizer, settings = TOKENIZERS[kind], options(max_tokens=6)
    unknown = tokenizer.unknown_id
    banned = SamplingOptions(max_tokens=6, banned=() if unknown is None else (unknown,))
    for alpha in (0.0, 2.0):
        found = completer(kind).beams("He ", 3, 4, settings, length_penalty=alpha)
        expected = beam_search(
            MODELS[kind],
            tokenizer.encode("He "),
            banned,
            width=4,
            n_best=3,
            length_penalty=alpha,
            tokenizer=tokenizer,
        )
        assert [c.logprob for c in found] == [h.logprob for h in expected]
        trimmed = [h.text.removeprefix(" ") if kind == "word" else h.text for h in expected]
        assert [c.text for c in found] == trimmed


def test_beams_run_under_the_completers_control_and_engine() -> None:
    asked = []

    class Noting(FakeModel):
        def forward(self, *args: Any, **settings: Any) -> Any:
            asked.append((settings["control"], settings["engine"]))
            return super().forward(*args, **settings)

    tokenizer, control = TOKENIZERS["char"], Control.off("o")
    noting = Completer(Noting(tokenizer.vocab_size), tokenizer, control=control, engine="reference")
    noting.beams("He", 1, 2, options(max_tokens=3))
    assert len(asked) == 3
    assert set(asked) == {(control, "reference")}


@pytest.mark.parametrize(("n", "width"), [(3, 2), (0, 2), (1, 0)])
def test_more_continuations_than_beams_are_refused(n: int, width: int) -> None:
    with pytest.raises(OptionError, match=f"found {width} beams for {n}"):
        completer("char").search("He", n, width)


def test_a_context_is_the_prefix_read() -> None:
    context = completer("char").context("def")
    assert context.ids.tolist() == TOKENIZERS["char"].encode("def").tolist()
    newline = completer("char").context("")
    assert newline.ids.tolist() == TOKENIZERS["char"].encode("\n").tolist()
