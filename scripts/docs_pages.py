"""Pages that mkdocs makes while it builds: the help of each command, and a reference page for each
module of the package. So neither can fall behind the source. And the lecture's pages in the lecture's order."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from architecture import ORDER, PACKAGE, present
from gatewise.cli.verbs import BELOW, VERBS

log = logging.getLogger("mkdocs.hooks.docs_pages")

# What people meet through a command or a page, not through Python.
NOT_FOR_IMPORT = {"cli", "serve", "studio"}


def on_files(files: Files, config: Any) -> Files:
    for path, content in {"commands.md": commands(), **reference()}.items():
        files.append(File.generated(config, path, content=content))
    return files


# ---------------------------------------------------------------------------- navigation

LESSONS = ("index", "unrolling", "batches", "vanishing", "gates", "mappings")


def on_nav(nav: Any, config: Any, files: Files) -> Any:
    """The pages of docs/examples under the lecture's name, in its order."""
    for section in nav.items:
        if section.is_section and section.title == "Examples":
            section.title = "The lecture, executed"
            section.children.sort(key=lambda page: LESSONS.index(Path(page.file.src_path).stem))
    return nav


# ---------------------------------------------------------------------------- reference


def reference() -> dict[str, str]:
    """A page for each module, in the order of their imports."""
    names = [n for n in ORDER if n in present() and n not in NOT_FOR_IMPORT]
    links = "\n".join(f"- [gatewise.{name}]({name}.md)" for name in names)
    pages = {"index": f"# Reference\n\nFrom the source, in the order of its imports.\n\n{links}\n"}
    for name in names:
        options = "    options:\n      show_root_heading: false\n      show_submodules: false\n"
        pages[name] = f"# gatewise.{name}\n\n::: gatewise.{name}\n{options}"
    return {f"reference/{name}.md": content for name, content in pages.items()}


# ---------------------------------------------------------------------------- commands


def commands() -> str:
    """What `gatewise --help` and the help of each verb say."""
    parts = ["# Commands\n\nWhat `--help` says.\n", _block("gatewise", [])]
    for words in _verbs():
        parts.append(_block(" ".join(["gatewise", *words]), words))
    return "\n".join(parts)


def _verbs() -> Iterator[list[str]]:
    for verb in VERBS:
        module = verb.path.split(":")[0].removeprefix("gatewise.").replace(".", "/")
        if (PACKAGE / f"{module}.py").exists() or (PACKAGE / module).is_dir():
            yield [verb.name]
            for below in BELOW.get(verb.name, ("", ()))[1]:
                yield [verb.name, below]


def _block(title: str, words: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gatewise", *words, "--help"],
        env={**os.environ, "COLUMNS": "96", "NO_COLOR": "1", "TERM": "dumb"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        log.warning("%s --help ends with status %d: %s", title, done.returncode, done.stderr[-300:])
    text = "\n".join(
        line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", done.stdout).splitlines()
    )
    return f"## {title}\n\n````text\n{text.strip()}\n````\n"
