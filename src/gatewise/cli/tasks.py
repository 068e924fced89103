"""`gatewise tasks`: the memory suite, each task's protocol, and examples of one."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gatewise.cli import screen
from gatewise.cli.options import Json, with_flag_names
from gatewise.errors import OptionError

if TYPE_CHECKING:  # only a name: the page of help must not wait for torch
    from gatewise.tasks.memory import MemoryTask

_WIDEST = 60
"""Steps of an example that are shown; of a longer one both ends."""


def tasks(
    name: Annotated[str | None, Parameter(help="A task. Without: all of them.")] = None,
    /,
    *,
    length: Annotated[
        str | None, Parameter(help="A level or a length of the task; default: its first.")
    ] = None,
    n: Annotated[int, Parameter(alias="-n", help="Examples to show.")] = 3,
    part: Annotated[str, Parameter(help="train, valid or test; they share no sequence.")] = "train",
    seed: Annotated[int, Parameter(help="Of the examples.")] = 1,
    json: Json = False,
) -> int:
    """List the tasks of the memory suite with their published protocols, or show examples of one."""
    from gatewise.tasks.memory import TASKS, open_task

    if name is None:
        if length is not None:
            raise OptionError("--length: expected NAME before it, found no task")
        if json:
            screen.out_json([_described(each) for each in TASKS.values()])
        else:
            screen.out("\n\n".join(_text(each) for each in TASKS.values()))
        return 0
    task = open_task(name, length)
    if n < 1:
        raise OptionError(f"-n: expected a whole number from 1, found {n}")
    try:
        found = [_example(task, k, part, seed) for k in range(n)]
    except OptionError as error:
        raise with_flag_names(error, ("seed",)) from None
    if json:
        screen.out_json(_described(type(task)) | {"length": task.length, "examples": found})
    else:
        screen.out(_text(type(task)))
        screen.out(f"\nexamples of {task.name} {task.length}, {part}\n\n{_shown(task, found)}")
    return 0


def _example(task: MemoryTask, k: int, part: str, seed: int) -> dict[str, Any]:
    """Inputs and targets of example k, a word a step; of a task that is carried it goes on from k - 1."""
    batch = task.batch(part, k, 1, seed=seed)
    return dict(zip(("inputs", "targets"), task.shown(batch, 0), strict=True))


def _described(task: type[MemoryTask]) -> dict[str, Any]:
    """A task as a document."""
    return {
        "name": task.name,
        "summary": task.summary,
        "lengths": task.lengths,
        "inputs": task.symbols,
        "classes": task.classes,
        "carried": task.carried,
        "published": dataclasses.asdict(task.published),
        "success": dataclasses.asdict(task.success),
    }


def _text(task: type[MemoryTask]) -> str:
    """A task and its protocol, for people."""
    rows = {"--length": ", ".join(task.lengths), **dataclasses.asdict(task.published)}
    head = max(map(len, rows)) + 2
    lines = [f"  {word.ljust(head)}{_folded(said, 2 + head)}" for word, said in rows.items()]
    return "\n".join([f"{task.name}: {task.summary}", *lines])


def _folded(text: str, indent: int) -> str:
    """A text behind what stands in so many columns, on a terminal in lines of its width."""
    if not screen.is_terminal():
        return text
    width = max(20, _columns() - indent)
    return ("\n" + " " * indent).join(textwrap.wrap(text, width, break_on_hyphens=False))


def _shown(task: MemoryTask, found: list[dict[str, Any]]) -> str:
    """Examples below each other: inputs in one line, targets below them."""
    blocks = []
    for example in found:
        rows = [list(example["inputs"]), list(example["targets"])]
        if task.numeric:
            rows = [[_short(word) for word in row] for row in rows]
        steps = _WIDEST // 4 if task.numeric else _WIDEST
        lines = _aligned(rows, steps)
        while screen.is_terminal() and steps > 4 and max(map(len, lines)) > _columns():
            steps -= 2
            lines = _aligned(rows, steps)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _aligned(rows: list[list[str]], steps: int) -> list[str]:
    """Words below each other, of at most so many steps: of more, both ends."""
    if len(rows[0]) > steps:
        rows = [[*row[: steps // 2], "..", *row[-(steps // 2) :]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" ".join(w.rjust(n) for w, n in zip(row, widths, strict=True)) for row in rows]
    return ["  " + line.rstrip() for line in lines]


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _short(word: str) -> str:
    """Numbers of a step with two digits, value:mark; "." stays."""
    if word == ".":
        return word
    return ":".join(f"{float(part):.2f}" if "." in part else part for part in word.split())
