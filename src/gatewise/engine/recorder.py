"""Collects what is recorded in one direction of a plan."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from gatewise.engine.base import Direction, Plan
from gatewise.engine.naming import local_name, no_such_name
from gatewise.errors import FailedError
from gatewise.places import listed
from gatewise.probe import Record

_FLUSH = 256
"""Recorded steps after which a chunk goes to `Record.to`."""


class Recorder:
    """Collects the recorded values of one direction."""

    def __init__(self, direction: Direction, plan: Plan, record: Record, steps: int) -> None:
        self._record = record
        self._direction = direction
        self.names = recorded_names(direction, record)
        self.rows = recorded_steps(plan, record, steps)
        self._values: dict[str, list[Tensor]] = {name: [] for name in self.names}
        self._steps: list[int] = []
        self._start = plan.start
        self._columns = _column_filter(plan, record)
        self._units = record.units
        self._index: dict[tuple[int, torch.device], Tensor] = {}

    def _places(self, value: Tensor) -> Tensor:
        """The recorded units of a value, as an index."""
        key = (value.shape[-1], value.device)
        if key not in self._index:
            units = listed("units", self._units, value.shape[-1])
            self._index[key] = torch.tensor(units, dtype=torch.int64, device=value.device)
        return self._index[key]

    def takes_all(self, steps: int) -> bool:
        """Whether every value of this call is recorded and handed back as it is."""
        whole = len(self.rows) == steps and not isinstance(self._start, Tensor)
        return whole and self._units is None and self._record.to is None

    def put(self, name: str, value: Tensor, step: int, valid: Tensor | None) -> None:
        """Note one value of one step."""
        if self._units is not None:
            value = value.index_select(-1, self._places(value))
        if not self._record.grad:
            value = value.detach()
        for mask in (valid, self._columns(step)):
            if mask is not None:
                value = torch.where(mask, value, torch.zeros_like(value))
        self._values[name].append(value)

    def end_step(self, step: int) -> None:
        """Called after the last value of a recorded step."""
        self._steps.append(step)
        if self._record.to is not None and len(self._steps) >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Send what there is to the sink."""
        assert self._record.to is not None
        if not self._steps:
            return
        for name, value in self._stacked().items():
            _send(self._record.to, self._direction.full(name), value, self._times())
        self._values = {name: [] for name in self.names}
        self._steps = []

    def finish(self) -> dict[str, Tensor]:
        """Path -> (T', B, U), in the order of time; empty where a sink took it."""
        if self._record.to is not None:
            self.flush()
            return {}
        return {self._direction.full(n): v for n, v in self._stacked().items()}

    def finish_empty(self, like: Tensor) -> dict[str, Tensor]:
        """Path -> (0, B, U), where no step of this call is recorded: chunks can be joined."""
        if self._record.to is not None:
            return {}
        found = {}
        for name in self.names:
            units = listed("units", self._record.units, self._direction.width(name))
            found[self._direction.full(name)] = like.new_zeros(0, like.shape[1], len(units))
        return found

    def _stacked(self) -> dict[str, Tensor]:
        return {
            name: torch.stack(rows[::-1] if self._direction.reverse else rows)
            for name, rows in self._values.items()
        }

    def _times(self) -> Tensor:
        return times_of(self._start, sorted(self._steps))


def collect(
    slots: Mapping[str, Tensor],
    direction: Direction,
    plan: Plan,
    valid: Tensor | None,
    like: Tensor,
) -> dict[str, Tensor]:
    """Path -> recorded values, from those of all steps: of the steps, units and columns asked for.

    Args:
        slots: name -> its values, (T, B, U), nobody else's.
        direction: whose they are.
        plan: what is recorded.
        valid: (T, B, 1) bool, or None.
        like: a tensor (T, B, ...) of their dtype and device.
    """
    if plan.record is None:
        return {}
    recorder = Recorder(direction, plan, plan.record, like.shape[0])
    if not recorder.rows:
        return recorder.finish_empty(like)
    if recorder.takes_all(like.shape[0]):
        keep = plan.record.grad
        wanted = {n: slots[n] if keep else slots[n].detach() for n in recorder.names}
        return {
            direction.full(n): v if valid is None else torch.where(valid, v, torch.zeros_like(v))
            for n, v in wanted.items()
        }
    order = reversed(recorder.rows) if direction.reverse else recorder.rows
    for t in order:
        for name in recorder.names:
            recorder.put(name, slots[name][t], t, None if valid is None else valid[t])
        recorder.end_step(t)
    return recorder.finish()


def _column_filter(plan: Plan, record: Record) -> Callable[[int], Tensor | None]:
    """Step -> (B, 1) bool of the columns whose time is recorded; None: all of them."""
    start = plan.start
    if not isinstance(start, Tensor):
        return lambda step: None
    begins = start.tolist()

    def columns(step: int) -> Tensor | None:
        wanted = [record.wants(begin + step) for begin in begins]
        return None if all(wanted) else torch.tensor(wanted, device=start.device).unsqueeze(-1)

    return columns


def times_of(start: int | Tensor, steps: list[int]) -> Tensor:
    """The times of these steps: (T',), or (T', B) where each column has its own start."""
    times = torch.tensor(steps, dtype=torch.int64, device="cpu")
    return times.unsqueeze(-1) + start.cpu() if isinstance(start, Tensor) else times + start


def recorded_steps(plan: Plan, record: Record, steps: int) -> list[int]:
    """The steps of this call that are recorded, in the order of time."""
    if isinstance(plan.start, Tensor):
        begins = sorted(set(plan.start.tolist()))
        return [t for t in range(steps) if any(record.wants(b + t) for b in begins)]
    return [t for t in range(steps) if record.wants(plan.start + t)]


def recorded_names(direction: Direction, record: Record) -> list[str]:
    """The names inside this direction that are recorded, in the order asked for."""
    found = (local_name(name, direction) for name in record.names)
    return list(dict.fromkeys(name for name in found if name is not None))


def check_record(plan: Plan) -> None:
    """Raise if a name asked for is in no cell of the plan, or a unit in none that has the name."""
    record = plan.record
    if record is None:
        return
    for name in record.names:
        here = [(d, own) for d in plan.directions if (own := local_name(name, d))]
        if not here:
            raise no_such_name(name, list(plan.directions))
        for direction, own in here:
            listed("units", record.units, direction.width(own))


def _send(sink: object, path: str, value: Tensor, times: Tensor) -> None:
    if callable(sink):
        sink(path, value, times)
        return
    folder = Path(str(sink)) / path
    values = value.float() if value.dtype == torch.bfloat16 else value
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_chunk(_new_chunk(folder, int(times.min())), values, times)
    except OSError as error:
        raise FailedError(
            f"cannot write what is recorded to {folder}: {error.strerror or error}; "
            "give Record(to=...) a folder with room that may be written"
        ) from error


def _write_chunk(file: BinaryIO, values: Tensor, times: Tensor) -> None:
    """All of it, or no file: half a chunk could not be read."""
    try:
        with file:
            np.savez(file, values=values.cpu().numpy(), times=times.numpy())
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def _new_chunk(folder: Path, first: int) -> BinaryIO:
    """A file that was not there before: the times may have been recorded in another call."""
    for number in itertools.count():
        with contextlib.suppress(FileExistsError):
            return (folder / f"{first:09d}-{number}.npz").open("xb")
    raise AssertionError
