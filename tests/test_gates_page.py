"""docs/gates.md lists every name and control of every cell, as the code has them."""

from __future__ import annotations

from pathlib import Path

from gatewise.cells import REGISTRY, Law

PAGE = Path(__file__).parents[1] / "docs" / "gates.md"


def row(law: Law) -> str:
    """The line of the table that a cell should have."""
    names = " ".join(f"`{name}`" for name in law.names())
    spelled = (
        f"{control}: " + ", ".join(f"{gate} = {value:g}" for gate, value in gates.items())
        for control, gates in law.controls.items()
    )
    controls = "; ".join(spelled) or "none: it has no gate"
    return f"| `{law.name}` | {names} | {controls} | {law.paper} |"


def test_the_table_is_that_of_the_cells() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert table == [row(cell.law) for cell in REGISTRY.values()]
