"""Training from the command line: where options come from, what is said, going on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gatewise.checkpoint import load_checkpoint
from gatewise.cli import settings

TINY = ("--preset", "tiny", "--hidden-size", "8", "--embedding-size", "4", "--bptt", "256")
SMALL = ("--preset", "tiny", "--steps", "3", "--hidden-size", "8", "--embedding-size", "4")


def stored(run: Path, part: str) -> dict[str, Any]:
    found: dict[str, Any] = load_checkpoint(run, "latest").config[part]
    return found


def test_a_run_is_made_and_its_result_said(gatewise: Any, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    called = gatewise("train", "lm", text, "--out", out, *SMALL)
    assert called.status == 0, called.err
    assert "bits/char" in called.out
    assert str(out) in called.out
    assert "vocabulary: " in called.err
    assert f"gatewise complete {out}" in called.err
    assert stored(out, "model")["hidden_size"] == 8


def test_a_text_read_many_times_gets_a_hint(gatewise: Any, text: Path, tmp_path: Path) -> None:
    often = gatewise("train", "lm", text, "--out", tmp_path / "a", *TINY, "--epochs", "9")
    assert "--preset char-small" in often.err
    dropped = ("--epochs", "9", "--dropout", "0.5")
    held = gatewise("train", "lm", text, "--out", tmp_path / "b", *TINY, *dropped)
    assert "char-small" not in held.err


def test_json_is_all_of_standard_output(gatewise: Any, text: Path, tmp_path: Path) -> None:
    called = gatewise("train", "lm", text, "--out", tmp_path / "run", *SMALL, "--json")
    result = json.loads(called.out)
    assert result["steps"] == 3
    assert result["reason"] == "steps"
    assert result["valid"]["bits_per_character"] > 0


def test_texts_from_standard_input(gatewise: Any, text: Path, tmp_path: Path) -> None:
    called = gatewise("train", "lm", "-", "--out", tmp_path / "run", *SMALL, stdin=text.read_text())
    assert called.status == 0, called.err


def test_samples_while_it_learns(gatewise: Any, text: Path, tmp_path: Path) -> None:
    called = gatewise("train", "lm", text, "--out", tmp_path / "run", *SMALL, "--sample-every", "2")
    assert "sample at step 2:\n  | " in called.err


def test_a_presets_forget_bias_is_not_for_a_cell_without_that_gate(
    gatewise: Any, text: Path, tmp_path: Path
) -> None:
    words = ("train", "lm", text, "--preset", "char", "--cell", "gru", "--hidden-size", "8")
    called = gatewise(*words, "--steps", "1", "--out", tmp_path / "run")
    assert called.status == 0, called.err
    assert load_checkpoint(tmp_path / "run", "latest").config["model"]["forget_bias"] is None
    asked = gatewise(*words, "--forget-bias", "1", "--out", tmp_path / "other")
    assert "the cell gru has no forget gate" in asked.line


def test_what_belongs_to_a_presets_schedule_is_not_for_another(
    gatewise: Any, text: Path, tmp_path: Path
) -> None:
    words = ("train", "lm", text, "--preset", "char-rnn", "--hidden-size", "8", "--steps", "1")
    called = gatewise(*words, "--schedule", "cosine", "--out", tmp_path / "run")
    assert called.status == 0, called.err
    found = load_checkpoint(tmp_path / "run", "latest").config["training"]
    assert found["decay_every"] is None
    asked = gatewise(*words, "--schedule", "constant", "--min-lr", "0.001", "--out", tmp_path / "o")
    assert "--min-lr: the constant schedule has none" in asked.line


def test_flags_over_file_over_preset(gatewise: Any, text: Path, tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text(
        json.dumps({"preset": "tiny", "hidden-size": 9, "bptt": 11, "lr": 1, "steps": 2})
    )
    out = tmp_path / "run"
    called = gatewise("train", "lm", text, "--out", out, "--config", file, "--bptt", "12")
    assert called.status == 0, called.err
    assert stored(out, "model")["hidden_size"] == 9  # the file
    assert stored(out, "streams") | {"bptt": 12, "batch_size": 16} == stored(out, "streams")
    assert stored(out, "training")["lr"] == 1.0  # whole numbers are numbers
    assert stored(out, "training")["clip_norm"] == 1.0  # the preset


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python reads TOML since 3.11")
def test_options_in_toml(gatewise: Any, text: Path, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text('preset = "tiny"\nsteps = 1\nhidden_sizes = [4, 5]\ntied = true\n')
    out = tmp_path / "run"
    assert gatewise("train", "lm", text, "--out", out, "--config", file).status == 0
    assert stored(out, "model")["hidden_sizes"] == [4, 5]
    assert stored(out, "model")["tied"] is True


def test_a_limit_replaces_the_limits_below_it() -> None:
    preset = {"minutes": 3.0, "lr": 1.0}
    assert settings.layered(preset, {}, {"steps": 5}) == {"lr": 1.0, "steps": 5}
    assert settings.layered(preset, {"epochs": 2.0}, {"lr": 2.0}) == {"epochs": 2.0, "lr": 2.0}
    assert settings.layered(preset, {}, {}) == preset


def test_lists_have_commas(gatewise: Any, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("train", "lm", "--hidden-sizes", "5,6", "--fractions", "0.8, 0.2", text, "--out", out)
    assert gatewise(*words, *SMALL).status == 0
    assert stored(out, "model")["hidden_sizes"] == [5, 6]
    assert "expected numbers with commas" in gatewise(*words, "--hidden-sizes", "5;6").line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '{"hiden_size": 3}', "did you mean 'hidden_size'?"),
        ("a.json", '{"hidden_size": "big"}', "hidden_size: expected a whole number, found 'big'"),
        ("a.json", '{"hidden_size": true}', "expected a whole number, found True"),
        ("a.json", '{"lr": [1]}', "lr: expected a number"),
        ("a.json", '{"hidden_sizes": 3}', "expected a list"),
        ("a.json", '{"tied": 1}', "expected true or false"),
        ("a.json", "[1]", "expected a table of options"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"preset": 3}', "preset: expected a name"),
        ("a.json", '{"preset": "huge"}', "unknown preset 'huge'"),
        ("a.yaml", "", ".toml or .json"),
        ("a.json", None, "cannot read --config"),
        ("a.json", b"\xff\xfe", "expected UTF-8"),
    ],
)
def test_a_bad_file_of_options(
    gatewise: Any, text: Path, tmp_path: Path, name: str, content: str | bytes | None, said: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    called = gatewise("train", "lm", text, "--out", tmp_path / "run", "--config", file)
    assert called.status == 2
    assert said in called.line
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_refused_and_left_alone(
    gatewise: Any, text: Path, run: Path, tmp_path: Path, untouched: Any
) -> None:
    check = untouched(run)
    called = gatewise("train", "lm", text, "--out", run, *SMALL)
    assert called.status == 2
    assert "--resume" in called.line
    check()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    called = gatewise("train", "lm", text, "--out", tmp_path / "mine", *SMALL)
    assert called.status == 2
    assert "is not empty" in called.line


def test_resume_takes_the_options_of_the_run(gatewise: Any, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert gatewise("train", "lm", text, "--out", out, *SMALL, "--tokenizer", "byte").status == 0
    called = gatewise("train", "lm", text, "--out", out, "--resume", "--steps", "5", "--json")
    assert called.status == 0, called.err
    assert json.loads(called.out)["steps"] == 5
    assert stored(out, "model")["hidden_size"] == 8
    called = gatewise("train", "lm", text, "--out", out, "--resume", "--hidden-size", "16")
    assert called.status == 2
    assert "hidden_size" in called.err.splitlines()[-1]


def test_resume_where_nothing_is_says_so(gatewise: Any, text: Path, tmp_path: Path) -> None:
    called = gatewise("train", "lm", text, "--out", tmp_path / "run", *SMALL, "--resume")
    assert called.status == 2
    assert "expected a run folder, found nothing" in called.err
    assert not (tmp_path / "run").exists()
    assert gatewise("train", "lm", text, "--out", tmp_path / "run", *SMALL).status == 0
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    called = gatewise("train", "lm", text, "--out", tmp_path / "run", *SMALL, "--resume")
    assert called.status == 0, called.err
    assert "starting from the beginning" in called.err


def test_a_run_stopped_before_its_first_step_keeps_its_options(
    gatewise: Any, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("gatewise.train.loop._Loop._step", stop)
        gatewise("train", "lm", text, "--out", tmp_path / "run", *SMALL)
    called = gatewise("train", "lm", text, "--out", tmp_path / "run", "--resume", "--json")
    assert called.status == 0, called.err
    assert stored(tmp_path / "run", "model")["hidden_size"] == 8


def test_a_short_run_has_a_short_warmup(gatewise: Any, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert gatewise("train", "lm", text, "--out", out, *SMALL).status == 0
    assert stored(out, "training")["warmup"] == 1
    called = gatewise("train", "lm", text, "--out", tmp_path / "b", *SMALL, "--warmup", "9")
    assert called.status == 2
    assert "--warmup" in called.line


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_saved(
    gatewise: Any, text: Path, tmp_path: Path, number: int, status: int
) -> None:
    out = tmp_path / "run"
    words = [sys.executable, "-m", "gatewise", "train", "lm", text, "--out", out]
    words += ["--preset", "tiny", "--steps", "1000000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("step "):
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == status, rest
    assert rest.splitlines()[-1].startswith("gatewise: interrupted at step ")
    assert gatewise("info", out).status == 0
