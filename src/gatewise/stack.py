"""Layers and directions of one cell, with everything that can stand between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.cells import Cell, find
from gatewise.cells.base import (
    Law,
    Weights,
    as_state,
    initialise,
    previous_state,
    probability,
    read_weights,
    state_parts,
    weight_shapes,
    zoneout_of,
)
from gatewise.cells.order import check_order, note_order
from gatewise.engine.base import Direction, Plan, States
from gatewise.errors import OptionError, ShapeError
from gatewise.noise import Noise
from gatewise.probe import Control, Record, active_control, controlled
from gatewise.types import State
from gatewise.unrolling import Unrolled, check_input, drop_weights, run_plan, zoneout_masks


@dataclass(frozen=True)
class StateForm:
    """One state of several layers and directions: (L D, B, H) tensors, or a tuple where sizes differ.

    Args:
        law: of the cell.
        sizes: units of each direction of each layer.
        proj_size: of the projected h; 0: none.
    """

    law: Law
    sizes: tuple[int, ...]
    proj_size: int = 0

    @property
    def uniform(self) -> bool:
        """Whether all are of one size."""
        return len(set(self.sizes)) == 1

    def split(self, state: State) -> Sequence[State]:
        """The state of each direction.

        Raises:
            ShapeError: if there are not as many, or they are of another size.
        """
        count = len(self.sizes)
        if state is None:
            return [None] * count
        if not self.uniform:
            if not isinstance(state, tuple) or len(state) != count:
                raise ShapeError(f"expected a tuple of {count} states, one per layer and direction")
            return state
        parts = state_parts(self.law, state)
        for name, part in zip(self.law.states, parts, strict=True):
            if part.ndim != 3 or part.shape[0] != count:
                size = self.proj_size if name == "h" and self.proj_size else self.sizes[0]
                raise ShapeError(
                    f"expected state {name} of shape ({count}, B, {size}), found {tuple(part.shape)}"
                )
        return [as_state([part[k] for part in parts]) for k in range(count)]

    def whole(self, parts: Sequence[State]) -> State:
        """The one state of those of all directions."""
        if not self.uniform:
            return tuple(parts)
        split = [state_parts(self.law, part) for part in parts]
        return as_state([torch.stack(same) for same in zip(*split, strict=True)])


class Layers(nn.Module):
    """The weights of a stack, in torch.nn's names, and how they run: the base of `Stack` and `nn`."""

    def __init__(
        self,
        cell: str | type[Cell],
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        locked_dropout: bool = False,
        weight_drop: float = 0.0,
        zoneout: float | Mapping[str, float] = 0.0,
        learned_state: bool = False,
        init_bias: Mapping[str, float] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        # The class, not its law: a class is pickled and copied by reference.
        self._cell = find(cell)
        self.input_size = input_size
        self._sizes = _hidden_sizes(hidden_size, num_layers)
        self.hidden_size = self._sizes[0]
        self.num_layers = len(self._sizes)
        self.bias = bias
        self.dropout = _dropout(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.locked_dropout = locked_dropout
        self.weight_drop = probability("weight_drop", weight_drop)
        self.zoneout = zoneout_of(self._law, zoneout)
        self.learned_state = learned_state
        self.init_bias = dict(init_bias or {})
        self._weight_names: list[tuple[str, dict[str, str]]] = []
        self._add_parameters(device, dtype)
        self.reset_parameters()

    # --- weights ---------------------------------------------------------------------------------

    @property
    def _law(self) -> Law:
        return self._cell.law

    def _add_parameters(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        width = self.input_size
        for layer, size in enumerate(self._sizes):
            for suffix in self._suffixes(layer):
                shapes = weight_shapes(self._law, width, size, self.bias, self.proj_size)
                names = {name: name + suffix for name in shapes}
                self._weight_names.append((suffix, names))
                for name, shape in shapes.items():
                    empty = torch.empty(shape, device=device, dtype=dtype)
                    self.register_parameter(names[name], nn.Parameter(empty))
                for state in self._law.states if self.learned_state else ():
                    empty = torch.empty(self._state_size(state, size), device=device, dtype=dtype)
                    self.register_parameter(f"start_{state}{suffix}", nn.Parameter(empty))
            width = (self.proj_size or size) * self.num_directions

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        note_order(destination, prefix, self._law.pre, self._law.recurrent_blocks)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, noted: Any, *rest: Any) -> None:
        check_order(noted, prefix, self._law.pre, self._law.recurrent_blocks, rest[-1])
        super()._load_from_state_dict(state_dict, prefix, noted, *rest)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.num_directions]

    def _state_size(self, state: str, size: int) -> int:
        return self.proj_size if state == "h" and self.proj_size else size

    def reset_parameters(self) -> None:
        """Draw the initial weights anew; the same seed gives the same weights as torch.nn."""
        for k, (suffix, names) in enumerate(self._weight_names):
            weights = {name: getattr(self, full) for name, full in names.items()}
            initialise(self._law, weights, self._sizes[k // self.num_directions], self.init_bias)
            for state, value in self._law.states.items() if self.learned_state else ():
                nn.init.constant_(getattr(self, f"start_{state}{suffix}"), value)

    @property
    def num_directions(self) -> int:
        """1, or 2 where it is bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Width of the output h."""
        return (self.proj_size or self._sizes[-1]) * self.num_directions

    @property
    def uniform(self) -> bool:
        """Whether all layers are of one size, so that the state is (L D, B, H) tensors."""
        return len(set(self._sizes)) == 1

    @property
    def state_form(self) -> StateForm:
        """How the states of the layers and directions are one state."""
        sizes = tuple(size for size in self._sizes for _ in range(self.num_directions))
        return StateForm(self._law, sizes, self.proj_size)

    def _weights(self, names: Mapping[str, str]) -> Weights:
        return read_weights(self._law, {name: getattr(self, full) for name, full in names.items()})

    def _start(self, suffix: str) -> dict[str, Tensor] | None:
        if not self.learned_state:
            return None
        return {s: getattr(self, f"start_{s}{suffix}") for s in self._law.states}

    # --- running ---------------------------------------------------------------------------------

    def run(
        self,
        x: Tensor,
        state: State = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        reset: Tensor | None = None,
        start: int | Tensor = 0,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> Unrolled:
        """Run all layers over time; arguments and errors as in `gatewise.unroll`."""
        check_input(x, self.input_size)
        noise = self._noise()
        directions = self._directions(x, noise)
        states = self._given_states(state, x, directions)
        width = self.num_directions
        layers = tuple(tuple(directions[k : k + width]) for k in range(0, len(directions), width))
        out = run_plan(
            Plan(layers, masks=self._masks(x, noise)),
            x,
            states,
            lengths=lengths,
            reset=reset,
            start=start,
            engine=engine,
            record=record,
            control=active_control(self, control),
        )
        assert isinstance(out.state, tuple)
        return replace(out, state=self.state_form.whole(out.state))

    def directions(self) -> list[Direction]:
        """The cells of the stack as engines see them, layer by layer, without any noise."""
        return self._directions(torch.empty(0, 0, 0), None)

    def _noise(self) -> Noise | None:
        """The noise of one call, if anything needs it: one seed for all masks."""
        between = self.dropout > 0 and self.num_layers > 1
        wanted = self.training and (between or self.zoneout or self.weight_drop)
        return Noise.draw() if wanted else None

    def _directions(self, x: Tensor, noise: Noise | None) -> list[Direction]:
        found = []
        for k, (suffix, names) in enumerate(self._weight_names):
            layer, reverse = divmod(k, self.num_directions)
            path = f"layers.{layer}" + ".reverse" * reverse
            weights = drop_weights(self._law, self._weights(names), self.weight_drop, noise, path)
            zoneout = zoneout_masks(self._law, weights, self.zoneout, noise, path, x)
            start = self._start(suffix)
            found.append(Direction(self._law, weights, path, layer, bool(reverse), start, zoneout))
        return found

    def _masks(self, x: Tensor, noise: Noise | None) -> tuple[Tensor | None, ...]:
        """Dropout between the layers: a mask for each step, or one for all of them (locked)."""
        if noise is None or self.dropout == 0:
            return ()
        steps = 1 if self.locked_dropout else x.shape[0]
        return tuple(
            noise.keep(
                f"layers.{layer}.dropout",
                (steps, x.shape[1], (self.proj_size or size) * self.num_directions),
                self.dropout,
                dtype=x.dtype,
                device=x.device,
            )
            for layer, size in enumerate(self._sizes[:-1])
        )

    def _given_states(self, state: State, x: Tensor, directions: list[Direction]) -> States:
        parts = self.state_form.split(state)
        return tuple(
            previous_state(self._law, d.weights, part, x.shape[1], x, d.start)
            for d, part in zip(directions, parts, strict=True)
        )

    def zero_state(self, batch: int) -> State:
        """The start state of `batch` columns (learned where it is, else the cell's constants)."""
        weight = getattr(self, self._weight_names[0][1]["weight_ih"])
        parts = []
        for k, (suffix, _) in enumerate(self._weight_names):
            start, size = self._start(suffix), self._sizes[k // self.num_directions]
            parts.append(as_state([
                start[s].expand(batch, -1)
                if start
                else weight.new_full((batch, self._state_size(s, size)), value)
                for s, value in self._law.states.items()
            ]))  # fmt: skip
        return self.state_form.whole(parts)

    def names(self) -> tuple[str, ...]:
        """Every path that can be recorded and controlled."""
        return tuple(
            f"layers.{layer}{direction}.{name}"
            for layer in range(self.num_layers)
            for direction in ("", ".reverse")[: self.num_directions]
            for name in self._law.names(bool(self.proj_size))
        )

    def controlled(self, control: Control) -> AbstractContextManager[None]:
        """A block in which `control` acts in every call, for code that you cannot change."""
        return controlled([self], control)


class Stack(Layers):
    """A stack of layers of any cell.

    Args:
        cell: a name of `gatewise.cells.REGISTRY`, or a class.
        input_size: I.
        hidden_size: H, or one for each layer (then `num_layers` is their number).
        num_layers: L.
        bias: with biases.
        dropout: between the layers, in training.
        bidirectional: with a second direction in each layer.
        proj_size: size of the projection of h (Sak et al. 2014); 0: none.
        locked_dropout: one dropout mask for all steps (Gal & Ghahramani 2016).
        weight_drop: DropConnect on the recurrent weights (Merity et al. 2017).
        zoneout: probability that a unit keeps its last value (Krueger et al. 2016), one for all
            states or by state name.
        learned_state: start states are parameters.
        init_bias: start value of a gate's bias, e.g. ``{"f": 1.0}``.
        device, dtype: of the weights.
    """

    def forward(
        self,
        x: Tensor,
        state: State = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        reset: Tensor | None = None,
        start: int | Tensor = 0,
        engine: str = "auto",
        record: Record | None = None,
        control: Control | None = None,
    ) -> Unrolled:
        """Run the stack; arguments, result and errors as in `gatewise.unroll`.

        The state is (L D, B, H) for each state of the cell, or one state per layer and direction
        where sizes differ. Names in the record are whole paths ("layers.0.f").
        """
        return self.run(
            x,
            state,
            lengths=lengths,
            reset=reset,
            start=start,
            engine=engine,
            record=record,
            control=control,
        )

    def extra_repr(self) -> str:
        """Sizes and what differs from the defaults."""
        sizes = self.hidden_size if self.uniform else list(self._sizes)
        parts = [f"{self._law.name!r}, {self.input_size}, {sizes}, num_layers={self.num_layers}"]
        defaults: dict[str, object] = {
            "bias": True,
            "dropout": 0.0,
            "bidirectional": False,
            "proj_size": 0,
        }
        defaults |= {"locked_dropout": False, "weight_drop": 0.0, "zoneout": {}}
        defaults |= {"learned_state": False, "init_bias": {}}
        for name, default in defaults.items():
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)!r}")
        return ", ".join(parts)


def control_all(module: nn.Module, control: Control) -> AbstractContextManager[None]:
    """A block in which `control` acts in every stack, drop-in and cell inside `module`."""
    return controlled(list(module.modules()), control)


def _hidden_sizes(hidden_size: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    if isinstance(hidden_size, int):
        if not isinstance(num_layers, int) or num_layers <= 0:
            raise OptionError(f"num_layers must be greater than zero, found {num_layers!r}")
        return (hidden_size,) * num_layers
    if isinstance(hidden_size, Sequence) and not isinstance(hidden_size, str):
        sizes = tuple(hidden_size)
        if sizes and num_layers in (1, len(sizes)):
            return sizes
        raise OptionError(f"hidden_size has {len(sizes)} sizes for {num_layers} layers")
    raise TypeError(f"hidden_size should be of type int, got: {type(hidden_size).__name__}")


def _dropout(value: float) -> float:
    """torch.nn allows a dropout of 1; nothing is left then."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise OptionError(
            "dropout should be a number in range [0, 1] representing the probability of an element "
            f"being zeroed; found {value!r}"
        )
    return float(value)
