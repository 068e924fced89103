"""The documentation is true: its picture, its lists, its examples."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

import architecture
import examples
from gatewise import errors

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
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
    """Every ```python block, in order, in one namespace for a page, prints what the page says that it prints;

    ```py is shown, not run. The pictures that a lesson shows are drawn by its code.
    """
    if page.parent == examples.PAGES:
        pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    monkeypatch.chdir(tmp_path)
    different = examples.differences(examples.run(page))
    assert different == [], f"run: python scripts/examples.py {page.stem}"
    if page.parent == examples.PAGES:
        for name in examples.pictures(page.read_text(encoding="utf-8")):
            assert (tmp_path / name).stat().st_size <= examples.LARGEST, name


def test_what_counts_as_the_same_output() -> None:
    same = examples.same
    assert same("cost 0.693 after 1,000 steps, 1.2e-05", "cost  0.695 after 1,000 steps, 1.3e-05")
    assert not same("cost 0.693", "cost 0.696")
    assert not same("cost 0.693", "price 0.693")
    assert not same("1,000 steps", "1,001 steps")
    assert not same("1.2e-05", "1.2e-04")
    assert not same("1 2", "1")
    assert same("94% of 500", "96% of 500")
    assert not same("94% of 500", "97% of 500")
    assert not same("94%", "94")
    assert same("", "")


def test_the_output_of_a_page_is_written_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    code = "```python\nprint('a', 0.5)\n```\n\n```text\n{}```\n\n```python\nprint(1)\n```\n"
    page.write_text(code.format("b\n"), encoding="utf-8")
    found = examples.run(page)
    assert examples.differences(found) == ["line 1: shown 'b', printed 'a 0.5'"]
    assert examples.rewritten(page.read_text(encoding="utf-8"), found) == code.format("a 0.5\n")
    page.write_text(code.format("a 0.4\n"), encoding="utf-8")
    found = examples.run(page)
    assert examples.rewritten(page.read_text(encoding="utf-8"), found) == code.format("a 0.4\n")


def test_lessons_become_notebooks(tmp_path: Path) -> None:
    examples.write_notebooks(tmp_path)
    for page in examples.PAGES.glob("[!i]*.md"):
        text = page.read_text(encoding="utf-8")
        book = json.loads((tmp_path / f"{page.stem}.ipynb").read_text(encoding="utf-8"))
        codes = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        assert len(codes) == text.count("```python")
        for cell in codes:
            assert "plots.save" not in cell["source"]
            compile(cell["source"], page.name, "exec")
        drawn = [out for cell in codes for out in cell["outputs"] if "data" in out]
        assert len(drawn) == len(examples.pictures(text))
        assert text.split("\n")[0] in book["cells"][0]["source"]
        assert "![" not in str([cell["source"] for cell in book["cells"]])
        assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_scripts_that_are_named_exist(page: Path) -> None:
    for script in re.findall(r"(?<![\w/])scripts/[\w.]+", page.read_text(encoding="utf-8")):
        assert (ROOT / script.rstrip(".")).exists(), script
