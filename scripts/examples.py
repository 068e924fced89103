"""Runs the pages of docs/examples, and writes what they print and draw back into them.

    python scripts/examples.py [PAGE...]              all pages of docs/examples, or those named
    python scripts/examples.py --notebooks FOLDER     as notebooks, with what they print and draw in them

A ```text block right behind a ```python block is what that block prints; a picture of docs/pictures that a
page shows and whose file its code makes is that file. A test holds every page of the documentation to
what it shows, numbers to some units of their last digit.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "examples"
PICTURES = ROOT / "docs" / "pictures"

_CODE = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
_PICTURE = re.compile(r"!\[[^\]]*\]\((?:\.\./)?pictures/([\w.-]+)\)")
_NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?%?")
_SAVE = re.compile(r"plots\.save\((.*), Path\([^()]*\)\)")
_SAVED = re.compile(r'"([\w-]+\.(?:svg|png))"')
LARGEST = 60_000
"""Bytes of a picture."""


class Printed(NamedTuple):
    """What a block of code printed, what the page shows of it (None: nothing), and on which line."""

    found: str
    shown: str | None
    line: int


def run(page: Path) -> list[Printed]:
    """Execute the ```python blocks of a page in order, in one namespace, in the current folder."""
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__main__"}
    results = []
    for block in _CODE.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        source = "\n" * line + block["code"]  # a traceback shows the page's own lines
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(source, str(page), "exec"), namespace)
        found = "".join(f"{one.rstrip()}\n" for one in out.getvalue().splitlines())
        results.append(Printed(found, block["shown"], line))
    return results


def differences(results: list[Printed]) -> list[str]:
    """A line for each line of a page that is not what its code prints."""
    return [
        f"line {one.line}: shown {shown!r}, printed {found!r}"
        for one in results
        if one.shown is not None
        for shown, found in _pairs(one.shown, one.found)
        if not same(shown, found)
    ]


def _pairs(shown: str, found: str) -> list[tuple[str, str]]:
    """Their lines side by side, "" where one has none."""
    left, right = shown.splitlines(), found.splitlines()
    size = max(len(left), len(right))
    return list(
        zip(left + [""] * (size - len(left)), right + [""] * (size - len(right)), strict=True)
    )


def same(shown: str, found: str) -> bool:
    """Whether two lines say the same: words alike, whole numbers equal, others and percentages to 2 units of their last digit.

    >>> same("cost 0.693 after 10 steps", "cost  0.694 after 10 steps")
    True
    >>> same("cost 0.693 after 10 steps", "cost 0.693 after 11 steps")
    False
    """
    if _words(shown) != _words(found):
        return False
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(found), strict=True)
    return all(_close(left, right) for left, right in pairs)


def _words(line: str) -> list[str]:
    return _NUMBER.sub("#", line).split()


def _close(left: str, right: str) -> bool:
    if left == right:
        return True
    if not {".", "e", "%"} & set(left + right) or left.endswith("%") != right.endswith("%"):
        return False
    (one, unit), (other, _) = _value(left), _value(right)
    return abs(one - other) <= 2.001 * unit


def _value(number: str) -> tuple[float, float]:
    """A number, and one unit of its last digit."""
    digits, _, exponent = number.rstrip("%").replace(",", "").partition("e")
    scale = 10.0 ** int(exponent or 0)
    return float(digits) * scale, scale * 10.0 ** -len(digits.partition(".")[2])


def rewritten(text: str, results: list[Printed]) -> str:
    """The page with what its code printed; numbers that are near enough stay as they are."""
    left = iter(results)

    def show(block: re.Match[str]) -> str:
        one = next(left)
        if one.shown is None or not differences([one]):
            return block[0]
        return f"```python\n{block['code']}```\n\n```text\n{one.found}```\n"

    return _CODE.sub(show, text)


def pictures(text: str) -> list[str]:
    """The files in docs/pictures that a page shows."""
    return _PICTURE.findall(text)


def notebook(text: str) -> dict[str, Any]:
    """A page as a Jupyter notebook (nbformat 4.5): its code shows figures instead of saving them."""
    cells, end = [], 0
    for block in _CODE.finditer(text):
        cells += [_prose(text[end : block.start()]), _code(block["code"], block["shown"])]
        end = block.end()
    cells.append(_prose(text[end:]))
    kept = [{"id": f"cell-{k}", **cell} for k, cell in enumerate(cells) if cell["source"]]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": spec}, "cells": kept}


def _prose(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": _PICTURE.sub("", text).strip()}


def _code(code: str, shown: str | None) -> dict[str, Any]:
    outputs: list[dict[str, Any]] = []
    if shown is not None:
        outputs.append({"output_type": "stream", "name": "stdout", "text": shown})
    for name in _SAVED.findall(code):
        outputs.append({"output_type": "display_data", "metadata": {}, "data": _drawn(name)})
    return {
        "cell_type": "code",
        "metadata": {},
        "execution_count": None,
        "source": _SAVE.sub(r"display(\1)", code).rstrip(),
        "outputs": outputs,
    }


def _drawn(name: str) -> dict[str, str]:
    """A picture as a notebook keeps it, by its kind."""
    data = (PICTURES / name).read_bytes()
    if name.endswith(".png"):
        return {"image/png": base64.b64encode(data).decode("ascii")}
    return {"image/svg+xml": data.decode("utf-8")}


def write_notebooks(folder: Path) -> None:
    """All pages but the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in sorted(PAGES.glob("*.md")):
        if page.stem != "index":
            text = json.dumps(notebook(page.read_text(encoding="utf-8")), indent=1)
            (folder / f"{page.stem}.ipynb").write_text(f"{text}\n", encoding="utf-8")


def main() -> int:
    if sys.argv[1:2] == ["--notebooks"]:
        write_notebooks(Path(sys.argv[2]))
        return 0
    pages = [PAGES / f"{name}.md" for name in sys.argv[1:]] or sorted(PAGES.glob("*.md"))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            results = run(page)
            page.write_text(rewritten(text, results), encoding="utf-8")
            for name in pictures(text):
                if Path(name).exists():
                    shutil.copyfile(name, PICTURES / name)
            os.chdir(ROOT)
        print("\n".join([page.name, *differences(results)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
