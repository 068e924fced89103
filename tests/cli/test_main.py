"""What holds for every verb: help, versions, one line per mistake, exit statuses, any encoding."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gatewise as gw
from gatewise.cli import failures, main, screen, verbs
from gatewise.errors import DivergedError, Interrupted, OptionError
from gatewise.presets import PRESETS

PYTHON = [sys.executable, "-m", "gatewise"]
PAGES = [[verb.name] for verb in verbs.VERBS] + [
    [name, below] for name, (_, names) in verbs.BELOW.items() for below in names
]


def start(*words: Any, **more: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PYTHON, *words], capture_output=True, check=False, timeout=120, **more)


# ---------------------------------------------------------------------------- help and version


def test_the_overview_names_every_verb(gatewise: Any) -> None:
    for words in ([], ["--help"], ["-h"]):
        called = gatewise(*words)
        assert (called.status, called.err) == (0, "")
        for verb in verbs.VERBS:
            assert f"\n  {verb.name} " in called.out


def test_version(gatewise: Any) -> None:
    assert gatewise("--version").out == f"gatewise {gw.__version__}\n"


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_first_answers_need_no_parser(flag: str) -> None:
    """They come at once because next to nothing is imported; see also test_layers.py."""
    program = (
        "import sys; from gatewise.cli import main; main([sys.argv[1]]);"
        "print(*({'cyclopts', 'rich', 'torch', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, flag], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == ""


# These show options that live beside what trains.
SLOW_PAGES = [
    ["demo"],
    ["train", "lm"],
    ["train", "tag"],
    ["train", "forecast"],
    ["train", "classify"],
    ["train", "translate"],
    ["train", "execute"],
    ["train", "caption"],
    ["train", "task"],
]


@pytest.mark.parametrize("words", [p for p in PAGES if p not in SLOW_PAGES], ids=" ".join)
def test_help_does_not_wait_for_torch(words: list[str]) -> None:
    program = (
        "import sys; from gatewise.cli import main; status = main([*sys.argv[1:], '--help']);"
        "print(status, *({'torch', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    assert done.stderr == "0\n"


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_every_verb_has_a_page(gatewise: Any, words: list[str]) -> None:
    called = gatewise(*words, "--help")
    assert called.status == 0
    assert called.out.startswith(f"Usage: gatewise {words[0]}")


@pytest.mark.parametrize("words", [["serve"], ["complete"], ["train", "lm"], ["bench", "serve"]])
def test_paragraphs_of_help_fill_a_narrow_terminal(
    gatewise: Any, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = gatewise(*words, "--help").out.split("\n\n")[2].splitlines()
    for line, after in itertools.pairwise(lines):  # no word would have fitted behind a line
        assert len(line.rstrip()) + 1 + len(after.split()[0]) > 80


def test_every_training_option_has_help(gatewise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from gatewise.cli.train_lm import FORM

    monkeypatch.setenv("COLUMNS", "200")
    page = gatewise("train", "lm", "--help").out
    for kind in FORM.kinds.values():
        for field in dataclasses.fields(kind):
            flag = f"--{field.name.replace('_', '-')} "
            # its own row: the text above the options may name it too, and break after it
            row = next(line for line in page.splitlines() if line[:1] == "│" and f" {flag}" in line)
            assert len(row.split(flag)[1].strip("│ ")) > 10, field.name


def test_defaults_of_a_page_are_those_of_a_new_run(
    gatewise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page = gatewise("train", "lm", "--help").out
    (row,) = (
        line
        for line in page.splitlines()
        if " --hidden-size INT" in line or " --hidden-size  " in line
    )
    assert f"[default: {PRESETS['char'].values['hidden_size']}]" in row
    assert "[default: False]" not in page


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(gatewise: Any, shell: str, tmp_path: Path) -> None:
    script = gatewise("--show-completion", shell).out
    for word in ("complete", "inspect", "batch-size", "top-p"):
        assert word in script
    if shutil.which(shell):
        path = tmp_path / "script"
        path.write_text(script)
        subprocess.run([shell, "-n", str(path)], check=True)


def test_completion_in_bash() -> None:
    """A word begun is finished by the real shell."""
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("no bash here")
    script = start("--show-completion", "bash").stdout.decode()
    ask = (
        "COMP_WORDS=(gatewise comp); COMP_CWORD=1; COMP_LINE='gatewise comp'; COMP_POINT=13;"
        "f=$(complete -p gatewise | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $f; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run([bash, "-c", script + "\n" + ask], capture_output=True, text=True)
    assert done.stdout.split() == ["complete"], done.stderr


def test_install_completion_into_a_home(
    gatewise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    called = gatewise("--install-completion", "fish")
    assert called.status == 0, called.err
    assert [p for p in tmp_path.rglob("gatewise.fish") if p.is_file()]
    assert "unknown shell" in gatewise("--install-completion", "tcsh").line


# ---------------------------------------------------------------------------- wrong use


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "did you mean 'train'?"),
        (["--jsno"], "expected a verb before the options"),
        (["train", "taggs", "x"], "unknown mapping 'taggs'"),
        (["train", "lm"], "requires an argument"),
        (["train", "lm", "x"], "--out"),
        (["inspect", "gates"], "unknown inspection 'gates'"),
        (["complete"], "requires an argument"),
        (["complete", "runs/x", "a", "-n", "three"], "-n"),
        (["complete", "runs/x", "a", "b"], "'b'"),
        (["complete", "runs/x", "--tempreature"], "unknown option '--tempreature'"),
        (["classify", "runs/x", "a.csv", "--stesp", "3"], "did you mean '--steps'?"),
        (["execute", "runs/x", "--jsno"], "did you mean '--json'?"),
        (["caption", "runs/x", "a.png", "--beasm", "1"], "did you mean '--beams'?"),
        (["eval", "runs/x", "--btach-size", "3"], "--btach-size"),
        (["complete", "runs/x", "a", "--checkpoint", "newest"], "newest"),
        (["export", "runs/x", "--to", "y", "--format", "pickle"], "pickle"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_wrong_use_is_one_line_and_status_2(gatewise: Any, words: list[str], said: str) -> None:
    called = gatewise(*words)
    assert called.status == 2
    assert called.out == ""
    assert said in called.line


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OptionError("--lr: expected\nless"), 2, "--lr: expected less"),
        (DivergedError("it broke"), 1, "it broke"),
        (Interrupted("saved", 143), 143, "saved"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (FileNotFoundError(2, "No such file", "a\nb"), 1, "a\\nb: No such file"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("[enforce fail] not enough memory: you tried to"), 1, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 1, "not enough memory"),
        (SystemExit("enough"), 1, "enough"),
    ],
    ids=lambda error: type(error).__name__ if isinstance(error, BaseException) else None,
)
def test_failures_are_one_line(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failures.report(error) == status
    written = capsys.readouterr().err
    assert written.startswith("gatewise: ")
    assert said in written
    assert written.count("\n") == 1


def _broken(error: BaseException) -> Any:
    def run(words: list[str]) -> int:
        raise error

    return run


def test_a_fault_of_gatewise_shows_where(gatewise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewise.cli.parse.run", _broken(ZeroDivisionError("oops")))
    called = gatewise("info")
    assert called.status == 1
    assert "Traceback" in called.err
    assert "please report" in called.err.splitlines()[-1]


def test_debug_shows_where_a_mistake_was_found(
    gatewise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewise.cli.parse.run", _broken(OptionError("no")))
    assert "Traceback" not in gatewise("info").err
    assert "Traceback" in gatewise("info", "--debug").err
    assert "Traceback" not in gatewise("info", "--", "--debug").err
    monkeypatch.setenv("GATEWISE_DEBUG", "1")
    assert "Traceback" in gatewise("info").err


def test_a_reader_that_leaves_is_no_error() -> None:
    words = [*PYTHON, "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""


# ---------------------------------------------------------------------------- any text, any encoding


def test_results_in_ascii(trained: Path) -> None:
    done = start(
        "complete", trained, "é\u4e2d\U0001f600", "-n", "2", "--max-tokens", "4", "--json",
        env={**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("ascii"))["prefix"] == "é\u4e2d\U0001f600"


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are texts there")
def test_arguments_that_are_no_text() -> None:
    done = start("complete", b"runs/\xff\xfe", b"\xff", env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 1
    assert done.stderr.startswith(b"gatewise: ")
    assert done.stderr.count(b"\n") == 1


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert screen.visible("a\x1b[2J\x07\tb\nc\u202e") == "a\\x1b[2J\\x07\tb\nc\\u202e"
    assert screen.shown("a\nb\tc" + "d" * 300).startswith("a\\nb\\tcddd")
    assert len(screen.shown("d" * 300)) == 200
    assert [screen.token(one) for one in (" ", " a", "\n")] == ["\u00b7", " a", "\\n"]


def test_columns_that_do_not_fit_on_a_terminal_stand_below(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["", "one", "two", "three"], ["cost", "1.0", "2.0", "3.0"]]
    assert screen.folded(rows) == screen.table(rows, indent="")
    monkeypatch.setattr("gatewise.cli.screen.is_terminal", lambda stream=None: True)
    for columns, expected in (
        (21, "      one  two  three\ncost  1.0  2.0  3.0"),
        (14, "      one  two\ncost  1.0  2.0\n\n      three\ncost  3.0"),
        (3, "      one\ncost  1.0\n\n      two\ncost  2.0\n\n      three\ncost  3.0"),
    ):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert screen.folded(rows) == expected


def test_json_says_nothing_that_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    screen.make_streams_safe()
    screen.out_json(
        {"a": float("nan"), "b": np.float32(0.5), "c": (1, {2: Path("x")}), "d": "\udc80"}
    )
    found = json.loads(capsys.readouterr().out)
    assert found == {"a": None, "b": 0.5, "c": [1, {"2": "x"}], "d": "\udc80"}


def test_main_takes_the_words_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gatewise", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("gatewise ")
