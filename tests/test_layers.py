"""Imports go one way: each module knows only those above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from architecture import ORDER

PACKAGE = Path(__file__).parents[1] / "src" / "gatewise"

# Neither of the two may know the other, whatever the order.
STRANGERS = {("train", "generate"), ("generate", "train")}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _layer(module: str) -> str | None:
    """`cells` for gatewise.cells.lstm; None for gatewise itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def _targets(node: ast.AST) -> Iterator[str]:
    """The gatewise modules that one statement imports."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        for alias in node.names:
            below = f"{node.module}.{alias.name}"
            yield below if below in MODULES else node.module


def imported(path: Path, *, at_start: bool = False) -> set[str]:
    """The modules that a file imports, those under TYPE_CHECKING and in functions included.

    Args:
        path: of the file.
        at_start: only what importing the file imports.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _run_at_import(tree) if at_start else ast.walk(tree)
    return {target for node in nodes for target in _targets(node)}


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _run_at_import(child)


def _own(targets: set[str]) -> set[str]:
    return {t for t in targets if t == "gatewise" or t.startswith("gatewise.")}


def test_every_module_has_its_place_in_the_order() -> None:
    # gatewise/__init__.py re-exports, gatewise/__main__.py starts the command line
    layers = {_layer(module) for module in MODULES} - {None, "__main__"}
    assert layers - set(ORDER) == set()


@pytest.mark.parametrize("module", sorted(m for m in MODULES if _layer(m) in ORDER))
def test_imports_only_from_above(module: str) -> None:
    layer = _layer(module)
    for target in sorted(_own(imported(MODULES[module]))):
        found = _layer(target)
        if found is None:  # `from gatewise import __version__` and nothing else
            assert _taken_from_package(MODULES[module]) <= {"__version__"}, target
        elif found != layer:
            assert ORDER.index(found) < ORDER.index(str(layer)), f"{module} imports {target}"
            assert (layer, found) not in STRANGERS, f"{module} imports {target}"


def _taken_from_package(path: Path) -> set[str]:
    """Names that a file takes from gatewise/__init__.py itself."""
    taken = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            taken |= {"gatewise" for alias in node.names if alias.name == "gatewise"}
        elif isinstance(node, ast.ImportFrom) and node.module == "gatewise":
            taken |= {a.name for a in node.names if f"gatewise.{a.name}" not in MODULES}
    return taken


def test_no_cycle_between_modules() -> None:
    edges = {m: _own(imported(path)) & set(MODULES) - {m} for m, path in MODULES.items()}
    edges["gatewise"] = set()  # it re-exports; its modules take at most the version from it
    done: set[str] = set()
    for start in edges:
        _walk(start, edges, done, ())


def _walk(module: str, edges: dict[str, set[str]], done: set[str], path: tuple[str, ...]) -> None:
    assert module not in path, "cycle: " + " -> ".join((*path[path.index(module) :], module))
    if module in done:
        return
    for target in sorted(edges[module]):
        _walk(target, edges, done, (*path, module))
    done.add(module)


def test_no_relative_imports() -> None:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), module


# What makes a start slow: every verb imports these itself, when it runs.
HEAVY = {"torch", "numpy", "tokenizers", "safetensors", "onnx", "onnxruntime", "matplotlib"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "import gatewise.cli\n"
        "try:\n"
        f"    status = gatewise.cli.main({arguments!r})\n"
        "except SystemExit as exit:\n"
        "    status = exit.code\n"
        "assert not status, status\n"
        f"print('imported:', *sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


def test_the_package_itself_imports_nothing_heavy() -> None:
    """`import gatewise` is at the start of every command: its parts load when they are used."""
    program = f"import gatewise, sys; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""


# Names that the standard library has only since Python 3.11: the tests of one version would not
# see that another lacks them.
SINCE_3_11 = {
    "typing": {
        "Self",
        "Never",
        "LiteralString",
        "Required",
        "NotRequired",
        "Unpack",
        "assert_never",
    }
    | {"assert_type", "reveal_type", "TypeVarTuple", "dataclass_transform", "override"},
    "enum": {"StrEnum", "ReprEnum", "verify"},
    "datetime": {"UTC"},
    "itertools": {"batched"},
    "contextlib": {"chdir"},
    "hashlib": {"file_digest"},
    "tomllib": {"*"},
    "builtins": {"ExceptionGroup", "BaseExceptionGroup"},
}


def test_only_what_python_3_10_has() -> None:
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))):
            found: set[tuple[str, str]] = set()
            if isinstance(node, ast.ImportFrom):
                found = {(str(node.module), alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                found = {(alias.name, "*") for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found = {(node.value.id, node.attr)}
            elif isinstance(node, ast.Name):
                found = {("builtins", node.id)}
            for library, name in found:
                new = SINCE_3_11.get(library, set())
                assert not new & {name, "*"}, f"{module}: {library}.{name}"
