"""Pages that mkdocs makes while it builds: a reference page for each module of the package, and the
list of errors. So neither can fall behind the source."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File, Files

from architecture import ORDER, present

# What people meet through a command or a page, not through Python.
NOT_FOR_IMPORT = {"cli", "serve", "studio"}


def documented() -> list[str]:
    """The modules that get a page, in the order of their imports."""
    built = present()
    return [name for name in ORDER if name in built and name not in NOT_FOR_IMPORT]


def on_files(files: Files, config: Any) -> Files:
    names = documented()
    links = "\n".join(f"- [gatewise.{name}]({name}.md)" for name in names)
    pages = {"index": f"# Reference\n\nFrom the source, in the order of its imports.\n\n{links}\n"}
    pages |= {name: f"# gatewise.{name}\n\n{directive(name)}" for name in names}
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def directive(name: str) -> str:
    """A module's page: what it exports, then what its files hold."""
    return f"::: gatewise.{name}\n    options:\n      show_root_heading: false\n      show_submodules: false\n"
