"""The repository itself: what is tracked, how it is written, and that its scripts run anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import sizes

ROOT = Path(__file__).parents[1]
SCRIPTS = ["_setup", "check", "coverage", "demo", "docs", "test"]
SHELL = shutil.which("dash") or "/bin/sh"


def _tracked() -> list[Path]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout: there is no list of tracked files")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def test_no_large_file() -> None:
    large = {str(p): p.stat().st_size for p in _tracked() if p.stat().st_size > 512 * 1024}
    assert large == {}


def test_no_path_of_one_machine() -> None:
    private = re.compile(r"(?<![\w.:/<-])/(?:home|root|Users|work|mnt|media|srv)/[\w.]+")
    found = {
        str(path.relative_to(ROOT)): match[0]
        for path in _tracked()
        if path != Path(__file__) and (match := private.search(_text(path)))
    }
    assert found == {}


def test_text_files_are_tidy() -> None:
    for path in _tracked():
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yml", ".svg", ".sh", ""}:
            text = _text(path)
            assert "\r" not in text, f"{path}: carriage return"
            assert not text or text.endswith("\n"), f"{path}: no newline at the end"
            assert not re.search(r"[ \t]+$", text, re.MULTILINE), f"{path}: space at a line's end"


# ---------------------------------------------------------------------------- changelog


def test_changelog_keeps_its_form() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Changelog"
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    for version in versions[1:]:
        assert re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version), version
    kinds = {line[4:] for line in lines if line.startswith("### ")}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# ---------------------------------------------------------------------------- sizes


def test_modules_stay_small() -> None:
    assert sizes.too_long() == {}, f"over {sizes.MODULE_LINES} lines: split, or say why in sizes.py"


def test_no_reason_for_a_module_that_is_short_or_gone() -> None:
    counts = {name: sizes.count(path) for name, path in sizes.modules().items()}
    for name, reason in sizes.LONGER.items():
        assert counts.get(name, 0) > sizes.MODULE_LINES, name
        assert reason, name


# ---------------------------------------------------------------------------- what tests stand on


def test_uninitialised_memory_is_not_a_number() -> None:
    assert torch.empty(3).isnan().all()
    assert torch.zeros(3).new_empty(2, 2).isnan().all()
    assert torch.empty_like(torch.zeros(2), requires_grad=True).isnan().all()
    assert torch.empty(2, dtype=torch.int16).tolist() == [32767, 32767]
    assert torch.empty(1, dtype=torch.bool).all()


def test_every_test_starts_from_the_same_seed() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), expected)


# ---------------------------------------------------------------------------- scripts


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_plain_sh(name: str) -> None:
    path = ROOT / "scripts" / name
    subprocess.run([SHELL, "-n", str(path)], check=True)
    text = path.read_text(encoding="utf-8")
    assert name == "_setup" or (text.startswith("#!/bin/sh\n") and os.access(path, os.X_OK))
    for bash_only in (
        r"\[\[",
        r"^\s*function ",
        r"^\s*source ",
        r"<<<",
        r"\$'",
        r"^\s*local ",
        r"&>",
    ):
        assert not re.search(bash_only, text, re.MULTILINE), bash_only


def _fake(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


# Answers the scripts' question as another Python would, without being one.
PYTHON_3_8 = 'cat >/dev/null; [ "$1" = - ] && echo "old 3.8"'
WITHOUT_VENV = 'cat >/dev/null; [ "$1" = - ] && echo "venv 3.12"'
# Makes an environment whose Python installs nothing but says that it did (or, told so, that it failed).
WHOLE = """
case "$*" in
-) cat >/dev/null ;;
--version) echo Python 3.12.0 ;;
"-m venv "*)
    mkdir -p "$3/bin"
    [ -z "${FAIL_VENV-}" ] || { echo "no space left"; exit 1; }
    cp "$0" "$3/bin/python"
    printf '#!/bin/sh\\necho gatewise "$@"\\n' >"$3/bin/gatewise"
    chmod +x "$3/bin/gatewise" ;;
"-m pip --version") ;;
"-m pip install "*)
    echo install >>"$COUNT"
    [ -z "${FAIL_PIP-}" ] || { echo "no route to host"; exit 1; } ;;
esac
"""


class Bare:
    """A clone on a machine where the only Python is a made-up one."""

    def __init__(self, folder: Path, python: str | None) -> None:
        self.clone = folder / "a clone"  # the space is on purpose
        (self.clone / "scripts").mkdir(parents=True)
        for name in ("pyproject.toml", "constraints.txt", *(f"scripts/{s}" for s in SCRIPTS)):
            shutil.copy(ROOT / name, self.clone / name)
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in "cat cksum cp chmod date dirname kill mkdir rm sh sleep tail uname".split():  # noqa: SIM905
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        if python is not None:
            _fake(self.bin, "python3", python)
        self.count = folder / "count"
        self.venv = self.clone / ".venv"

    def run(self, script: str = "demo", *arguments: str, **env: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [SHELL, str(self.clone / "scripts" / script), *arguments],
            env={"PATH": str(self.bin), "COUNT": str(self.count), **env},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    @property
    def installs(self) -> int:
        return len(self.count.read_text().splitlines()) if self.count.exists() else 0


def test_setup_happens_once(tmp_path: Path) -> None:
    bare = Bare(tmp_path, WHOLE)
    status, out, said = bare.run("demo", "--minutes", "1 or 2")
    assert (status, out) == (0, "gatewise demo --minutes 1 or 2\n"), said
    assert "installing gatewise" in said
    status, out, said = bare.run()
    assert (status, out, said, bare.installs) == (0, "gatewise demo\n", "", 1)


def test_setup_follows_a_change_of_the_requirements(tmp_path: Path) -> None:
    bare = Bare(tmp_path, WHOLE)
    bare.run()
    with (bare.clone / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    assert bare.run()[0] == 0
    assert bare.installs == 2


def test_the_development_environment_holds_the_core(tmp_path: Path) -> None:
    bare = Bare(tmp_path, WHOLE)
    bare.run("test", "--version")
    bare.run("demo")
    assert bare.installs == 1


def test_the_environment_may_be_elsewhere(tmp_path: Path) -> None:
    bare = Bare(tmp_path, WHOLE)
    assert bare.run(GATEWISE_VENV=str(tmp_path / "else where"))[0] == 0
    assert (tmp_path / "else where" / "bin" / "python").exists()
    assert not bare.venv.exists()


@pytest.mark.parametrize(
    ("python", "says"),
    [
        (None, "needs Python 3.10 or later, found none"),
        (PYTHON_3_8, "needs Python 3.10 or later, found python3 is Python 3.8"),
        (
            WITHOUT_VENV,
            "comes without venv: install it (Debian, Ubuntu: apt install python3.12-venv)",
        ),
        ("exit 127", "needs Python 3.10 or later, found none"),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path: Path, python: str | None, says: str) -> None:
    bare = Bare(tmp_path, python)
    status, out, said = bare.run()
    assert (status, out, said.count("\n")) == (1, "", 1)
    assert says in said
    assert not bare.venv.exists()


def test_a_named_python_is_the_only_one_tried(tmp_path: Path) -> None:
    bare = Bare(tmp_path, WHOLE)
    named = _fake(tmp_path / "other", "mypython", PYTHON_3_8)
    status, _, said = bare.run(PYTHON=str(named))
    assert status == 1
    assert "mypython is Python 3.8" in said
    status, _, said = bare.run(PYTHON="/no/such/python")
    assert status == 1
    assert "PYTHON=/no/such/python does not run" in said


@pytest.mark.parametrize("failure", ["FAIL_VENV", "FAIL_PIP"])
def test_a_failed_setup_leaves_nothing_behind(tmp_path: Path, failure: str) -> None:
    bare = Bare(tmp_path, WHOLE)
    status, _, said = bare.run(**{failure: "1"})
    assert status == 1
    assert "no space left" in said or "no route to host" in said
    assert not bare.venv.exists()
    assert not (bare.clone / ".venv.lock").exists()
    assert bare.run()[0] == 0


def test_a_killed_setup_is_begun_again(tmp_path: Path) -> None:
    bare = Bare(tmp_path, WHOLE)
    bare.venv.mkdir()
    (bare.venv / "unfinished").touch()
    lock = bare.clone / ".venv.lock"
    lock.mkdir()
    (lock / "pid").write_text("4194305")  # above the largest process id
    assert bare.run()[1] == "gatewise demo\n"
    assert not lock.exists()


def test_what_is_not_ours_is_not_removed(tmp_path: Path) -> None:
    bare = Bare(tmp_path, WHOLE)
    bare.venv.mkdir()
    (bare.venv / "precious").touch()
    status, _, said = bare.run()
    assert status == 1
    assert "remove it, or name another place by GATEWISE_VENV" in said
    assert (bare.venv / "precious").exists()
