"""The sensitivity of every cost to every earlier state, as one matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gatewise.errors import ShapeError
from gatewise.gradients.nets import Net, Steps, refilled
from gatewise.modes import evaluating
from gatewise.probe import Control
from gatewise.types import State, map_state, state_tensors

Cost = Callable[[Tensor], Tensor]

# Numbers that one chunk of the costs' own gradients may hold.
_ROOM = 1 << 24


def flow(
    net: Net, x: Tensor, cost: Cost, *, layer: int = -1, wrt: str = "h", state: State = None
) -> Tensor:
    """|d cost[t] / d wrt[k]| for all t and k: how much each cost depends on each earlier step.

    The derivative is that by the value where its name is defined: what a `Control.add` on it would
    change. So that by c contains the way through h of the same step, and that by h alone misses the
    way on through c, which is how an LSTM remembers; "state" takes all states of the layer together.
    (Hochreiter 1991; Pascanu et al. 2013, section 2, whose product of Jacobians this is, without
    forming it.)

    A net of one direction is swept once from the last step to the first with the gradients of all
    costs side by side; a bidirectional one is differentiated as a whole. Noise is off.

    Args:
        net: a cell, a `gw.Stack` or a layer of `gatewise.nn`, of any engine.
        x: inputs, (T, B, I).
        cost: from the outputs y (T, B, H) to the cost of each step and column, (T, B).
        layer: whose state; -1: the last.
        wrt: "h", "c" (any state of the cell), or "state": all of them. A projected h is the projection,
            which is what the next step reads.
        state: the state before the first step. Default: the start's.
    Returns:
        (T, T): at [t, k] the norm over the units, mean over the batch. Above the diagonal it is 0
        where costs look at no later outputs and the net has one direction.
    Raises:
        OptionError: no such layer or state.
        ShapeError: x or the result of cost does not fit.

    >>> from gatewise.nn import RNN
    >>> flow(RNN(2, 3), torch.randn(5, 1, 2), lambda y: y.sum(2)).shape
    torch.Size([5, 5])
    """
    steps = Steps(net)
    layer, names = steps.layer(layer), steps.wrt(wrt)
    steps.check(x, state)
    with evaluating(net):
        if steps.bidirectional:
            return _whole(steps, x.detach(), cost, layer, names, state)
        return _swept(steps, x.detach(), cost, layer, names, state)


def _swept(
    steps: Steps, x: Tensor, cost: Cost, layer: int, names: tuple[str, ...], state: State
) -> Tensor:
    """One sweep backward; the adjoints of all costs go side by side."""
    with torch.no_grad():
        before, outputs = [steps.begin(x, state)], []
        for k in range(len(x)):
            out = steps.run(x[k : k + 1], before[-1], start=k)
            before.append(out.state)
            outputs.append(out.h)
    direct, own = _direct(cost, torch.cat(outputs))
    count, found = len(x), x.new_zeros(len(x), len(x))
    adjoint = [x.new_zeros(count, *part.shape) for part in state_tensors(before[0])]
    for k in reversed(range(count)):
        given = [part.requires_grad_() for part in state_tensors(map_state(_copy, before[k]))]
        added = _added(steps, x, layer, names)
        with torch.enable_grad():
            given_state = refilled(before[k], given)
            control = _control(added, layer, k)
            out = steps.run(x[k : k + 1], given_state, start=k, control=control)
        rows = slice(k if own else 0, None)  # costs before this step do not see it
        seeds = [direct(k)[rows], *(one[rows] for one in adjoint)]
        pulled = _pull([out.h, *state_tensors(out.state)], [*given, *added.values()], seeds)
        for one, new in zip(adjoint, pulled, strict=False):
            one[rows] = new
        found[rows, k] = norms(pulled[len(given) :])
    return found


def _whole(
    steps: Steps, x: Tensor, cost: Cost, layer: int, names: tuple[str, ...], state: State
) -> Tensor:
    """All steps in one graph: for nets whose steps have no order."""
    count, columns = x.shape[:2]
    added, control = added_all_along(steps, x, layer, names)
    with torch.enable_grad():
        costs = checked_costs(cost(steps.run(x, state, control=control).h), count, columns)
    seeds = torch.eye(count, dtype=x.dtype, device=x.device)
    pulled = _pull([costs.sum(1)], added, [seeds])
    return norms(pulled)  # of (T costs, T steps, B, units)


def added_all_along(
    steps: Steps, x: Tensor, layer: int, names: tuple[str, ...], start: int = 0
) -> tuple[list[Tensor], Control]:
    """A zero for each state at each step (T, B, units), and the control that adds it where its name is defined.

    By direction within each name; the gradient by it is that by the state.
    """
    count, columns = x.shape[:2]
    added, control = [], Control()
    for name in names:
        for way in ("", ".reverse")[: 1 + steps.bidirectional]:
            width = steps.width(layer, name)
            added.append(x.new_zeros(count, columns, width, requires_grad=True))
            path = f"layers.{layer}{way}.{name}" if steps.num_layers > 1 or way else name
            control |= Control.add(path, added[-1], time=slice(start, start + count))
    return added, control


def _added(steps: Steps, x: Tensor, layer: int, names: tuple[str, ...]) -> dict[str, Tensor]:
    """A zero for each state, that is added where its name is defined."""
    return {
        name: x.new_zeros(x.shape[1], steps.width(layer, name), requires_grad=True)
        for name in names
    }


def _control(added: dict[str, Tensor], layer: int, time: int) -> Control:
    control = Control()
    for name, value in added.items():
        control |= Control.add(name, value, layer=layer, time=time)
    return control


def _pull(ends: list[Tensor], leaves: list[Tensor], seeds: list[Tensor]) -> list[Tensor]:
    """Gradients of `ends` by `leaves` for each row of the seeds (rows, ...)."""
    pairs = [(e, s) for e, s in zip(ends, seeds, strict=True) if e.requires_grad]
    found = torch.autograd.grad(
        [end for end, _ in pairs],
        leaves,
        [seed for _, seed in pairs],
        is_grads_batched=True,
        allow_unused=True,
    )
    rows = len(seeds[0])
    return [
        leaf.new_zeros(rows, *leaf.shape) if one is None else one
        for one, leaf in zip(found, leaves, strict=True)
    ]


def norms(parts: Sequence[Tensor]) -> Tensor:
    """Norm over the units of all parts (..., B, units), mean over the batch: (...).

    In double precision: squares of what is below 1e-19 are 0 in single.
    """
    whole = torch.cat(list(parts), dim=-1)
    found: Tensor = torch.linalg.vector_norm(whole, dim=-1, dtype=torch.float64).mean(dim=-1)
    return found.to(whole.dtype)


def _copy(part: Tensor) -> Tensor:
    return part.detach().clone()


def checked_costs(costs: Tensor, count: int, columns: int) -> Tensor:
    """`costs`; ShapeError unless there is one for each step and column, and they depend on the outputs."""
    if not isinstance(costs, Tensor) or costs.shape != (count, columns):
        found = tuple(costs.shape) if isinstance(costs, Tensor) else type(costs).__name__
        raise ShapeError(
            f"cost: expected a cost for each step and column, ({count}, {columns}), found {found}"
        )
    if not costs.requires_grad:
        raise ShapeError("cost: expected costs that depend on the outputs, found constants")
    return costs


def _direct(cost: Cost, outputs: Tensor) -> tuple[Callable[[int], Tensor], bool]:
    """The gradients of all costs by the outputs of one step alone, k -> (T, 1, B, H).

    Beside it, whether each cost sees its own step alone.
    """
    y = outputs.detach().requires_grad_()
    with torch.enable_grad():
        costs = checked_costs(cost(y), *y.shape[:2])
    own = _per_step(costs, y)
    if own is None:
        every = _each(costs, y)
        return lambda k: every[:, k : k + 1], False

    def alone(k: int) -> Tensor:
        seed = y.new_zeros(len(y), 1, *y.shape[1:])
        seed[k, 0] = own[k]
        return seed

    return alone, True


def _each(costs: Tensor, y: Tensor) -> Tensor:
    """d cost[t] / d y[k], (T, T, B, H), some rows at a time."""
    size = max(1, _ROOM // y.numel())
    eye = torch.eye(len(y), dtype=y.dtype, device=y.device)
    total = costs.sum(1)
    chunks = [
        torch.autograd.grad(total, y, rows, is_grads_batched=True, retain_graph=True)[0]
        for rows in torch.split(eye, size)
    ]
    return torch.cat(chunks)


def _per_step(costs: Tensor, y: Tensor) -> Tensor | None:
    """d cost[t] / d y[t] of all t by one pass; None where costs look at other steps too.

    Seen by two sums: where each cost sees its own step alone, weights on the costs are weights on
    the gradients of the steps. They are drawn, so that nothing cancels by its symmetry. What is less than
    rounding (1,000 of its units) is not seen.
    """
    source = torch.Generator().manual_seed(len(y))
    weights = 1 + torch.rand(len(y), generator=source, dtype=torch.float64).to(y)
    (plain,) = torch.autograd.grad(costs.sum(), y, retain_graph=True)
    (weighted,) = torch.autograd.grad((costs.sum(1) * weights).sum(), y, retain_graph=True)
    expected = plain * weights[:, None, None]
    unit = torch.finfo(y.dtype).eps
    room = 10 * unit * float(plain.abs().max())
    close = torch.allclose(weighted, expected, rtol=1000 * unit, atol=room)
    return plain if close else None
