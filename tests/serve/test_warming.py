"""A checkpoint that takes over knows the texts that writers are at."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

import gatewise as gw
from gatewise.complete import Batcher, Request
from gatewise.generate import SamplingOptions
from gatewise.run import LanguageRun
from gatewise.serve import warming
from gatewise.serve.runs import Served, Source
from gatewise.serve.warming import warm

NOTHING = SamplingOptions(max_tokens=0)
TEXTS = ["gate " * 500, "keep a state " * 100, "open memory " * 9]


def known(batcher: Batcher, text: str) -> int:
    return batcher.submit(Request(text, NOTHING)).result(10).known


@pytest.fixture
def batchers(trained: Path) -> tuple[Batcher, Batcher]:
    run = gw.load(trained)
    assert isinstance(run, LanguageRun)
    old, new = run.batcher(), run.batcher()
    for text in TEXTS:
        known(old, text)
    return old, new


def test_the_newest_texts_are_known(batchers: tuple[Batcher, Batcher]) -> None:
    old, new = batchers
    assert old.cache.recent(2) == [TEXTS[2], TEXTS[1]]
    assert asyncio.run(warm(old, new)) == 3
    for text in TEXTS:
        assert known(new, text + "a") >= len(text) - 1


def test_only_so_much_is_read(
    batchers: tuple[Batcher, Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = batchers
    monkeypatch.setattr(warming, "CHARACTERS", 1500)
    assert asyncio.run(warm(old, new)) == 2
    assert known(new, TEXTS[0] + "a") < 10
    monkeypatch.setattr(warming, "SECONDS", 0.0)
    assert asyncio.run(warm(old, new)) == 0
    new.close()
    monkeypatch.setattr(warming, "SECONDS", 60.0)
    assert asyncio.run(warm(old, new)) == 0  # it refuses; so it may take over as it is


def test_it_is_done_before_the_new_one_answers(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "copy"))
    served = Served(Source("mine", folder))
    served.open()
    assert served.loaded is not None
    known(served.loaded.batcher, TEXTS[1])
    for name in ("best", "latest"):
        (folder / name).write_bytes((folder / name).read_bytes())
    asyncio.run(served.follow())
    assert served.taken_over == 1
    assert known(served.loaded.batcher, TEXTS[1] + "a") >= len(TEXTS[1]) - 1
    served.loaded.close(5)
