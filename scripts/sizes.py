"""Prints the size of each module and the functions over the limit. For information; the limit on
modules is a test (tests/test_project.py)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "gatewise"
MODULE_LINES = 400
FUNCTION_LINES = 40

# Modules that may be longer, and why.
LONGER: dict[str, str] = {}


def modules() -> dict[str, Path]:
    """Name below the package, such as `cells/lstm.py`, -> file."""
    return {str(p.relative_to(PACKAGE).as_posix()): p for p in sorted(PACKAGE.rglob("*.py"))}


def count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def long_functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines) of each function over the limit; its docstring does not count."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            words = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            lines = (node.end_lineno or 0) - node.lineno + 1 - words
            if lines > FUNCTION_LINES:
                yield node.name, lines


def too_long() -> dict[str, int]:
    """Modules over the limit that have no reason to be."""
    sizes = {name: count(path) for name, path in modules().items()}
    return {n: lines for n, lines in sizes.items() if lines > MODULE_LINES and n not in LONGER}


def main() -> None:
    sizes = {name: count(path) for name, path in modules().items()}
    parts: dict[str, int] = {}
    for name, lines in sizes.items():
        part = name.split("/")[0] + ("/" if "/" in name else "")
        parts[part] = parts.get(part, 0) + lines
    print("  ".join(f"{part} {lines}" for part, lines in parts.items()))
    for name, lines in sorted(sizes.items(), key=lambda item: -item[1])[:5]:
        mark = f" (over {MODULE_LINES})" if lines > MODULE_LINES else ""
        print(f"{lines:6} {name}{mark}")
    for name, path in modules().items():
        for function, lines in long_functions(path):
            print(f"{lines:6} {name}: {function}() (over {FUNCTION_LINES})")
    print(f"{sum(sizes.values()):6} lines in {len(sizes)} modules")


if __name__ == "__main__":
    sys.exit(main())
