"""`gatewise eval` of a run of a memory task: is it solved, on sequences that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gatewise.cli import screen
from gatewise.errors import OptionError

if TYPE_CHECKING:
    from gatewise.metrics.memory import MemoryTally
    from gatewise.run import TaskRun

PARTS = ("valid", "test")


def evaluate_task(
    opened: TaskRun, data: Sequence[str], part: str, engine: str, *, json: bool
) -> int:
    """Figures of new sequences, as a table or a document."""
    if data:
        raise OptionError(f"expected no data for a run of a task: it makes them, found {data[0]}")
    if part not in ("all", *PARTS):
        raise OptionError(f"--part: expected one of {', '.join(PARTS)}, found {part!r}")
    task = opened.task
    found = {
        name: opened.evaluate(name, engine=engine) for name in (PARTS if part == "all" else (part,))
    }
    if json:
        parts = {name: _figures(tally) for name, tally in found.items()}
        head = {"run": str(opened.path), "step": opened.step, "task": task.name}
        screen.out_json(head | {"length": task.length, "parts": parts})
        return 0
    rows = [["", *(found)]]
    documents = [_figures(tally) for tally in found.values()]
    for key, words in _ROWS.items():
        if key in documents[0]:
            rows.append([words, *(_said(document[key]) for document in documents)])
    screen.out(
        f"{task.name} {task.length}\n{screen.table(rows)}\nsuccess: {task.published.success}"
    )
    return 0


_ROWS = {
    "sequences": "sequences",
    "sequences_right": "right, of all",
    "accuracy": "steps right, of those asked",
    "nats": "nats a step",
    "mse": "mean squared error",
    "mean_error": "mean error",
    "solved": "solved",
}


def _figures(tally: MemoryTally) -> dict[str, Any]:
    return tally.summary() | {"solved": tally.solved(tally.task.success.share)}


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else f"{value:.4f}"
