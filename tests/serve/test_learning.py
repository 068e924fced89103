"""Learning from a folder: what is read, what is held out, and when what was learnt takes over."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import RunFolder, load_checkpoint, verify_run
from gatewise.checkpoint.lock import WriterLock
from gatewise.cli import main
from gatewise.errors import CheckpointError, DataError, GatewiseError, OptionError
from gatewise.folders import user_cache
from gatewise.run import LanguageRun
from gatewise.serve import learning_round
from gatewise.serve.learning import (
    Learner,
    Learning,
    LearningOptions,
    _work,
    line_of,
    start_learning,
)
from gatewise.serve.learning_gate import Closed, Gate
from gatewise.serve.learning_ledger import HELD, Ledger
from gatewise.serve.learning_notes import Notes
from gatewise.serve.learning_rehearsal import rehearsal
from harness.faulty import Killed, System

# torch notes once which functions a device context acts on: before they are wrapped (conftest.py)
with torch.device("meta"):
    torch.zeros(0)

QUICK = {"settle": 0.0, "poll": 0.05, "held": 200, "lr": 5e-3, "passes": 4, "forget": 0.5}

Files = dict[str, bytes]

NAMES = [
    "rain",
    "memory",
    "open",
    "gate",
    "road",
    "stone",
    "river",
    "tree",
    "cloud",
    "field",
    "light",
    "paper",
    "hand",
    "letter",
]
FORMS = ("the {} is one {}", "a {} keeps the {}", "one more {} for a {}", "over the {} a {} went")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The user's own cache is left alone."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


def make_code(lines: int = 250) -> str:
    """Lines that look like code, in a random order."""
    draw = random.Random(7)
    patterns = ("def {}(self):", "    return {}", "for {} in range(9):", "    {} = 'x'", "")
    return "\n".join(draw.choice(patterns).format(draw.choice(NAMES[:4])) for _ in range(lines))


def make_paragraphs(count: int, seed: int = 3, phrases: int = 5) -> list[str]:
    """Sentences of a few words, in a random order."""
    draw = random.Random(seed)
    phrase = lambda: draw.choice(FORMS).format(draw.choice(NAMES), draw.choice(NAMES))
    return [" ".join(phrase() for _ in range(phrases)) for _ in range(count)]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run; never written to by a test."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "code.txt").write_text(make_code())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    words = ["train", "lm", folder / "code.txt", "--out", folder / "mine", "--preset", "tiny"]
    assert main([str(word) for word in [*words, "--steps", "120"]]) == 0
    torch.set_num_threads(threads)
    return folder / "mine"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to be written to."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of texts of another kind than the run's."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(4):
        text = "\n\n".join(make_paragraphs(15, seed=number))
        (folder / f"note{number}.txt").write_text(text)
    return folder


def options(**changed: Any) -> LearningOptions:
    return LearningOptions(**{**QUICK, **changed})


class Heard(list[dict[str, Any]]):
    """Events, as they were told."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self if event["event"] == kind]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def learner(run: Path, notes: Path, heard: Heard) -> Iterator[Learner]:
    made = Learner(run, notes, options(), Gate(), heard.append)
    yield made
    made.close()


def files(folder: Path) -> Files:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def cost(run: Path, text: str) -> float:
    loaded = gw.load(run)
    assert isinstance(loaded, LanguageRun)
    return loaded.evaluate(text).nats_per_token


def until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_it_learns_new_notes_and_takes_over(learner: Learner, run: Path, notes: Path) -> None:
    held = "\n\n".join(_held(run, notes))
    before, checkpoints = cost(run, held), RunFolder.open(run).checkpoints()
    assert learner.turn() == "taken over"
    assert cost(run, held) < before - 1
    best = load_checkpoint(run)
    assert best.step > checkpoints[-1]
    assert RunFolder.open(run).checkpoints() == [*checkpoints, best.step]  # what was trained stays
    assert best.config["learnt"]["from"] == checkpoints[-1]
    assert verify_run(run) == []
    assert learner.turn() == ""  # nothing is new
    (line,) = [json.loads(text) for text in (run / "learning.jsonl").read_text().splitlines()]
    assert line["decision"] == "taken over"
    assert line["to"] == best.step
    assert line["after"] < line["before"]


def _held(run: Path, notes: Path) -> list[str]:
    """The paragraphs that a ledger at that place would hold out, found without touching the run."""
    seen = Notes(notes, run, file_bytes=1 << 20, total_bytes=1 << 20, settle=0)
    seen.look()
    ledger = Ledger(run.parent / "ledger", 0.1)
    placed = ledger.place(seen.paragraphs())
    return [t for t, (_, side) in zip(seen.paragraphs(), placed, strict=True) if side == HELD]


def test_training_goes_on_from_what_was_learnt(learner: Learner, run: Path, trained: Path) -> None:
    assert learner.turn() == "taken over"
    learnt = load_checkpoint(run)
    words = ["train", "lm", trained.parent / "code.txt", "--out", run, "--resume"]
    assert main([str(word) for word in [*words, "--steps", learnt.step + 3]]) == 0
    assert RunFolder.open(run).latest().step == learnt.step + 3


def test_what_does_not_help_does_not_take_over(run: Path, notes: Path, heard: Heard) -> None:
    learner = Learner(run, notes, options(lr=1e-12), Gate(), heard.append)
    before = files(run / "checkpoints")
    assert learner.turn() == "not better"
    assert learner.turn() == ""  # the same text is not tried again
    assert heard.of("state")[-1]["new_characters"] == 0
    (notes / "more.txt").write_text((notes / "note0.txt").read_text().upper())
    learner.close()
    assert files(run / "checkpoints") == before
    assert (run / "best").read_text() == "0000000120\n"


def test_what_forgets_does_not_take_over(run: Path, notes: Path, heard: Heard) -> None:
    learner = Learner(run, notes, options(rehearsal=0.0, forget=0.0), Gate(), heard.append)
    assert learner.turn() == "forgets"
    assert (run / "best").read_text() == "0000000120\n"
    learner.close()


def test_rehearsal_keeps_what_was_known(run: Path, notes: Path, heard: Heard) -> None:
    results = []
    for share in (0.0, 0.5):
        fresh = Path(shutil.copytree(run, run.with_name(f"share{share}")))
        learner = Learner(fresh, notes, options(rehearsal=share, forget=9), Gate(), heard.append)
        assert learner.turn() == "taken over"
        learner.close()
        results.append(heard.of("round")[-1])
    alone, mixed = results
    assert mixed["own"] == "training text"
    assert mixed["own_after"] < mixed["own_first"] + 0.5 < alone["own_after"]


def test_a_model_rehearses_what_it_draws_where_its_text_is_gone(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded = gw.load(run)
    assert isinstance(loaded, LanguageRun)
    assert rehearsal(loaded, 1).kind == "training text"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    drawn, again = rehearsal(loaded, 1), rehearsal(loaded, 1)
    assert drawn.kind == "drawn by the model"
    assert np.array_equal(drawn.train, again.train)
    assert loaded.evaluate(drawn.judge).nats_per_token < 1.5  # its own kind of text
    loaded.config["data"] = {"fingerprint": "../" * 21 + "x"}
    assert rehearsal(loaded, 1).kind == "drawn by the model"
    assert not (user_cache() / "text").exists()


def test_little_text_is_waited_for(run: Path, tmp_path: Path, heard: Heard) -> None:
    (tmp_path / "few").mkdir()
    learner = Learner(run, tmp_path / "few", options(), Gate(), heard.append)
    assert learner.turn() == ""
    (tmp_path / "few" / "a.txt").write_text("only a line\n")
    assert learner.turn() == ""
    assert heard.of("state")[-1]["files"] == 1
    learner.close()


def test_a_run_that_is_in_use_is_let_be(learner: Learner, run: Path) -> None:
    lock = WriterLock(run, ".gatewise.lock")
    with pytest.raises(CheckpointError, match="another process"):
        learner.turn()
    lock.close()
    assert learner.turn() == "taken over"


def test_a_run_that_changed_meanwhile_is_not_overwritten(
    learner: Learner, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = learning_round._train

    def meanwhile(*args: Any) -> Any:
        with RunFolder.resume(run) as folder:
            best = folder.best()
            folder.save(130, config=best.config, tensors=best.tensors, best=True)
        return real(*args)

    monkeypatch.setattr(learning_round, "_train", meanwhile)
    assert learner.turn() == "stale"
    assert (run / "best").read_text() == "0000000130\n"


def test_only_some_learnt_checkpoints_are_kept(run: Path, notes: Path, heard: Heard) -> None:
    learner = Learner(run, notes, options(keep=1, forget=9.0), Gate(), heard.append)
    trained = RunFolder.open(run).checkpoints()
    assert learner.turn() == "taken over"
    first = load_checkpoint(run).step
    for number in range(4):  # the same in a language of its own
        text = (notes / f"note{number}.txt").read_text()
        (notes / f"new{number}.txt").write_text(text.translate(str.maketrans("aeirt", "rtaei")))
    assert learner.turn() == "taken over"
    learner.close()
    best = load_checkpoint(run)
    assert best.step > first
    assert RunFolder.open(run).checkpoints() == [*trained, best.step]
    # forgetting is counted from before any learning
    one, two = heard.of("round")
    assert one["own_first"] == two["own_first"] == best.config["learnt"]["own_first"]


def test_a_restart_knows_what_was_learnt(
    learner: Learner, run: Path, notes: Path, heard: Heard
) -> None:
    assert learner.turn() == "taken over"
    learner.close()
    again = Learner(run, notes, options(), Gate(), heard.append)
    assert again.turn() == ""
    assert heard.of("state")[-1]["new_characters"] == 0
    again.close()
    (run / "learning.ledger").write_bytes(b"{}\n")
    again = Learner(run, notes, options(fresh=10**6), Gate(), heard.append)
    assert "decided anew" in heard.of("notice")[-1]["message"]
    again.close()


def test_nothing_is_written_outside_the_run(learner: Learner, run: Path, notes: Path) -> None:
    inside, cached = files(notes), set(files(user_cache() / "text"))
    around = sorted(p.name for p in run.parent.iterdir())
    assert learner.turn() == "taken over"
    assert files(notes) == inside
    assert set(files(user_cache() / "text")) == cached
    assert sorted(p.name for p in run.parent.iterdir()) == around
    assert sorted(p.name for p in run.iterdir() if "learn" in p.name) == [
        "learning.jsonl",
        "learning.ledger",
    ]
    # hashes, no words
    assert b"river" not in (run / "learning.ledger").read_bytes()
    assert b"river" not in b"".join(files(run).values())


def test_a_pause_keeps_a_round_from_its_next_step(learner: Learner) -> None:
    gate = learner._gate
    gate.pause()
    thread = threading.Thread(target=learner.turn)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    gate.resume()
    thread.join(30)
    assert learner.taken == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"lr": -1.0},
        {"passes": 0},
        {"passes": 101},
        {"rehearsal": 1.0},
        {"held": 1.5},
        {"gain": float("nan")},
    ],
)
def test_options_outside_their_range(changed: dict[str, Any], run: Path, notes: Path) -> None:
    with pytest.raises(OptionError, match=next(iter(changed))):
        start_learning(run, notes, LearningOptions(**changed))


def test_what_cannot_learn_is_refused(run: Path, tmp_path: Path, heard: Heard) -> None:
    with pytest.raises(DataError, match="a folder of texts"):
        start_learning(run, tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="a run folder"):
        start_learning(tmp_path, tmp_path)
    with pytest.raises(DataError, match="the run's own"):
        start_learning(run, run / "checkpoints")
    export = tmp_path / "export"
    assert main(["export", str(run), "--to", str(export)]) == 0
    with pytest.raises(OptionError, match="exported"):
        Learner(export, tmp_path, options(), Gate(), heard.append)
    assert not list(export.glob("learning*"))


def test_a_look_that_finds_nothing_new_costs_little(
    learner: Learner, monkeypatch: pytest.MonkeyPatch, notes: Path
) -> None:
    assert learner.turn() == "taken over"
    assert learner.turn() == ""
    monkeypatch.setattr(learner._ledger, "place", None)  # would fail
    assert learner.turn() == ""
    (notes / "note0.txt").write_text("another text")
    with pytest.raises(TypeError):
        learner.turn()


def test_a_small_edit_of_a_long_paragraph_is_no_round(run: Path, notes: Path, heard: Heard) -> None:
    learner = Learner(run, notes, options(fresh=500), Gate(), heard.append)
    assert learner.turn() == "taken over"
    text = (notes / "note1.txt").read_text()
    (notes / "note1.txt").write_text(text.replace("rain", "drizzle", 2))
    assert learner.turn() == ""
    assert 0 < heard.of("state")[-1]["new_characters"] < 500
    learner.close()


def test_what_goes_wrong_is_tried_ever_more_seldom(
    run: Path, notes: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    gate = Gate()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 9:
            raise Closed

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gate, "sleep", sleep)
    monkeypatch.setattr("gatewise.serve.learning_turns.learn", full)
    learner = Learner(run, notes, options(), gate, heard.append)
    with pytest.raises(Closed):
        learner.live()
    learner.close()
    assert slept == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert [e["message"] for e in heard.of("notice") if "learning waits" in e["message"]] == [
        "learning waits: [Errno 28] No space left on device"
    ]


def test_an_error_of_ours_tells_none_of_the_text(
    run: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("a secret of the user's")

    monkeypatch.setattr("gatewise.serve.learning_turns.Ledger.place", fail)
    failure: list[BaseException] = []
    _work(run, notes, options(), Gate(), failure)
    said = capsys.readouterr()
    assert "ValueError at" in said.out
    assert "secret" not in said.out + said.err


def test_what_the_model_cannot_read_is_not_learnt(run: Path, notes: Path, heard: Heard) -> None:
    for path in notes.iterdir():
        path.write_text(path.read_text().translate({c: 0x4E00 + c for c in range(97, 123)}))
    learner = Learner(run, notes, options(), Gate(), heard.append)
    assert learner.turn() == ""
    assert heard.of("state")[-1]["left_out"] == 60
    assert "60 paragraphs are left out" in heard.of("notice")[-1]["message"]
    learner.close()


def test_checkpoints_of_another_training_are_never_removed(learner: Learner, run: Path) -> None:
    """A run that was trained anew meanwhile has steps that learnt ones had before."""
    learner._ledger.published = [120, 7]
    assert learner.turn() == "taken over"
    assert 120 in RunFolder.open(run).checkpoints()
    assert learner._ledger.published == [load_checkpoint(run).step]


def test_a_process_learns_and_is_steered(run: Path, notes: Path, heard: Heard) -> None:
    """One process for all that needs one, since starting it takes seconds."""
    with start_learning(run, notes, options(), on_event=heard.append) as learning:
        learning.pause()
        assert learning.status()["state"] == "paused"
        until(lambda: os.path.exists(f"/proc/{learning.pid}") or sys.platform != "linux")
        time.sleep(0.3)
        assert learning.status()["round"] is None
        learning.resume()
        until(lambda: learning.status()["taken_over"] if "rounds" in learning.status() else 0)
        assert "taken over" in line_of(heard.of("round")[0])
        assert line_of(heard.of("state")[0]) == ""
        status = learning.status()
        assert status["step"] == load_checkpoint(run).step > 120
        assert status["round"]["decision"] == "taken over"
        learning.hold()
        assert learning.status()["state"] == "paused"
        if sys.platform == "linux":
            until(lambda: _state(learning.pid) == "T")
            assert os.sched_getscheduler(learning.pid) == os.SCHED_IDLE
            assert Path(f"/proc/{learning.pid}/oom_score_adj").read_text() == "1000\n"
        failure: list[BaseException] = []
        _work(run, notes, options(), Gate(), failure)
        assert "another server is learning" in str(failure[0])
        start = time.monotonic()
    assert time.monotonic() - start < 1.0
    assert learning.status()["state"] == "ended"
    assert not heard.of("ended")
    learning.hold()  # harmless


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is held by an order")
def test_a_request_stops_it_until_none_is_on_its_way(tmp_path: Path, heard: Heard) -> None:
    ready = {"event": "ready", "stoppable": True}
    code = f"import time; print({json.dumps(ready)!r}, flush=True); time.sleep(60)"
    busy = [True]
    work = tmp_path / "learning"
    work.mkdir()
    with Learning(
        tmp_path, [sys.executable, "-c", code], {}, 0.05, heard.append, lambda: bool(busy)
    ) as learning:
        until(lambda: learning._stoppable)
        for _ in range(2):
            learning.hold()
            until(lambda: _state(learning.pid) == "T")
        time.sleep(0.2)
        assert _state(learning.pid) == "T"
        busy.clear()
        until(lambda: _state(learning.pid) != "T")
        learning.hold()
        learning.resume()
        until(lambda: _state(learning.pid) != "T")
        busy.append(True)
        learning.hold()
        learning._process.kill()
        until(lambda: heard.of("ended"))
        lock = WriterLock(tmp_path, ".learning.lock")  # another server's, that is at a round
    assert work.exists()
    lock.close()
    learning.close()
    assert not work.exists()


def test_where_it_cannot_be_stopped_it_is_told_to_hold(tmp_path: Path, heard: Heard) -> None:
    ready = json.dumps({"event": "ready", "stoppable": False})
    code = (
        f"import sys; print({ready!r}, flush=True)\n"
        f"for line in sys.stdin: open({str(tmp_path / 'orders')!r}, 'a').write(line)"
    )
    busy = [True]
    orders = lambda: (tmp_path / "orders").read_text() if (tmp_path / "orders").exists() else ""
    with Learning(
        tmp_path, [sys.executable, "-c", code], {}, 0.05, heard.append, lambda: bool(busy)
    ) as learning:
        for _ in range(100):
            learning.hold()
        until(
            lambda: orders().count("hold 0.050\n") >= 3
        )  # again and again, while one is on its way
        busy.clear()
        until(lambda: not learning._resting)
        count = orders().count("hold")
        time.sleep(0.2)
        assert orders().count("hold") == count < 90


def _state(pid: int) -> str:
    """A process's state as Linux has it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux wakes it at the end of its server")
def test_a_stopped_learner_ends_with_a_server_that_is_killed(run: Path, notes: Path) -> None:
    code = (
        "import sys, time; from gatewise.serve.learning_handle import start_learning\n"
        "learning = start_learning(sys.argv[1], sys.argv[2])\n"
        "while not learning._stoppable: time.sleep(0.05)\n"
        "learning.hold(); print(learning.pid, flush=True)\n"
        "while True: learning.hold(); time.sleep(0.1)"
    )
    given = [sys.executable, "-c", code, str(run), str(notes)]
    with subprocess.Popen(given, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        until(lambda: _state(pid) == "T")
        server.kill()
    until(lambda: not Path(f"/proc/{pid}").exists() or _state(pid) == "Z", 5.0)


@pytest.fixture(scope="module")
def learnt(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> learning_round.Outcome:
    """What a round came to, to be published."""
    _, base = learning_round.served(trained)
    texts = ["\n".join(make_paragraphs(30, seed=seed)) for seed in range(2)]
    material = learning_round.Material(texts[:1], [], texts[1:])
    work = tmp_path_factory.mktemp("work") / "round"
    return learning_round.learn(base, material, rehearsal(base, 1), options(passes=1), Gate(), work)


def _published(run: Path, outcome: learning_round.Outcome, system: System) -> str:
    """How publishing ended where a call of the system fails, with the run whole whatever came."""
    base, _ = learning_round.served(run)
    try:
        with system.active():
            learning_round.publish(run, base, outcome, [], 1)
        ended = "done"
    except Killed:
        ended = "killed"
    except (GatewiseError, OSError):
        ended = "failed"
    step = load_checkpoint(run).step
    assert step in (base.step, base.step + outcome.steps)
    assert ended != "done" or step > base.step
    assert [fault for fault in verify_run(run) if "interrupted" not in fault] == []
    # whoever writes next tidies up; in a copy, since one that was killed here may still hold the lock
    copy = Path(shutil.copytree(run, run.with_name("next")))
    with RunFolder.resume(copy) as folder:
        assert folder.best().step == step
    assert not list((copy / "checkpoints").glob(".*"))
    shutil.rmtree(copy)
    return ended


@pytest.mark.parametrize("code", [None, errno.ENOSPC], ids=["kill", "disk full"])
@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_or_a_full_disk_at_any_call_leaves_a_whole_run(
    trained: Path, learnt: learning_round.Outcome, tmp_path: Path, code: int | None, stride: int
) -> None:
    fine = System()
    run = Path(shutil.copytree(trained, tmp_path / "fine"))
    assert _published(run, learnt, fine) == "done"
    ends = []
    for at in range(1, fine.calls + 1, stride):
        copy = Path(shutil.copytree(trained, tmp_path / str(at)))
        ends.append(_published(copy, learnt, System(at, code, forever=code is not None)))
        shutil.rmtree(copy)
    assert set(ends) >= {"killed" if code is None else "failed"}
    assert code is not None or "done" not in ends


@pytest.mark.slow
def test_a_killed_process_leaves_a_whole_run(run: Path, notes: Path) -> None:
    """kill -9 while it learns; who comes after it learns the same, and takes over."""
    for number in range(4):
        heard = Heard()
        learning = start_learning(run, notes, options(passes=50, forget=9.0), on_event=heard.append)
        until(lambda heard=heard: heard.of("state"))  # type: ignore[misc]
        time.sleep(0.2 * number)
        os.kill(learning.pid, signal.SIGKILL)
        until(lambda heard=heard: heard.of("ended") or heard.of("round"))  # type: ignore[misc]
        assert gw.load(run).complete("def ", n=1, max_tokens=4)
        assert [fault for fault in verify_run(run) if "interrupted" not in fault] == []
        learning.close()
    assert load_checkpoint(run).step == 120 or heard.of("round")
    heard = Heard()
    learner = Learner(run, notes, options(), Gate(), heard.append)
    assert not (run / "learning").exists()
    assert learner.turn() == "taken over" or load_checkpoint(run).step > 120
    learner.close()


@pytest.mark.slow
def test_sigterm_ends_it_within_a_second(run: Path, notes: Path) -> None:
    command = [sys.executable, "-m", "gatewise.serve.learning", str(run), str(notes)]
    given = [*command, "--settle", "0", "--held", "200", "--passes", "100", "--lr", "1e-5"]
    with subprocess.Popen(given, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("state") == "learning":
                break
        time.sleep(0.5)
        start = time.monotonic()
        process.terminate()
        assert process.wait(60) == 143
        # of the lowest priority, it ends only when others leave it a processor
        busy = sys.platform != "win32" and os.getloadavg()[0] > (os.cpu_count() or 1)
        assert busy or time.monotonic() - start < 1.0
    assert not (run / "learning").exists()
    assert load_checkpoint(run).step == 120
