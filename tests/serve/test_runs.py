"""The runs that are served: clients that go, queues that are full, checkpoints that change."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gatewise.complete import Request
from gatewise.errors import OptionError
from gatewise.generate import SamplingOptions
from gatewise.probe import Control
from gatewise.serve.runs import Runs, Source

LONG = {"prompt": "gate", "max_tokens": 4096, "n": 4}


def test_our_own_interface_says_what_the_others_cannot(client, trained) -> None:
    runs = client("GET", "/api/runs").json()["runs"]
    assert [(one["name"], one["dtype"]) for one in runs] == [("mine", "int8"), ("other", "float32")]
    assert str(trained.parent) not in str(runs)
    found = client.post("/api/complete", {"prefix": "gate ", "n": 3, "seed": 4, "max_tokens": 9})
    again = client.post("/api/complete", {"prefix": "gate ", "n": 3, "seed": 4, "max_tokens": 9})
    assert found["completions"] == again["completions"]
    assert again["known"] == 4
    assert found["seed"] == 4
    chances = [one["logprob"] for one in found["completions"]]
    assert chances == sorted(chances, reverse=True)
    notes = client.post("/api/complete", {"prefix": "☃", "max_tokens": 0})
    assert "☃" in notes["notes"][0]
    assert notes["completions"] == []


def test_gates_of_a_text(client) -> None:
    found = client.post("/api/gates", {"text": "gate", "names": ["f"], "units": [0, 3]})
    assert found["tokens"] == list("gate")
    assert found["nats"][0] is None
    assert all(len(row) == 2 for row in found["values"]["layers.0.f"])
    mean = client.post("/api/gates", {"text": "gate", "names": ["f", "layers.0.c"]})
    assert len(mean["values"]["layers.0.c"]) == 4
    closed = {"rules": None}
    for bad in (
        {"text": ""},
        {"text": "a" * 2001},
        {"text": "a", "names": ["nonsense"]},
        {"text": "a", "names": ["f"], "units": [10**6]},
        {"text": "a", "names": ["f"], "units": [10**9]},
        {"text": "a", "names": ["f"], "units": [2, 2]},
        {"text": "a", "control": closed},
    ):
        client.refused("/api/gates", bad)


def test_a_control_acts(client) -> None:
    import json

    off = json.loads(Control.off("o").to_json())
    asked = {"prefix": "gate ", "n": 1, "seed": 4, "max_tokens": 9}
    plain = client.post("/api/complete", asked)["completions"]
    acted = client.post("/api/complete", asked | {"control": off})["completions"]
    assert acted != plain
    assert acted == client.post("/api/complete", asked | {"control": off})["completions"]
    assert client.post("/api/complete", asked | {"control": []})["completions"] == plain
    wrong = json.loads(Control.off("nonsense").to_json())
    for bad in (wrong, {"a": 1}, [1], off * 40):
        client.refused("/api/complete", asked | {"control": bad})


def test_many_at_once_are_answered_as_alone(client) -> None:
    bodies = [
        {"prompt": f"gate {'open ' * (k % 7)}", "seed": k, "n": 1 + k % 3, "max_tokens": 5 + k % 20}
        for k in range(60)
    ]
    alone = [client.post("/v1/completions", body)["choices"] for body in bodies]

    async def together() -> list[object]:
        calls = [client.call("POST", "/v1/completions", body) for body in bodies]
        return [found.json()["choices"] for found in await asyncio.gather(*calls)]

    assert asyncio.run(together()) == alone


def test_a_full_queue_is_said_and_passes(make, trained) -> None:
    runs = Runs([Source("mine", trained)])
    runs.open()
    batcher = runs.find("mine").loaded.batcher
    batcher._waiting = 2
    client = make(of=runs)

    async def flood() -> list[int]:
        openai = LONG | {"t_max_predict_ms": 300}
        asked = {
            "/v1/completions": openai,
            "/completion": openai | {"n_predict": 4096},
            "/api/complete": {"prefix": "a", "max_tokens": 4096, "seconds": 0.5},
        }
        calls = (client.call("POST", path, body) for path, body in list(asked.items()) * 8)
        found = await asyncio.gather(*calls)
        assert all(
            one.headers["retry-after"] == "1" for one in found if one.status_code in (429, 503)
        )
        return sorted({one.status_code for one in found})

    assert asyncio.run(flood()) == [200, 429, 503]
    began = time.monotonic()
    while client("POST", "/v1/completions", {"max_tokens": 1}).status_code != 200:
        assert time.monotonic() - began < 2
    runs.close(5)


def test_clients_that_go_end_their_work(process) -> None:
    cancelled = process.metric("gatewise_model_cancelled_total")

    def leave(number: int) -> None:
        connection = process.connect()
        body = b'{"prompt":"gate","max_tokens":4096,"n":4,"stream":%s}'
        connection.request(
            "POST",
            "/v1/completions",
            body % (b"true" if number % 2 else b"false"),
            {"content-type": "application/json"},
        )
        if number % 2:
            connection.getresponse().read(100)
        else:
            time.sleep(0.02)
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(leave, range(12)))
    began = time.monotonic()
    while process.metric("gatewise_queue"):
        assert time.monotonic() - began < 2
    assert process.metric("gatewise_model_cancelled_total") == cancelled + 12


def test_a_checkpoint_that_changes_is_taken_over(trained, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "copy"))
    runs = Runs([Source("mine", folder)])
    runs.open()
    served = runs.find("mine")
    old = served.loaded
    written: list[object] = []
    options = SamplingOptions(max_tokens=1500, seed=1)
    ticket = old.submit(Request("gate", options), None, written.append)
    for name in ("best", "latest"):
        (folder / name).write_bytes((folder / name).read_bytes())

    async def follow() -> None:
        await served.follow()
        await served.follow()

    asyncio.run(follow())
    assert served.taken_over == 1
    assert served.loaded is not old
    assert served.counts()["requests"] == 1  # while the old one ends
    assert ticket.result(10).ended == "done"
    assert len(written) == 1
    assert served.counts()["requests"] == 1
    (folder / "best").write_bytes(b"nonsense")
    (folder / "latest").write_bytes(b"nonsense")
    shutil.rmtree(folder / "checkpoints")
    asyncio.run(follow())  # is said in the log; the old one goes on
    assert served.taken_over == 1
    new = served.loaded.submit(Request("gate", options), None, written.append)
    assert new.result(10).ended == "done"
    runs.close(5)


def test_a_folder_that_is_being_copied_is_taken_over_when_it_is_whole(
    trained, tmp_path: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("gatewise.serve.runs._AGAIN", (0.0, 0.0))
    folder = Path(shutil.copytree(trained, tmp_path / "copy"))
    names = sorted(one.name for one in (folder / "checkpoints").iterdir())
    best = (folder / "best").read_text().strip()
    older = next(name for name in names if name != best)
    (folder / "best").write_text(older + "\n")
    runs = Runs([Source("mine", folder)])
    runs.open()
    served = runs.find("mine")
    shown = len(caplog.records)
    (weights,) = (folder / "checkpoints" / best).glob("model*")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    (folder / "best").write_text(best + "\n")

    async def follow() -> None:
        await served.follow()
        await served.follow()

    asyncio.run(follow())
    assert served.taken_over == 0
    assert len(caplog.records) == shown + 1 + 2  # said once; with what each try falls back to
    weights.write_bytes(whole)
    asyncio.run(follow())
    assert (served.taken_over, served.loaded.run.step) == (1, int(best))
    runs.close(5)


def test_nobody_who_has_found_a_run_finds_it_closed(
    make, trained, tmp_path: Path, monkeypatch
) -> None:
    """A checkpoint is taken over between two rounds of rnn-writer, and while a control is made."""
    monkeypatch.setattr("gatewise.serve.writer.shaped", lambda text: (text, False))
    folder = Path(shutil.copytree(trained, tmp_path / "copy"))
    runs = Runs([Source("mine", folder)])
    runs.open()
    client, served = make(of=runs), runs.find("mine")

    async def scene(method: str, path: str, body: object = None) -> None:
        old, gate = served.loaded, threading.Event()
        submit, controlled = old.submit, old.controlled

        def slow_submit(request, on_piece, on_end):
            return submit(request, on_piece, lambda answer: (gate.wait(10), on_end(answer)))

        old.submit = slow_submit
        old.controlled = lambda control: (gate.wait(10), controlled(control))[1]
        answer = asyncio.ensure_future(client.call(method, path, body))
        while not old.users:
            await asyncio.sleep(0.001)
        (folder / "best").write_bytes((folder / "best").read_bytes())
        await served.follow()
        assert served.loaded is not old
        await asyncio.sleep(0.05)  # in which it would be closed
        gate.set()
        assert (await answer).status_code == 200, answer.result().text
        while served.all != [served.loaded]:
            await asyncio.sleep(0.01)

    asyncio.run(scene("GET", "/generate?start_text=gate&n=2"))
    control = [{"op": "off", "name": "o"}]
    asyncio.run(scene("POST", "/api/complete", {"prefix": "a", "control": control}))
    assert served.taken_over == 2
    runs.close(5)


def test_what_is_counted_never_falls(runs) -> None:
    loaded = runs.find("other").loaded
    for unit in range(7):
        acted = loaded.controlled(Control.off("o", units=unit))
        acted.submit(Request("gate", SamplingOptions(max_tokens=2)), None, lambda _: None)
    while loaded._ending:
        time.sleep(0.01)
    assert len(loaded.batchers) == 1 + 4
    assert loaded.counts()["requests"] >= 7


def test_a_run_in_half_precision_is_served(trained, tmp_path: Path) -> None:
    import gatewise
    from gatewise.cli import main

    exported = tmp_path / "half"
    assert main(["export", str(trained), "--to", str(exported), "--dtype", "bfloat16"]) == 0
    assert gatewise.load(exported).dtype == "bfloat16"
    runs = Runs([Source("half", exported), Source("less", exported, dtype="int4")])
    runs.open()
    assert [served.loaded.dtype for served in runs] == ["bfloat16", "int4"]
    answer = runs.find("half").loaded.batcher.submit(Request("gate")).result(10)
    assert answer.completions
    runs.close(5)


def test_only_language_models_are_served(trained, monkeypatch) -> None:
    import gatewise.run

    other = type("Other", (), {"mapping": "tag"})
    monkeypatch.setattr(gatewise.run, "load", lambda *_, **__: other())
    with pytest.raises(OptionError, match="only language models are served"):
        Source("mine", trained).open()


def test_metrics(client) -> None:
    client.post("/v1/completions", {"prompt": "gate"})
    found = client("GET", "/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    for name in (
        'gatewise_request_seconds_count{kind="/v1/completions"}',
        'gatewise_answers_total{kind="/v1/completions",status="200"}',
        'gatewise_model_steps_total{run="mine"}',
        'gatewise_model_columns_total{run="mine"}',
        'gatewise_model_known_total{run="mine"}',
        'gatewise_queue{run="other"}',
        'gatewise_cache_bytes{run="mine"}',
    ):
        assert name in found.text, name
