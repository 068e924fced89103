"""Forward and backward of a stack: torch's layers, loops written by hand, and gatewise, each with the same weights.

Knows who takes part and how each is called; no clocks. The weights are written before every turn, as an
optimizer does, so that nobody lives on a copy that was packed before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gatewise.bench.contestants import Contestant, Excluded
from gatewise.bench.loops import CellLoop, EquationLoop, gru_step, lstm_step
from gatewise.bench.sizes import Size
from gatewise.cells import REGISTRY
from gatewise.errors import EngineError, UnknownNameError
from gatewise.probe import Control, Record
from gatewise.stack import Stack
from gatewise.types import state_tensors

KINDS = {"lstm": (nn.LSTM, nn.LSTMCell, lstm_step, 2), "gru": (nn.GRU, nn.GRUCell, gru_step, 1)}
BASE = "torch"

Forward = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True, eq=False)
class Task:
    """A size, weights, and what goes in: x and the gradient of h, (T, B, H) each.

    Args:
        kind: "lstm" or "gru".
        theirs: torch's layer, whose weights everybody has.
        compile: whether torch.compile was asked for.
    """

    kind: str
    size: Size
    theirs: nn.Module
    x: Tensor
    grad: Tensor
    compile: bool = False

    @property
    def layers(self) -> list[dict[str, Tensor]]:
        """The weights of each layer by the cell's names."""
        weights = self.theirs.state_dict()
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [{n: weights[f"{n}_l{k}"] for n in names} for k in range(self.size.layers)]

    @property
    def blocks(self) -> int:
        """Row blocks of the weights: 4 for an LSTM, 3 for a GRU."""
        return len(REGISTRY[self.kind].law.pre)


@dataclass(frozen=True, eq=False)
class Entry:
    """Somebody who is ready: how to run forward, and the weights in torch's order.

    Args:
        forward: x -> h and the last states.
        weights: what gradients are asked for.
        ran: filled by `forward` with the name of the engine, where there is one.
    """

    forward: Forward
    weights: list[Tensor]
    ran: list[str] = field(default_factory=list)


def make_task(kind: str, size: Size, *, seed: int = 0, compile: bool = False) -> Task:
    """A task with weights and inputs drawn from a seed."""
    generator = torch.Generator().manual_seed(seed)
    theirs = KINDS[kind][0](size.hidden, size.hidden, size.layers)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.uniform_(-(size.hidden**-0.5), size.hidden**-0.5, generator=generator)
    shape = (size.steps, size.batch, size.hidden)
    x = torch.randn(shape, generator=generator).requires_grad_()
    return Task(kind, size, theirs, x, torch.randn(shape, generator=generator), compile)


def step(entry: Entry, x: Tensor, grad: Tensor, dtype: str) -> list[Tensor]:
    """h, the last states, and the gradients of x and of every weight.

    Args:
        entry: who.
        x: (T, B, I).
        grad: of h.
        dtype: "bfloat16" runs under autocast.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        values = entry.forward(x)
    given = grad.to(values[0].dtype)
    gradients = torch.autograd.grad(values[0], [x, *entry.weights], given)
    return [*(v.detach() for v in values), *gradients]


def touch(entry: Entry) -> None:
    """Write the weights without changing them: a copy made of them before is no longer of them."""
    with torch.no_grad():
        for weight in entry.weights:
            weight.mul_(1.0)


def truth(task: Task) -> list[Tensor]:
    """What everybody's `step` should give: torch's layer in float64."""
    exact = KINDS[task.kind][0](task.size.hidden, task.size.hidden, task.size.layers).double()
    exact.load_state_dict(task.theirs.state_dict())
    x = task.x.detach().double().requires_grad_()
    return step(_over_time(exact), x, task.grad.double(), "float64")


# ---------------------------------------------------------------------------- torch


def _over_time(layer: nn.Module) -> Entry:
    def forward(x: Tensor) -> list[Tensor]:
        h, state = layer(x)
        return [h, *state_tensors(state)]

    return Entry(forward, list(layer.parameters()))


def over_time(task: Task) -> Entry:
    """nn.LSTM or nn.GRU."""
    own = KINDS[task.kind][0](task.size.hidden, task.size.hidden, task.size.layers)
    own.load_state_dict(task.theirs.state_dict())
    return _over_time(own)


def cell_loop(task: Task) -> Entry:
    """A loop over nn.LSTMCell or nn.GRUCell."""
    loop = CellLoop(KINDS[task.kind][1], task.layers)
    return Entry(loop, list(loop.parameters()))


def equation_loop(task: Task) -> Entry:
    """A loop over the equations."""
    loop = EquationLoop(KINDS[task.kind][2], task.layers, KINDS[task.kind][3])
    return Entry(loop, loop.weights)


def compiled_loop(task: Task) -> Entry:
    """The same loop through torch.compile."""
    if not task.compile:
        raise Excluded("it compiles for about a minute: ask for it by --compile")
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        raise Excluded("torch.compile needs a C++ compiler, and none is installed")
    entry = equation_loop(task)
    return Entry(torch.compile(entry.forward), entry.weights)


# ---------------------------------------------------------------------------- gatewise


def ours(
    record: bool = False, control: bool = False, engine: str = "auto"
) -> Callable[[Task], Entry]:
    """A stack of the same weights: with every gate recorded, with half of the units of a gate under a control.

    The control multiplies by 1: the work is done, and the results can be compared.
    """

    def enter(task: Task) -> Entry:
        size = task.size
        stack = Stack(task.kind, size.hidden, size.hidden, size.layers)
        stack.load_state_dict(task.theirs.state_dict(), strict=True)
        return over_stack(stack, record=record, control=control, engine=engine)

    return enter


def over_stack(stack: Stack, *, record: bool, control: bool, engine: str = "auto") -> Entry:
    """An entry of a stack; see `ours`."""
    gates = stack.directions()[0].law.graph.gates
    wanted = Record(*gates) if record else None
    half = slice(0, max(1, stack.directions()[0].weights.hidden_size // 2))
    set_to = Control.scale(next(iter(gates)), 1.0, units=half) if control else None
    ran: list[str] = []

    def forward(x: Tensor) -> list[Tensor]:
        try:
            out = stack(x, engine=engine, record=wanted, control=set_to)
        except (EngineError, UnknownNameError) as error:
            raise Excluded(str(error)) from None
        ran[:] = [out.engine]
        return [out.h, *state_tensors(out.state)]

    return Entry(forward, list(stack.parameters()), ran)


CONTESTANTS: Mapping[str, Contestant[Task, Entry]] = {
    "torch": Contestant("nn.{kind}", "float32", over_time),
    "torch-bf16": Contestant("nn.{kind}, autocast", "bfloat16", over_time),
    "torch-loop": Contestant("loop over nn.{kind}Cell", "float32", cell_loop),
    "torch-equations": Contestant("loop over the equations", "float32", equation_loop),
    "torch-compile": Contestant("torch.compile of that", "float32", compiled_loop),
    "gatewise": Contestant("gatewise", "float32", ours(), ours=True),
    "gatewise-compiled": Contestant(
        "gatewise, compiled", "float32", ours(engine="compiled"), ours=True
    ),
    "gatewise-gates": Contestant("gatewise, all gates", "float32", ours(record=True), ours=True),
    "gatewise-control": Contestant("gatewise, control", "float32", ours(control=True), ours=True),
    "gatewise-bf16": Contestant("gatewise", "bfloat16", ours(), ours=True),
    "gatewise-bf16-gates": Contestant(
        "gatewise, all gates", "bfloat16", ours(record=True), ours=True
    ),
    "gatewise-bf16-control": Contestant(
        "gatewise, control", "bfloat16", ours(control=True), ours=True
    ),
}
"""Name -> contestant. {kind} is the cell's."""
