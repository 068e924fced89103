"""What waits for a client: pieces of one sample as one, in order, the end last."""

from __future__ import annotations

import threading

from gatewise.complete import Answer
from gatewise.serve.work import End, Event, Piece, _Waiting

ANSWER = Answer((), "done", 0, 0, 0, (0, 0, 0), 0)


def test_pieces_that_wait_are_one() -> None:
    waiting = _Waiting()
    assert waiting.take() == []
    assert [waiting.add(Piece(0, 1, "a")), waiting.add(End(0, ANSWER))] == [True, False]
    waiting.add(Piece(0, 0, "b"))
    waiting.add(Piece(0, 1, "c"))
    assert waiting.take() == [Piece(0, 1, "ac"), Piece(0, 0, "b"), End(0, ANSWER)]
    assert waiting.take() == []
    assert waiting.add(Piece(0, 1, "d"))


def test_nothing_is_lost_between_two_threads() -> None:
    waiting, count, signals = _Waiting(), 3000, 0
    found: list[Event] = []

    def write() -> None:
        nonlocal signals
        for k in range(count):
            signals += waiting.add(Piece(0, k % 2, f"{k},"))
        signals += waiting.add(End(0, ANSWER))

    thread = threading.Thread(target=write)
    thread.start()
    takes = 0
    while not found or not isinstance(found[-1], End):
        more = waiting.take()
        takes += bool(more)
        found += more
    thread.join()
    for sample in (0, 1):
        text = "".join(one.text for one in found if isinstance(one, Piece) and one.sample == sample)
        assert text == "".join(f"{k}," for k in range(sample, count, 2))
    assert signals == takes  # who looks once for each signal sees all
