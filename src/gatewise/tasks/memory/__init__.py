"""The memory suite: tasks that cannot be solved without remembering, each with its published protocol.

>>> task = open_task("temporal-order", "easy")
>>> batch = task.batch("train", 0, 4)
>>> tuple(batch.x.shape)
(8, 4, 8)
>>> ["".join(words) for words in task.shown(batch, 0)]
['BbXcdXdE', '.......Q']

A task is a file here and a name in `_ALL`.
"""

from __future__ import annotations

from gatewise.errors import unknown
from gatewise.tasks.memory.adding import Adding, Adding1997
from gatewise.tasks.memory.base import MemoryBatch, MemoryTask, Published, Success
from gatewise.tasks.memory.copying import Copy
from gatewise.tasks.memory.digits import Digits
from gatewise.tasks.memory.echo import Echo
from gatewise.tasks.memory.parentheses import Parentheses
from gatewise.tasks.memory.parity import Cycle, Parity
from gatewise.tasks.memory.temporal_order import TemporalOrder, TemporalOrder3

_ALL: tuple[type[MemoryTask], ...] = (
    TemporalOrder,
    TemporalOrder3,
    Echo,
    Adding,
    Adding1997,
    Copy,
    Parity,
    Cycle,
    Parentheses,
    Digits,
)

TASKS: dict[str, type[MemoryTask]] = {each.name: each for each in _ALL}
"""Name -> task."""


def open_task(name: str, length: str | int | None = None) -> MemoryTask:
    """The task of that name.

    Args:
        name: in `TASKS`.
        length: as the task has it; default: its first.
    Raises:
        UnknownNameError: there is no such task.
        OptionError: it has no such length.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name](length)


__all__ = ["TASKS", "MemoryBatch", "MemoryTask", "Published", "Success", "open_task"]
