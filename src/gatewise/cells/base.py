"""What a cell is: its law (gates, states, equations, controls) and a module that holds its weights.

A cell never loops and knows no device: `gatewise.unroll` runs it over time, on an engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gatewise.cells.graph import Held, Hook
from gatewise.cells.law import Law as Law
from gatewise.cells.law import law_of as law_of
from gatewise.cells.order import check_order, note_order
from gatewise.cells.rounds import run_rounds
from gatewise.errors import OptionError, ShapeError, unknown
from gatewise.types import State


@dataclass(frozen=True)
class Weights:
    """The weights of one cell as an engine reads them; see `weight_shapes`."""

    ih: Tensor
    hh: Tensor
    b_ih: Tensor | None = None
    b_hh: Tensor | None = None
    hr: Tensor | None = None
    params: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def hidden_size(self) -> int:
        """H, the number of units."""
        return self.hh.shape[1] if self.hr is None else self.hr.shape[1]

    @property
    def output_size(self) -> int:
        """Width of h: H, or the projection's size."""
        return self.hh.shape[1]


def read_weights(law: Law, named: Mapping[str, Tensor]) -> Weights:
    """The weights of a cell from their names (weight_ih, ...)."""
    get, params = named.get, {name: named[name] for name in law.params}
    ih, hh = named["weight_ih"], named["weight_hh"]
    return Weights(ih, hh, get("bias_ih"), get("bias_hh"), get("weight_hr"), params)


def weight_shapes(
    law: Law, input_size: int, hidden_size: int, bias: bool = True, proj_size: int = 0
) -> dict[str, tuple[int, ...]]:
    """Weight name -> shape, in torch.nn's names, layout and order.

    weight_ih (G H, I), weight_hh (G H, P or H), bias_ih and bias_hh (G H), weight_hr (P, H), then
    the cell's own parameters.
    """
    _check_sizes(input_size, hidden_size, proj_size)
    assert law.key  # found out now: where torch.compile traces, it is only read
    if proj_size and law.graph.reads_h:
        raise OptionError(
            f"cell {law.name} reads h[t-1] unit by unit: expected proj_size 0, found {proj_size}; "
            "an lstm can be projected"
        )
    rows, recurrent = len(law.pre) * hidden_size, len(law.recurrent_blocks) * hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "weight_ih": (rows, input_size),
        "weight_hh": (recurrent, proj_size or hidden_size),
    }
    if bias:
        shapes |= {"bias_ih": (rows,), "bias_hh": (recurrent,)}
    if proj_size:
        shapes["weight_hr"] = (proj_size, hidden_size)
    output = proj_size or hidden_size
    between = {n: s for one in law.rounds for n, s in one.shapes(input_size, output).items()}
    for name, kind in law.params.items():
        own = (hidden_size,) if kind == "vector" else (hidden_size, output)
        shapes[name] = between.get(name, own)
    return shapes


def _check_sizes(input_size: int, hidden_size: int, proj_size: int) -> None:
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(size, int):
            raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
        if size <= 0:
            raise OptionError(f"{name} must be greater than zero, found {size}")
    if not 0 <= proj_size < hidden_size:
        raise OptionError(
            "proj_size should be a positive integer, smaller than hidden_size, or zero to disable "
            f"projections; found {proj_size} with hidden_size {hidden_size}"
        )


def initialise(
    law: Law,
    weights: Mapping[str, Tensor],
    hidden_size: int,
    init_bias: Mapping[str, float] | None = None,
) -> None:
    """Fill `weights` in place: uniform(-1/sqrt(H), 1/sqrt(H)) as torch.nn, then the exceptions.

    Args:
        law: of the cell.
        weights: name (weight_ih, ...) -> tensor, in `weight_shapes` order.
        hidden_size: H.
        init_bias: block -> start value of its whole bias, e.g. ``{"f": 1.0}``: the forget bias of
            Gers et al. 2000 (bias_ih gets the value, bias_hh zero). Default: none.
    """
    bound = 1.0 / math.sqrt(hidden_size)
    with torch.no_grad():
        for name, weight in weights.items():
            if name in law.starts:
                weight.fill_(law.starts[name])
            else:
                weight.uniform_(-bound, bound)
        for block, value in (init_bias or {}).items():
            _set_bias(law, weights, hidden_size, block, value)


def _set_bias(law: Law, weights: Mapping[str, Tensor], size: int, block: str, value: float) -> None:
    if block not in law.pre:
        raise unknown(f"bias block of {law.name}", block, law.pre)
    if "bias_ih" not in weights:
        raise OptionError(f"init_bias={{{block!r}: {value:g}}} needs bias=True")
    start = law.pre.index(block) * size
    weights["bias_ih"][start : start + size] = value
    if block in law.recurrent_blocks:
        start = law.recurrent_blocks.index(block) * size
        weights["bias_hh"][start : start + size] = 0.0


class Cell(nn.Module):
    """A cell with its weights: the base of every class in `gatewise.cells`.

    Args:
        input_size: I.
        hidden_size: H.
        bias: with bias_ih and bias_hh.
        proj_size: P; h is projected to P units (Sak et al. 2014) where it is not 0.
        zoneout: probability that a unit keeps its last value (Krueger et al. 2016), one for all
            states or by state name.
        weight_drop: DropConnect on the recurrent weights (Merity et al. 2017), one mask a call.
        learned_state: the start state is a parameter (start_h, ...) instead of the law's constant.
        init_bias: see `initialise`.
        device, dtype: of the weights.
    """

    law: ClassVar[Law]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        proj_size: int = 0,
        zoneout: float | Mapping[str, float] = 0.0,
        weight_drop: float = 0.0,
        learned_state: bool = False,
        init_bias: Mapping[str, float] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        shapes = weight_shapes(self.law, input_size, hidden_size, bias, proj_size)
        self.input_size, self.hidden_size, self.proj_size = input_size, hidden_size, proj_size
        self.bias = bias
        self.zoneout = zoneout_of(self.law, zoneout)
        self.weight_drop = probability("weight_drop", weight_drop)
        self.init_bias = dict(init_bias or {})
        self._weight_names = tuple(shapes)
        self._start_names: tuple[str, ...] = ()
        for name, shape in shapes.items():
            self.register_parameter(
                name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            )
        if learned_state:
            self._start_names = tuple(f"start_{s}" for s in self.law.states)
            for state in self.law.states:
                start = torch.empty(self.state_size(state), device=device, dtype=dtype)
                self.register_parameter(f"start_{state}", nn.Parameter(start))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weights anew."""
        weights = {name: getattr(self, name) for name in self._weight_names}
        initialise(self.law, weights, self.hidden_size, self.init_bias)
        for name in self._start_names:
            nn.init.constant_(getattr(self, name), self.law.states[name.removeprefix("start_")])

    def state_size(self, state: str) -> int:
        """Width of one state."""
        return self.proj_size if state == "h" and self.proj_size else self.hidden_size

    def weights(self) -> Weights:
        """The weights as an engine reads them."""
        return read_weights(self.law, {n: getattr(self, n) for n in self._weight_names})

    def start(self) -> dict[str, Tensor] | None:
        """The learned start state, or None: state name -> (H,)."""
        if not self._start_names:
            return None
        return {n.removeprefix("start_"): getattr(self, n) for n in self._start_names}

    def forward(self, x: Tensor, state: State = None) -> State:
        """One step of the equations alone: the next state.

        Args:
            x: one input, (B, I).
            state: h, or (h, c, ...), each (B, H). Default: the start values.
        Returns:
            The next state, in the same form. No zoneout, record or control: see `gatewise.unroll`.
        """
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != self.input_size:
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ShapeError(f"expected x of shape (B, {self.input_size}), found {found}")
        weights = self.weights()
        previous = previous_state(self.law, weights, state, x.shape[0], x, self.start())
        values = self.law.graph.run(step_inputs(self.law, weights, x, previous))
        if weights.hr is not None:
            values["h"] = nn.functional.linear(values["h"], weights.hr)
        return as_state([values[name].expand_as(previous[name]) for name in self.law.states])

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        note_order(destination, prefix, self.law.pre, self.law.recurrent_blocks)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, noted: Any, *rest: Any) -> None:
        check_order(noted, prefix, self.law.pre, self.law.recurrent_blocks, rest[-1])
        super()._load_from_state_dict(state_dict, prefix, noted, *rest)

    def extra_repr(self) -> str:
        """Sizes and what differs from the defaults."""
        parts = [f"{self.input_size}, {self.hidden_size}"]
        if not self.bias:
            parts.append("bias=False")
        if self.proj_size:
            parts.append(f"proj_size={self.proj_size}")
        if self.zoneout:
            parts.append(f"zoneout={self.zoneout}")
        if self.weight_drop:
            parts.append(f"weight_drop={self.weight_drop}")
        if self._start_names:
            parts.append("learned_state=True")
        if self.init_bias:
            parts.append(f"init_bias={self.init_bias}")
        return ", ".join(parts)


def probability(name: str, value: float) -> float:
    """`value`, checked to be a probability below 1 (a dropout of 1 would remove everything)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise OptionError(f"{name} should be a probability, 0 <= {name} < 1; found {value!r}")
    return float(value)


def zoneout_of(law: Law, zoneout: float | Mapping[str, float]) -> dict[str, float]:
    """State name -> its zoneout probability, those above 0."""
    if not isinstance(zoneout, Mapping):
        zoneout = dict.fromkeys(law.states, zoneout)
    for name in zoneout:
        if name not in law.states:
            raise unknown(f"state of {law.name}", name, law.states)
    checked = {name: probability("zoneout", p) for name, p in zoneout.items()}
    return {name: p for name, p in checked.items() if p > 0}


def as_state(parts: Sequence[Tensor]) -> State:
    """A state from its tensors: the tensor itself where there is one, else a tuple."""
    return parts[0] if len(parts) == 1 else tuple(parts)


def state_parts(law: Law, state: State) -> tuple[Tensor, ...]:
    """The tensors of a given state, checked to be as many as the law has states."""
    parts = (state,) if isinstance(state, Tensor) else state
    if not isinstance(parts, tuple | list) or len(parts) != len(law.states):
        found = type(state).__name__ if not isinstance(parts, tuple | list) else len(parts)
        raise ShapeError(
            f"expected the state of {law.name} as ({', '.join(law.states)}), found {found}"
        )
    for part in parts:
        if not isinstance(part, Tensor):
            raise ShapeError(f"expected a state of tensors, found {type(part).__name__}")
    return tuple(parts)  # type: ignore[arg-type]


def previous_state(
    law: Law,
    weights: Weights,
    state: State,
    batch: int,
    like: Tensor,
    start: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    """State name -> (B, H): the given state, or the start values."""
    sizes = {s: weights.output_size if s == "h" else weights.hidden_size for s in law.states}
    if state is None:
        return start_state(law, sizes, batch, like, start)
    previous = dict(zip(law.states, state_parts(law, state), strict=True))
    for name, value in previous.items():
        if value.shape != (batch, sizes[name]):
            raise ShapeError(
                f"expected state {name} of shape ({batch}, {sizes[name]}), "
                f"found {tuple(value.shape)}"
            )
        if value.device != like.device or not value.dtype.is_floating_point:
            raise ShapeError(
                f"expected state {name} of a floating-point dtype on {like.device}, as x; "
                f"found {value.dtype} on {value.device}"
            )
    return previous


def start_state(
    law: Law,
    sizes: Mapping[str, int],
    batch: int,
    like: Tensor,
    start: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    """State name -> (B, H): learned, or the law's constants."""
    if start is not None:
        return {name: value.expand(batch, -1) for name, value in start.items()}
    return {name: like.new_full((batch, sizes[name]), v) for name, v in law.states.items()}


def input_part(weights: Weights, x: Tensor) -> Tensor:
    """W x + b_ih for one step or all of them: (..., G H)."""
    ih, bias = weights.ih, weights.b_ih
    if not weights.hh.shape[0]:
        # No block is recurrent: R and b_hh are empty. Their sum is 0, and gives them a gradient.
        nothing = (
            weights.hh.sum() if weights.b_hh is None else weights.hh.sum() + weights.b_hh.sum()
        )
        ih, bias = (ih + nothing, None) if bias is None else (ih, bias + nothing)
    return nn.functional.linear(x, ih, bias)


def step_inputs(
    law: Law,
    weights: Weights,
    x: Tensor,
    previous: Mapping[str, Tensor],
    hooks: Mapping[str, Hook] | None = None,
    held: Held | None = None,
) -> dict[tuple[str, str], Tensor]:
    """The inputs of the graph at one step, from x (B, I) itself: after the rounds of x and h."""
    x, h = run_rounds(law.rounds, weights.params, x, previous["h"], hooks, held)
    return pre_inputs(law, weights, input_part(weights, x).to(h.dtype), previous, h)


def pre_inputs(
    law: Law,
    weights: Weights,
    x_part: Tensor,
    previous: Mapping[str, Tensor],
    h: Tensor | None = None,
) -> dict[tuple[str, str], Tensor]:
    """The inputs of the graph at one step, from W x + b_ih (B, G H) and the previous state.

    Args:
        h: what the recurrent matrix multiplies; default: the previous h.
    """
    size, blocks = weights.hidden_size, law.recurrent_blocks
    h = previous["h"] if h is None else h
    hidden = nn.functional.linear(h, weights.hh, weights.b_hh).to(x_part.dtype)
    inputs = {("state", name): value for name, value in previous.items()}
    inputs |= {("param", name): value for name, value in weights.params.items()}
    if law.graph.parts or len(blocks) < len(law.pre):
        xs = dict(zip(law.pre, torch.split(x_part, size, -1), strict=True))
        hs = dict(zip(blocks, torch.split(hidden, size, -1), strict=True)) if blocks else {}
        inputs |= {("pre.x", n): xs[n] for n in law.graph.parts}
        inputs |= {("pre.h", n): hs[n] for n in law.graph.parts if n in hs}
        inputs |= {("pre", n): xs[n] + hs[n] if n in hs else xs[n] for n in law.graph.pre}
    else:
        whole = torch.split(x_part + hidden, size, -1)
        inputs |= {("pre", n): v for n, v in zip(law.pre, whole, strict=True)}
    return inputs
