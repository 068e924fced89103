"""Record: what to read inside a net, as data; Records: what was read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError, UsageError
from gatewise.places import Places, as_places, contains, dump, load
from gatewise.probe.documents import as_data_error, read_json
from gatewise.types import Index

Sink: TypeAlias = "Callable[[str, Tensor, Tensor], None] | str | Path"


@dataclass(frozen=True, eq=False, init=False)
class Record:
    """Names to read while a net runs.

    Args:
        names: short names ("f": in every layer and direction) or paths ("layers.1.c").
        every: only times that are a multiple of it.
        time: only these times (from the start of the sequence).
        units: only these units.
        grad: keep the graph, so that a cost on what was recorded can be differentiated.
        to: where chunks go instead of being kept: a function ``(path, values (n, B, U),
            times (n,) or (n, B))``, or a folder that gets ``<path>/<first time>-<k>.npz``, each with
            ``values`` and ``times``; k counts the chunks that begin at this time, so that a second
            call over the same times adds its own.
    """

    names: tuple[str, ...]
    every: int
    time: Places
    units: Places
    grad: bool
    to: Sink | None

    def __init__(
        self,
        *names: str,
        every: int = 1,
        time: Index | None = None,
        units: Index | None = None,
        grad: bool = False,
        to: Sink | None = None,
    ) -> None:
        if any(not isinstance(name, str) for name in names):
            raise OptionError(f"Record takes names such as 'f' or 'layers.0.c': found {names!r}")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise OptionError(f"every= should be 1 or more, found {every!r}")
        if grad and to is not None:
            raise OptionError("grad=True keeps the graph in memory: it cannot go with to=")
        put = object.__setattr__
        put(self, "names", tuple(names))
        put(self, "every", every)
        put(self, "time", as_places("time", time))
        put(self, "units", as_places("units", units))
        put(self, "grad", bool(grad))
        put(self, "to", to)

    def __bool__(self) -> bool:
        return bool(self.names)

    def wants(self, time: int) -> bool:
        """Whether this time is recorded."""
        return time % self.every == 0 and contains(self.time, time)

    def to_json(self) -> str:
        """The request as small JSON; `to` is left out."""
        data = {"names": list(self.names), "every": self.every, "grad": self.grad}
        data |= {"time": dump(self.time), "units": dump(self.units)}
        return json.dumps({k: v for k, v in data.items() if v is not None})

    def _repr_html_(self) -> str:
        from gatewise.probe.showing import record_html

        return record_html(self.names, self.every, self.time, self.units, self.grad, self.to)

    @staticmethod
    def from_json(text: str) -> Record:
        """The request that `to_json` wrote.

        Raises:
            DataError: if `text` is not such a document.
        """
        data = read_json(text, "the record")
        if not isinstance(data, dict) or not set(data) <= {
            "names",
            "every",
            "grad",
            "time",
            "units",
        }:
            raise DataError("a record is a JSON object with names, every, time, units, grad")
        names = data.get("names", [])
        if not isinstance(names, list):
            raise DataError(f"names of a record should be a list, found {names!r}")
        time, units = load("time", data.get("time")), load("units", data.get("units"))
        every, grad = data.get("every", 1), data.get("grad", False)
        if not isinstance(grad, bool):
            raise DataError(f"grad of a record should be true or false, found {grad!r}")
        with as_data_error("the record"):
            return Record(*names, every=every, time=time, units=units, grad=grad)  # type: ignore[arg-type]


class Records(dict[str, Tensor]):
    """What was recorded: path -> (T', B, U), and the times of its rows.

    Args:
        values: path -> tensor.
        times: (T',), or (T', B) where each column began at its own time. A row is there where any
            column's time was asked for; padding is 0.

    Attributes:
        own_times: path -> its times, where a model of several nets has several.
    """

    def __init__(self, values: Mapping[str, Tensor], times: Tensor) -> None:
        super().__init__(values)
        self.times = times
        self.own_times: dict[str, Tensor] = {}

    def times_of(self, path: str) -> Tensor:
        """The times of the rows of one path."""
        return self.own_times.get(path, self.times)

    def __missing__(self, name: str) -> Tensor:
        have = ", ".join(self) or "nothing"
        raise UsageError(f"{name!r} was not recorded: there is {have}")

    def to_json(self) -> str:
        """Values, their dtypes and times as JSON; for small records."""
        return json.dumps({
            "times": self.times.tolist(),
            "values": {name: value.tolist() for name, value in self.items()},
            "shapes": {name: list(value.shape) for name, value in self.items()},
            "dtypes": {name: str(v.dtype).removeprefix("torch.") for name, v in self.items()},
        })  # fmt: skip

    def _repr_html_(self) -> str:
        from gatewise.probe.showing import records_html

        return records_html(self, self.times, self.own_times)

    @staticmethod
    def from_json(text: str) -> Records:
        """The records that `to_json` wrote.

        Raises:
            DataError: if `text` is not such a document.
        """
        data = read_json(text, "the records")
        keys = ("values", "shapes", "dtypes")
        if not isinstance(data, dict) or set(data) != {"times", *keys}:
            raise DataError("records are a JSON object with times, values, shapes and dtypes")
        values, shapes, dtypes = (data[key] for key in keys)
        if not all(isinstance(d, dict) and set(d) == set(values) for d in (values, shapes, dtypes)):
            raise DataError("records have values, shapes and dtypes for the same names")
        for dtype in dtypes.values():
            if dtype not in _DTYPES:
                raise DataError(f"unknown dtype {dtype!r} in records: expected one of {_DTYPES}")
        with as_data_error("the records"):
            return Records(
                {
                    n: torch.tensor(v, dtype=getattr(torch, dtypes[n])).reshape(shapes[n])
                    for n, v in values.items()
                },
                torch.tensor(data["times"], dtype=torch.int64),
            )


def in_sequence(parts: Sequence[Records | None]) -> Records | None:
    """The records of successive stretches as those of the whole; None where nothing was recorded."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    names = dict.fromkeys(name for part in found for name in part)
    values = {name: torch.cat([p[name] for p in found if name in p]) for name in names}
    return Records(values, torch.cat([part.times for part in found]))


_DTYPES = ("float32", "float64", "float16", "bfloat16", "bool")
