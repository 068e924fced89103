"""Columns that go side by side through a packed net: their states, and the calls of the kernel.

Each session has its own states and working memory, so that many can run at once, in as many threads.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gatewise.engine.cpu import forks, threads
from gatewise.engine.cpu.step.program import Made, make
from gatewise.engine.cpu.step.sampling import CHUNK
from gatewise.errors import OptionError, ShapeError
from gatewise.probe import Control, Record, Records
from gatewise.step.core import Core
from gatewise.step.probes import Probes, collect, moves, prepare, slots, tables, versions
from gatewise.types import State

_SLACK = 64  # numbers after the last row that a register may touch


class StateOwner(Protocol):
    """What knows the model's own states; `gatewise.step.model` has them."""

    def load_state(self, session: Session, state: State) -> None:
        """Let a session go on from a state of the model."""


class _Block:
    """The arguments of one function, in memory where the kernel reads them."""

    def __init__(self, names: Sequence[str], values: Mapping[str, int]) -> None:
        self._place = {name: k for k, name in enumerate(names)}
        self._data = (ctypes.c_int64 * max(1, len(names)))()
        self.address = ctypes.addressof(self._data)
        for name in names:
            if name in values:
                self._data[self._place[name]] = values[name]

    def set(self, name: str, value: int) -> None:
        """Change an argument, if the function has it."""
        place = self._place.get(name)
        if place is not None:
            self._data[place] = value


class Session:
    """Some columns, from their beginning on; made by `StepModel.start` and `StepStack.start`.

    Attributes:
        batch: B, the number of columns.
        times: (B,) int64, steps that each column has made.
        memory: (B, R) float32, the whole state: one row a column. Copy it to save the state, copy into
            it to restore.
        record: what was recorded in the last call, or None.
        names: every path that can be recorded and controlled.
    """

    @forks.alive()
    def __init__(
        self,
        core: Core,
        start: Tensor,
        batch: int,
        record: Record | None = None,
        control: Control | None = None,
    ) -> None:
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise OptionError(f"batch: expected a whole number of 1 or more, found {batch!r}")
        self.core, self.batch = core, batch
        self._start, self._asked = start, (record, control)
        self.probes: Probes = prepare(core.directions, record, control)
        self.made: Made = make(core.design(self.probes.variants))
        self.times = torch.zeros(batch, dtype=torch.int64)
        self.record: Records | None = None
        row = core.places[1]
        room = torch.zeros(batch * row + _SLACK)
        self.memory = room[: batch * row].view(batch, row)
        self.memory.copy_(start)
        self._most = max(1, core.threads or torch.get_num_threads())
        self._alive: list[Tensor] = [room]
        self._blocks = self._make_blocks()
        self._main = self._blocks["main"]
        self._recorded: list[dict[str, Tensor]] = []
        self._asked_versions: tuple[int, ...] | None = None

    # --- memory ----------------------------------------------------------------------------------

    def _room(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        tensor = torch.zeros(shape, dtype=dtype)
        self._alive.append(tensor)
        return tensor

    def _make_blocks(self) -> dict[str, _Block]:
        core, made = self.core, self.made
        row = core.places[1]
        common = {"B": self.batch, "row": row}
        blocks = {}
        for number, part in enumerate(core.layers):
            places = core.places[0][number]
            states = {f"state:{s}": self._at(place) for s, place in places.items()}
            blocks[f"layer{number}"] = _Block(
                made.arguments[f"layer{number}"],
                common | part.values() | states | {"slot_t": self.batch * part.numbers["Hp"]},
            )
        for name, given in (("project", core.project), ("decode", core.decode)):
            if given is not None:
                blocks[name] = _Block(made.arguments[name], given.values() | {"B": self.batch})
        if core.decode is not None:
            blocks["sample"] = _Block(made.arguments["sample"], self._sampling())
        blocks["main"] = _Block(made.arguments["main"], common | self._main_values(blocks))
        return blocks

    def _at(self, place: int) -> int:
        return self.memory.data_ptr() + 4 * place

    def _sampling(self) -> dict[str, int]:
        assert self.core.decode is not None
        row = self.core.decode.numbers["row"]
        registers = row // self.core.target.lanes
        chunks = -(-registers // CHUNK)
        self._seeds = self._room(self.batch, dtype=torch.int64)
        return {
            "row": row,
            "outputs": self.core.outputs,
            "registers": registers,
            "chunks": chunks,
            "weights": self._room(self.batch, row).data_ptr(),
            "sums": self._room(self.batch, chunks, dtype=torch.float64).data_ptr(),
            "seeds": self._seeds.data_ptr(),
        }

    def _main_values(self, blocks: Mapping[str, _Block]) -> dict[str, int]:
        core = self.core
        values = core.rows() | core.panels()
        values |= {name: block.address for name, block in blocks.items()}
        offset = 0
        for name in ["x", *(f"h{n}" for n in range(len(core.layers))), "y"]:
            if f"bytes:{name}" in values:
                values[f"at:{name}"] = offset
                offset += self.batch * values[f"bytes:{name}"]
        work = self._room(self._most * offset + 64, dtype=torch.uint8)
        values |= {
            "own_bytes": offset,
            "work": work.data_ptr(),
            "barrier": self._room(8, dtype=torch.int64).data_ptr(),
        }
        self._barrier = ctypes.c_int64.from_address(values["barrier"])
        for number, places in enumerate(core.places[0]):
            values[f"h:{number}"] = self._at(places["h"])
        if core.embedding is not None:
            values["embedding"] = core.embedding.data_ptr()
        if core.project is not None:
            row = core.project.numbers["row"]
            values["projected"] = self._room(self.batch * row + _SLACK).data_ptr()
            values["row:project"] = row
        return values

    # --- calls -----------------------------------------------------------------------------------

    def _call(self, steps: int, most: bool = False, **values: int) -> int:
        """Run the kernel for so many steps, or with `most` for as many of them as are good at once."""
        main, pace = self._main, self.core.pace(self.batch)
        workers, good = pace.next()
        if most:
            steps = min(steps, good)
        main.set("S", steps)
        for name, value in values.items():
            main.set(name, value)
        begin = self._time()
        self._place_probes(begin, steps)
        self._barrier.value = 0
        workers = min(workers, self._most)
        start = time.perf_counter()
        threads.call(self.made.address, main.address, workers)
        pace.note(workers, steps, start, time.perf_counter())
        self.times += steps
        self.record = collect(self.probes, self._recorded, begin, steps)
        return steps

    def _time(self) -> int | Tensor:
        """The time of the next step: one number while all columns are at the same time."""
        if self.probes.plan.record is None and self.probes.plan.control is None:
            return 0
        first = int(self.times[0])
        return first if bool((self.times == first).all()) else self.times.clone()

    def _place_probes(self, begin: int | Tensor, steps: int) -> None:
        if self.probes.plan.control is not None:
            self._place_controls(begin, steps)
        if self.probes.plan.record is not None:
            self._recorded = []
            for number, part in enumerate(self.core.layers):
                own = slots(self.probes, number, steps, self.batch, part.numbers["Hp"])
                for slot, array in own.items():
                    self._blocks[f"layer{number}"].set(f"slot:{slot}", array.data_ptr())
                self._recorded.append(own)

    def _place_controls(self, begin: int | Tensor, steps: int) -> None:
        asked = versions(self.probes)
        moving = any(moves(self.probes, n) for n in range(len(self.core.layers)))
        if not moving and asked == self._asked_versions:
            return
        self._asked_versions = asked
        self._tables: list[dict[str, tuple[Tensor, Tensor]]] = []
        for number, part in enumerate(self.core.layers):
            size, block = part.numbers["Hp"], self._blocks[f"layer{number}"]
            own = tables(self.probes, number, begin, steps, self.batch, size)
            for name, (alpha, beta) in own.items():
                block.set(f"alpha:{name}", alpha.data_ptr())
                block.set(f"beta:{name}", beta.data_ptr())
                block.set(f"control_b:{name}", size if alpha.shape[1] > 1 else 0)
                block.set(f"control_t:{name}", alpha.shape[1] * size if len(alpha) > 1 else 0)
            self._tables.append(own)

    # --- states ----------------------------------------------------------------------------------

    def fork(self, columns: Sequence[int] | None = None) -> Session:
        """A second session that goes on from here by itself.

        Args:
            columns: which columns it has, in this order; one may be repeated. Default: all.
        """
        index = self._columns(columns)
        twin = type(self)(self.core, self._start, len(index), *self._asked)
        torch.index_select(self.memory, 0, index, out=twin.memory)
        twin.times = self.times[index]
        return twin

    def reset(self, columns: Sequence[int] | None = None) -> None:
        """Begin anew, at time 0: all columns, or those named."""
        index = self._columns(columns)
        self.memory[index] = self._start
        self.times[index] = 0
        self.record = None

    def _columns(self, columns: Sequence[int] | None) -> Tensor:
        chosen = list(range(self.batch)) if columns is None else list(columns)
        if not chosen or any(not 0 <= c < self.batch for c in chosen):
            raise OptionError(
                f"columns: expected numbers from 0 to {self.batch - 1}, found {columns}"
            )
        return torch.tensor(chosen, dtype=torch.int64)

    @property
    def names(self) -> tuple[str, ...]:
        """Every path that can be recorded and controlled."""
        return tuple(d.full(n) for d in self.core.directions for n in d.names)

    def save(self) -> tuple[Tensor, Tensor]:
        """The states and times, copied: what `restore` takes, of this net and batch."""
        return self.memory.clone(), self.times.clone()

    def restore(self, saved: tuple[Tensor, Tensor]) -> None:
        """Go on from what `save` gave."""
        memory, times = saved
        if memory.shape != self.memory.shape:
            raise ShapeError(
                f"expected a state of shape {tuple(self.memory.shape)}, found {tuple(memory.shape)}"
            )
        self.memory.copy_(memory)
        self.times.copy_(times)

    def parts(self) -> list[dict[str, Tensor]]:
        """Layer by layer: state -> (B, H), copied."""
        places = self.core.places[0]
        return [
            {s: self.memory[:, at : at + d.weights.hidden_size].clone() for s, at in here.items()}
            for d, here in zip(self.core.directions, places, strict=True)
        ]

    def packed_state(self, owner: StateOwner, state: State) -> None:
        """Go on from a state of the model; None begins anew."""
        if state is None:
            self.memory.copy_(self._start)
        else:
            owner.load_state(self, state)

    def set_parts(self, parts: Sequence[Mapping[str, Tensor]]) -> None:
        """Go on from states (B, H), layer by layer."""
        for d, here, part in zip(self.core.directions, self.core.places[0], parts, strict=True):
            for name, at in here.items():
                value, units = part[name].detach(), d.weights.hidden_size
                if value.shape != (self.batch, units):
                    raise ShapeError(
                        f"expected a state {name} of shape ({self.batch}, {units}), "
                        f"found {tuple(value.shape)}"
                    )
                self.memory[:, at : at + units] = value
