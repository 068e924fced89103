"""What the package promises to those who import it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from importlib import metadata
from pathlib import Path

import pytest

import gatewise

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(gatewise.__path__, "gatewise.")
    if not m.name.endswith("__main__")
)


def test_all_is_sorted_and_without_repeats() -> None:
    assert list(gatewise.__all__) == sorted(set(gatewise.__all__))


def test_all_names_exist() -> None:
    for name in gatewise.__all__:
        assert getattr(gatewise, name) is not None, name


def test_all_is_what_a_type_checker_sees() -> None:
    """The names load on first use; for tools that only read, they stand under TYPE_CHECKING."""
    tree = ast.parse(Path(str(gatewise.__file__)).read_text(encoding="utf-8"))
    shown = {
        alias.asname or alias.name
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(shown) == list(gatewise.__all__)
    assert shown <= set(dir(gatewise))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        gatewise.no_such_thing  # noqa: B018


def test_version_is_said_once() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{gatewise.__version__}"' in project
    assert metadata.version("gatewise") == gatewise.__version__


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert inspect.getdoc(module), name
    for export in getattr(module, "__all__", ()):
        assert hasattr(module, export), f"{name}.{export}"


@pytest.mark.parametrize("name", MODULES)
def test_every_public_method_is_documented_somewhere_up_its_class(name: str) -> None:
    """What implements an interface may leave its words to the interface, but not to nobody."""
    module = importlib.import_module(name)
    exported = [getattr(module, export) for export in getattr(module, "__all__", ())]
    for cls in filter(inspect.isclass, exported):
        for member, value in vars(cls).items():
            method = inspect.isfunction(value) or isinstance(value, property)
            if method and not member.startswith("_") and member not in (cls.__doc__ or ""):
                assert inspect.getdoc(getattr(cls, member)), f"{name}.{cls.__name__}.{member}"
