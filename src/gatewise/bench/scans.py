"""minGRU over many steps: its gates do not read h, so that time can be cut in pieces; beside loops over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.bench import training
from gatewise.bench.contestants import Contestant
from gatewise.bench.sizes import Size
from gatewise.bench.training import Entry
from gatewise.stack import Stack

BASE = "torch-loop"
SIZES = (Size(1024, 16, 256, 1),)


@dataclass(frozen=True, eq=False)
class Task:
    """A stack of minGRU, x and the gradient of h, (T, B, H) each."""

    size: Size
    stack: Stack
    x: Tensor
    grad: Tensor


def make_task(size: Size, *, seed: int = 0) -> Task:
    """A task with weights and inputs drawn from a seed."""
    generator = torch.Generator().manual_seed(seed)
    stack = Stack("mingru", size.hidden, size.hidden, size.layers)
    with torch.no_grad():
        for weight in stack.parameters():
            weight.uniform_(-(size.hidden**-0.5), size.hidden**-0.5, generator=generator)
    shape = (size.steps, size.batch, size.hidden)
    x = torch.randn(shape, generator=generator).requires_grad_()
    return Task(size, stack, x, torch.randn(shape, generator=generator))


def truth(task: Task) -> list[Tensor]:
    """h, the last states and the gradients, by the reference engine in float64."""
    exact = _copy(task).double()
    entry = training.over_stack(exact, record=False, control=False, engine="reference")
    return training.step(
        entry, task.x.detach().double().requires_grad_(), task.grad.double(), "float64"
    )


def _copy(task: Task) -> Stack:
    size = task.size
    stack = Stack("mingru", size.hidden, size.hidden, size.layers)
    stack.load_state_dict(task.stack.state_dict())
    return stack


def _on(engine: str, record: bool = False) -> Callable[[Task], Entry]:
    def enter(task: Task) -> Entry:
        return training.over_stack(_copy(task), record=record, control=False, engine=engine)

    return enter


CONTESTANTS: Mapping[str, Contestant[Task, Entry]] = {
    "torch-loop": Contestant("loop of operators", "float32", _on("reference"), ours=True),
    "loop": Contestant("loop of machine code", "float32", _on("compiled"), ours=True),
    "scan": Contestant("scan", "float32", _on("scan"), ours=True),
    "gatewise": Contestant("gatewise", "float32", _on("auto"), ours=True),
    "gatewise-gates": Contestant("gatewise, all gates", "float32", _on("auto", True), ours=True),
}
"""Name -> contestant."""
