"""The documentation is true: its picture, its lists, its examples."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import architecture
from gatewise import errors

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
ERRORS = [
    name
    for name, c in inspect.getmembers(errors, inspect.isclass)
    if c.__module__ == errors.__name__
]


def test_every_module_is_in_the_picture() -> None:
    assert architecture.present() <= set(architecture.ORDER)


def test_the_picture_is_of_this_tree() -> None:
    drawn = architecture.PICTURE.read_text(encoding="utf-8")
    assert drawn == architecture.draw(), "run: python scripts/architecture.py"


def test_the_architecture_page_lists_the_modules_in_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text[text.index("| module | knows |") :]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == architecture.ORDER


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_has_a_page(name: str) -> None:
    text = (ROOT / "docs" / "errors" / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    for part in ("**Symptom.**", "**Cause.**", "**Fix.**"):
        assert part in text, part
    index = (ROOT / "docs" / "errors" / "index.md").read_text(encoding="utf-8")
    assert f"[{name}]({name}.md)" in index


def test_no_page_for_an_error_that_is_gone() -> None:
    pages = {p.stem for p in (ROOT / "docs" / "errors").glob("*.md")} - {"index"}
    assert pages == set(ERRORS)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ```python block, in order, in one namespace for a page; ```py is shown, not run."""
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for found in CODE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        source = "\n" * line + found[1]  # a traceback shows the page's own lines
        exec(compile(source, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_scripts_that_are_named_exist(page: Path) -> None:
    for script in re.findall(r"(?<![\w/])scripts/[\w.]+", page.read_text(encoding="utf-8")):
        assert (ROOT / script.rstrip(".")).exists(), script
