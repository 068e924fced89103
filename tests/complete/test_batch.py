"""Many requests together: each answer is the one that it would get alone."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gatewise.complete import Batcher, BusyError, Completer, Request, reading
from gatewise.errors import DivergedError, GatewiseError, OptionError
from gatewise.generate import SamplingOptions
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.probe import Control
from gatewise.step.generation import StepLanguageModel
from gatewise.text.tokenizers import build_tokenizer

TEXT = "def read_all(self, names):\n    return [open(name) for name in names]\n\nthe cat sat. " * 40
SOON = 30.0


def made(kind: str = "char", dtype: str = "int8", **options: Any) -> Batcher:
    tokenizer = build_tokenizer(kind, [TEXT])
    torch.manual_seed(5)
    config = LanguageModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=24, embedding_size=8, num_layers=2
    )
    model = LanguageModel(config).eval()
    with torch.no_grad():
        model.decoder.weight.mul_(6)  # surer than at the start
    return Batcher(StepLanguageModel(model, dtype), tokenizer, **options)


@pytest.fixture(scope="module")
def batcher() -> Iterator[Batcher]:
    found = made()
    yield found
    found.close()


def asked(seed: int) -> Request:
    """A request of any kind, the same for the same seed."""
    draw = random.Random(seed)
    begin = draw.randrange(len(TEXT) - 400)
    options = SamplingOptions(
        n=draw.choice([1, 2, 3, 5]),
        max_tokens=draw.choice([1, 2, 7, 20]),
        temperature=draw.choice([0.0, 0.7, 0.7, 1.0]),
        top_k=draw.choice([0, 0, 5]),
        top_p=draw.choice([1.0, 0.9]),
        seed=seed,
        **draw.choice([{}, {}, {"lines": 1}, {"stop": "a"}, {"words": 1}, {"confidence": 0.05}]),
    )
    prefix = TEXT[begin : begin + draw.choice([0, 1, 2, 40, 300])]
    suffix = draw.choice(["", "", ") for"])
    mixed = [0.5 + 0.1 * k for k in range(options.n)] if draw.random() < 0.2 else None
    return Request(prefix, options, suffix, temperatures=mixed)


def contents(answer: Any) -> Any:
    return answer.samples, answer.order, answer.ended, answer.seed


def test_many_at_once_get_what_each_would_get_alone() -> None:
    requests = [asked(seed) for seed in range(120)]
    alone = []
    single = made()
    for request in requests:
        single.cache.clear()
        alone.append(contents(single.submit(request).result(SOON)))
    single.close()
    several = made()
    for _ in range(2):  # once cold, once with what is known
        tickets = [several.submit(request) for request in requests]
        assert [contents(ticket.result(SOON)) for ticket in tickets] == alone
    assert several.counts.columns > several.counts.steps  # they did go together
    several.close()


def test_it_writes_what_a_completer_writes(batcher: Batcher) -> None:
    completer = Completer(batcher.model, batcher.tokenizer)
    for prefix in ("", "the c", TEXT[:300]):
        options = SamplingOptions(n=1, max_tokens=25, temperature=0, seed=1)
        answer = batcher.submit(Request(prefix, options)).result(SOON)
        (expected,) = completer.start(prefix, options).run()
        assert answer.samples[0].text == expected.text
        assert answer.samples[0].logprob == pytest.approx(expected.logprob, rel=1e-4)


def test_a_known_text_is_not_read_again(batcher: Batcher) -> None:
    batcher.cache.clear()
    options = SamplingOptions(n=2, max_tokens=4, seed=1)
    text = TEXT[:900]
    assert batcher.submit(Request(text, SamplingOptions(max_tokens=0))).result(SOON).samples == ()
    for char in "sat":
        text += char
        answer = batcher.submit(Request(text, options)).result(SOON)
        assert (answer.read, answer.known) == (1, len(text) - 2)
    edited = text[:700] + "x" + text[700:]
    answer = batcher.submit(Request(edited, options)).result(SOON)
    assert 500 < answer.known <= 700
    again = made()
    assert again.submit(Request(edited, options)).result(SOON).samples == answer.samples
    again.close()


def test_pieces_come_as_they_are_written(batcher: Batcher) -> None:
    pieces: dict[int, str] = {0: "", 1: "", 2: ""}

    def piece(number: int, text: str) -> None:
        pieces[number] += text

    ends: list[Any] = []
    options = SamplingOptions(n=3, max_tokens=30, seed=2, stop="the")
    answer = batcher.submit(Request("the ", options), piece, ends.append).result(SOON)
    assert list(pieces.values()) == [sample.text for sample in answer.samples]
    assert ends == [answer]


def test_cancelled_work_stops(batcher: Batcher) -> None:
    written, begun = batcher.counts.written, threading.Event()
    options = SamplingOptions(max_tokens=100_000, seed=1)
    ticket = batcher.submit(Request("a", options), lambda number, text: begun.set())
    assert begun.wait(SOON)
    ticket.cancel()
    answer = ticket.result(SOON)
    assert answer.ended == "cancelled"
    assert 0 < answer.written < 50_000
    after = batcher.counts.written
    time.sleep(0.05)
    assert batcher.counts.written == after > written
    waiting = batcher.submit(Request("b", options))
    waiting.cancel()
    waiting.cancel()
    assert waiting.result(SOON).ended == "cancelled"
    assert batcher.load == 0


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_what_was_read_is_known_though_nobody_waited_for_it(how: str) -> None:
    batcher, text = made(), TEXT * 100
    seconds = 0.05 if how == "deadline" else None
    ticket = batcher.submit(Request(text, SamplingOptions(max_tokens=1), seconds=seconds))
    if how == "cancelled":
        time.sleep(0.05)
        ticket.cancel()
    first = ticket.result(SOON)
    assert first.ended == how
    assert all(len(found.kept) < 130 for found in batcher.cache._used.values())
    assert first.read < len(text) - 1
    second = batcher.submit(Request(text + "a", SamplingOptions(max_tokens=1, seed=1))).result(SOON)
    assert 0 < second.known == first.read
    batcher.cache.clear()
    again = batcher.submit(Request(text + "a", SamplingOptions(max_tokens=1, seed=1))).result(SOON)
    assert again.samples == second.samples
    batcher.close()


def test_a_deadline_is_kept(batcher: Batcher) -> None:
    begin = time.monotonic()
    request = Request("a", SamplingOptions(max_tokens=1_000_000, seed=1), seconds=0.05)
    answer = batcher.submit(request).result(SOON)
    assert answer.ended == "deadline"
    assert answer.samples[0].text
    assert 0.05 <= time.monotonic() - begin < 5


def test_a_small_edit_does_not_wait_for_long_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PATIENCE", 0.0)  # all have waited too long
    batcher, options = made(), SamplingOptions(max_tokens=1, seed=1)
    batcher.submit(Request(TEXT[:900], options)).result(SOON)
    long = [batcher.submit(Request(f"{k} {TEXT * 30}", options)) for k in range(8)]
    edits = [batcher.submit(Request(TEXT[:900] + "def read"[:k], options)) for k in (1, 3, 8)]
    assert {ticket.result(SOON).ended for ticket in edits} == {"done"}
    assert sum(ticket._ended.is_set() for ticket in long) < 8
    assert {ticket.result(SOON).ended for ticket in long} == {"done"}
    batcher.close()


def test_more_samples_than_columns_are_written_one_after_the_other() -> None:
    batcher, single = made(), made()
    many = SamplingOptions(n=250, max_tokens=9, seed=4, stop="a")
    answer = batcher.submit(Request("the ", many)).result(SOON)
    first = single.submit(Request("the ", replace(many, n=5))).result(SOON)
    assert answer.samples[:5] == first.samples
    for n in (96, 120, 300):
        found = single.submit(Request("the ", replace(many, n=n))).result(SOON).samples
        assert found[:250] == answer.samples[:n]
    assert max(batcher._columns._sessions) <= 96 >= max(single._columns._sessions)
    batcher.close()
    single.close()


def test_long_answers_do_not_keep_others_waiting(batcher: Batcher) -> None:
    options = SamplingOptions(n=40, max_tokens=100_000_000, seed=1)
    begun = [threading.Event() for _ in range(5)]
    long = [batcher.submit(Request("the ", options), lambda *_, b=b: b.set()) for b in begun]  # type: ignore[misc]
    short = replace(options, n=96, max_tokens=3)
    assert batcher.submit(Request("the ", short)).result(SOON).ended == "done"
    assert all(event.wait(SOON) for event in begun)
    for ticket in long:
        ticket.cancel()
    answers = [ticket.result(SOON) for ticket in long]
    texts = [answer.samples[3].text for answer in answers]
    least = min(texts, key=len)
    assert least
    assert all(text.startswith(least) for text in texts)  # though each was interrupted


def test_too_many_are_refused_and_the_others_answered() -> None:
    batcher = made(waiting=3)
    long = SamplingOptions(max_tokens=1_000_000)
    tickets = [batcher.submit(Request("a", long)) for _ in range(3)]
    with pytest.raises(BusyError, match="3 requests"):
        batcher.submit(Request("a", long))
    for ticket in tickets:
        ticket.cancel()
    assert [ticket.result(SOON).ended for ticket in tickets] == ["cancelled"] * 3
    short = batcher.submit(Request("a", SamplingOptions(max_tokens=2)))
    assert short.result(SOON).ended == "done"
    assert batcher.counts.refused == 1
    batcher.close()
    with pytest.raises(GatewiseError, match="closed"):
        batcher.submit(Request("a"))


def test_closing_answers_what_is_on_its_way() -> None:
    batcher = made()
    short = [batcher.submit(Request("a", SamplingOptions(max_tokens=20))) for _ in range(5)]
    endless = batcher.submit(Request("a", SamplingOptions(max_tokens=100_000_000)))
    batcher.close(timeout=0.3)
    assert [ticket.result(SOON).ended for ticket in short] == ["done"] * 5
    assert endless.result(SOON).ended == "cancelled"


def test_closing_leaves_nobody_behind() -> None:
    batcher, options = made(), SamplingOptions(n=2, max_tokens=100_000_000)
    tickets = [batcher.submit(Request(TEXT[:size], options)) for size in range(100, 160)]
    batcher.close(timeout=0.01)
    assert {ticket.result(SOON).ended for ticket in tickets} == {"cancelled"}
    own = made()
    ticket = own.submit(Request("a", SamplingOptions(max_tokens=1)), on_end=lambda _: own.close())
    assert ticket.result(SOON).ended == "done"
    own._thread.join(SOON)
    assert not own._thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_is_told_that_its_batcher_stayed_behind(batcher: Batcher) -> None:
    child = os.fork()
    if not child:
        status = 1
        try:
            batcher.submit(Request("a"))
        except GatewiseError:
            batcher.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_one_failure_is_one_answer(batcher: Batcher) -> None:
    def broken(number: int, text: str) -> None:
        raise DivergedError("no")

    options = SamplingOptions(max_tokens=8, seed=3)
    good = [batcher.submit(Request("the ", options)) for _ in range(3)]
    bad = batcher.submit(Request("the ", options), broken)
    with pytest.raises(DivergedError):
        bad.result(SOON)
    assert len({ticket.result(SOON).samples for ticket in good}) == 1


def test_who_cannot_take_an_answer_harms_nobody(
    batcher: Batcher, caplog: pytest.LogCaptureFixture
) -> None:
    def closed(answer: Any) -> None:
        raise RuntimeError("Event loop is closed")

    long, short = SamplingOptions(max_tokens=200, seed=3), SamplingOptions(max_tokens=2, seed=3)
    good = [batcher.submit(Request("the ", long)) for _ in range(3)]
    bad = [batcher.submit(Request("the ", short), on_end=closed) for _ in range(3)]
    bad.append(batcher.submit(Request("the ", long, seconds=0.0), on_end=closed))
    assert [ticket.result(SOON).ended for ticket in bad] == ["done"] * 3 + ["deadline"]
    assert {ticket.result(SOON).written for ticket in good} == {200}
    assert "Event loop is closed" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whatever_ends_the_thread_all_are_answered() -> None:
    def leave(number: int, text: str) -> None:
        raise SystemExit

    batcher, options = made(), SamplingOptions(max_tokens=1_000_000, seed=3)
    tickets = [batcher.submit(Request("the ", options)) for _ in range(3)]
    tickets.append(batcher.submit(Request("the ", options), leave))
    for ticket in tickets:
        with pytest.raises(GatewiseError, match="ended"):
            ticket.result(SOON)
    with pytest.raises(GatewiseError, match="closed"):
        batcher.submit(Request("the ", options))
    batcher._thread.join(SOON)


def test_after_a_failure_of_the_model_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    batcher, options = made(), SamplingOptions(max_tokens=4, seed=1)
    expected = batcher.submit(Request("the ", options)).result(SOON).samples
    with monkeypatch.context() as patched:

        def fail(*_: Any) -> None:
            raise RuntimeError("no memory")

        patched.setattr(batcher._columns, "draw", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            batcher.submit(Request("the ", options)).result(SOON)
    assert batcher.submit(Request("the ", options)).result(SOON).samples == expected
    assert batcher.load == 0
    batcher.close()


def test_kept_states_are_rows_of_their_own() -> None:
    batcher, options = made(), SamplingOptions(max_tokens=2, seed=1)
    for more in ("", "a", "t"):
        tickets = [batcher.submit(Request(f"{k} {TEXT[:40]}{more}", options)) for k in range(20)]
        for ticket in tickets:
            ticket.result(SOON)
    for document in batcher.cache._used.values():
        for state in document.kept.values():
            assert state.untyped_storage().nbytes() <= 2 * state.nbytes
    batcher.close()


def test_a_suffix_ranks_the_candidates(batcher: Batcher) -> None:
    options = SamplingOptions(n=5, max_tokens=3, seed=6, temperature=1.5)
    answer = batcher.submit(Request("the cat", options, "sat. ")).result(SOON)
    model, tokenizer = batcher.model, batcher.tokenizer

    def score(text: str) -> float:
        ids = torch.from_numpy(np.asarray(tokenizer.encode("the cat" + text + "sat. ")))[:, None]
        nats = model(ids[:-1]).logits[:, 0].log_softmax(-1).gather(1, ids[1:])
        return float(nats[len("the cat") - 1 :].sum())

    best = sorted({sample.text for sample in answer.samples}, key=score, reverse=True)
    assert [completion.text for completion in answer.completions] == [one for one in best if one]


def test_ranking_many_candidates_holds_up_nobody(batcher: Batcher) -> None:
    many = SamplingOptions(n=90, max_tokens=120, seed=6, temperature=1.5)
    ticket = batcher.submit(Request("the cat", many, "sat. " * 100_000, seconds=SOON))
    while not batcher._closing_up:
        time.sleep(0.001)
    short = SamplingOptions(max_tokens=2, seed=1)
    assert batcher.submit(Request("the", short)).result(SOON).ended == "done"
    late = batcher.submit(Request("the cat", many, "sat. ", seconds=0.0)).result(SOON)
    assert (late.ended, late.order) == ("deadline", None)
    ticket.cancel()
    answer = ticket.result(SOON)
    assert (answer.ended, answer.order, len(answer.samples)) == ("cancelled", None, 90)
    assert batcher.load == 0


def test_the_unknown_token_is_never_written_and_unknown_characters_are_noted() -> None:
    batcher = made("word")
    options = SamplingOptions(n=4, max_tokens=12, temperature=2.0, seed=1)
    answer = batcher.submit(Request("zebra ", options)).result(SOON)
    assert all("<unk>" not in sample.text for sample in answer.samples)
    assert not any(sample.text.startswith(" ") for sample in answer.samples)
    assert "zebra" in answer.notes[0]
    batcher.close()


def test_a_word_that_is_cut_where_notes_begin_is_not_noted() -> None:
    batcher, options = made("word"), SamplingOptions(max_tokens=1, seed=1)
    for size in range(1_990, 2_004):
        answer = batcher.submit(
            Request("names " + "the " * 2 + "c" * (size % 7) + " " * size, options)
        )
        assert not any("ames" in note for note in answer.result(SOON).notes)
        answer = batcher.submit(Request("read_all(self, " * 150 + " " * (size % 15), options))
        assert answer.result(SOON).notes == ()
    batcher.close()


@pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])
def test_whatever_the_text_it_writes_what_a_completer_writes(kind: str) -> None:
    batcher = made(kind, "float32")
    completer = Completer(batcher.model, batcher.tokenizer)
    settings = {"n": 3, "max_tokens": 9, "seed": 3, "stop": ["sat", "n "], "max_characters": 12}
    texts = [
        "",
        " ",
        "\n",
        "  \t\n ",
        "the ",
        "the c",
        "a\r\n",
        "\ud83d",
        "\ud83d\ude00",
        "é",
        "\x00",
        "the\u3000",
    ]
    for prefix in (*texts, TEXT[:90] + " " * 90, "=" * 200, TEXT[:200] + "\n"):
        options = SamplingOptions(**settings, confidence=0.02)  # type: ignore[arg-type]
        for _ in range(2):  # cold, and known
            answer = batcher.submit(Request(prefix, options)).result(SOON)
            expected = completer.start(prefix, options)
            for one, other in zip(answer.samples, expected.run(), strict=True):
                assert (one.text, one.tokens, one.finish_reason) == (
                    other.text,
                    other.tokens,
                    other.finish_reason,
                )
            assert list(answer.notes) == expected.notes
            known = batcher.cache.find(prefix)
            assert known.last.tolist() == batcher.tokenizer.encode(prefix)[-8:].tolist()
    batcher.close()


def test_controls_act_on_all() -> None:
    control = Control.off("o")
    steered, plain = made(control=control), made()
    options = SamplingOptions(max_tokens=6, temperature=0, seed=1)
    completer = Completer(plain.model, plain.tokenizer, control=control)
    for prefix in ("the c", TEXT[:50], TEXT[:51]):
        answer = steered.submit(Request(prefix, options)).result(SOON)
        assert answer.samples[0].text == completer.start(prefix, options).run()[0].text
    steered.close()
    plain.close()


def test_weights_that_change_are_not_those_of_the_batcher() -> None:
    batcher, options = made(dtype="float32"), SamplingOptions(n=3, max_tokens=9, seed=1)
    expected = batcher.submit(Request(TEXT[:60], options)).result(SOON).samples
    with torch.no_grad():
        for parameter in batcher.model._model.parameters():
            parameter.mul_(1.5)
    for _ in range(2):  # what is known and what is read anew still go together
        assert batcher.submit(Request(TEXT[:60], options)).result(SOON).samples == expected
        batcher.cache.clear()
    batcher.close()


def test_any_number_of_threads_writes_the_same(batcher: Batcher) -> None:
    requests = [asked(seed) for seed in range(20)]
    expected = [contents(batcher.submit(request).result(SOON)) for request in requests]
    before = torch.get_num_threads()
    torch.set_num_threads(2 if before == 1 else 1)
    try:
        other = made()
        tickets = [other.submit(request) for request in requests]
        assert [contents(ticket.result(SOON)) for ticket in tickets] == expected
        other.close()
    finally:
        torch.set_num_threads(before)


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(OptionError, match="temperatures: expected 2"):
        Request("a", SamplingOptions(n=2), temperatures=[0.5])
    batcher = made()
    for _ in range(2):
        with pytest.raises(OptionError, match="stop_ids: expected ids below"):
            batcher.submit(Request("a", SamplingOptions(stop_ids=[100_000]))).result(SOON)
        assert batcher.submit(Request("a", SamplingOptions(max_tokens=1))).result(SOON).written == 1
    batcher.close()
    with pytest.raises(OptionError, match="repetition_penalty"):
        Request("a", SamplingOptions(repetition_penalty=1.2))
    for wrong in (float("nan"), -1.0, "5", True):
        with pytest.raises(OptionError, match="seconds: expected"):
            Request("a", seconds=wrong)  # type: ignore[arg-type]
        with pytest.raises(OptionError, match="temperatures: expected numbers"):
            Request("a", temperatures=[wrong])  # type: ignore[list-item]
    with pytest.raises(OptionError, match="prefix: expected a text, found bytes"):
        Request(b"a")  # type: ignore[arg-type]
    assert Request("a", temperatures=np.array([0.5])).temperatures == (0.5,)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])
def test_scores_of_tokens_are_those_of_the_text_read_from_its_beginning(kind: str) -> None:
    batcher = made(kind, "float32")
    prefix = "the cat sat. def read_all(self, "
    options = SamplingOptions(n=3, max_tokens=70, stop="\n", seed=3)  # more than a piece
    answer = batcher.submit(Request(prefix, options, scores=2, score_prefix=True)).result(SOON)
    plain = batcher.submit(Request(prefix, options)).result(SOON)
    batcher.close()
    assert [replace(one, scores=None) for one in answer.samples] == list(plain.samples)
    before = answer.prefix_scores
    assert before is not None
    assert before.ids == tuple(batcher.tokenizer.encode(prefix).tolist())
    for sample in answer.samples:
        found = sample.scores
        assert found is not None
        ids = torch.tensor([*before.ids, *found.ids])[:, None]
        nats = batcher.model(ids[:-1]).logits[:, 0].log_softmax(-1)
        own = nats.gather(1, ids[1:])[:, 0].tolist()
        assert [*before.logprobs[1:], *found.logprobs] == pytest.approx(own, abs=1e-4)
        best = [*before.best[1:], *found.best]
        assert [[token for token, _ in row] for row in best] == nats.topk(2)[1].tolist()
        if sample.finish_reason == "length":
            assert sum(filter(None, found.logprobs)) == pytest.approx(sample.logprob, rel=1e-4)
        assert list(found.offsets) == sorted(found.offsets)
        assert all(offset < len(sample.text) for offset in found.offsets)
        if kind == "char":
            assert batcher.tokenizer.decode(found.ids) == sample.text


def test_scores_are_a_number_or_none() -> None:
    for wrong in (True, -1, 1.0, "2"):
        with pytest.raises(OptionError, match="scores: expected a whole number"):
            Request("a", scores=wrong)  # type: ignore[arg-type]
