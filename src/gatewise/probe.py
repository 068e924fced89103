"""Record and Control: what to read inside a net and what to set, as data.

A name is a gate, a state or a stage of the cell ("f", "c", "f.pre", "c.new"), or a whole path
("layers.0.f", "layers.1.reverse.c"). A short name means that value in every layer and direction.
Both are honoured where the name is defined: every later use, in this step and the next, sees the
controlled value, and what is recorded is what the net used. Time counts from the start of the sequence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError, ShapeError, UsageError
from gatewise.places import Places, as_places, contains, count, dump, load
from gatewise.types import Index

Sink: TypeAlias = "Callable[[str, Tensor, Tensor], None] | str | Path"
MEMORY = ("keep", "reset", "write")
_VALUES = ("set", "scale", "add", "patch")


def _load(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{what} is not JSON: {error}") from None


@contextmanager
def _as_data_error(what: str) -> Iterator[None]:
    """What a constructor refuses is, in a file, bad data."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise DataError(f"{what}: {error}") from None


# --- Control --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Rule:
    """One step of a control: what happens to one name, and where."""

    op: str
    name: str | None
    value: float | Tensor | None
    layer: Places
    units: Places
    time: Places
    batch: Places

    def to_data(self) -> dict[str, Any]:
        """The rule as JSON-able data; what is at its default is left out."""
        value = self.value.tolist() if isinstance(self.value, Tensor) else self.value
        data = {"op": self.op, "name": self.name, "value": value}
        data |= {k: dump(getattr(self, k)) for k in ("layer", "units", "time", "batch")}
        return {k: v for k, v in data.items() if v is not None}


class _Constructor:
    """A constructor of Control that refuses to be called on an instance."""

    def __init__(self, fn: Callable[..., Control]) -> None:
        self._fn = fn
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__

    def __get__(self, instance: Control | None, owner: type[Control]) -> Callable[..., Control]:
        if instance is not None:
            name = self.__name__
            raise UsageError(
                f"Control.{name} is a constructor; on an instance it would drop what stands before "
                f"it: write `control | Control.{name}(...)`"
            )
        return self._fn


def _control(
    op: str,
    name: str | None,
    value: float | Tensor | None,
    layer: Index | None,
    units: Index | None,
    time: Index | None,
    batch: Index | None,
) -> Control:
    if op not in MEMORY and not isinstance(name, str):
        raise OptionError(f"Control.{op} takes a name such as 'f': found {name!r}")
    if op in _VALUES and not isinstance(value, Tensor):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise OptionError(f"Control.{op} takes a number or a tensor: found {value!r}")
        value = float(value)
    places = [as_places(k, v) for k, v in zip(_PLACES, (layer, units, time, batch), strict=True)]
    if isinstance(value, Tensor):
        _check_value(op, value, places[_PLACES.index("time")])
    return Control((Rule(op, name, value, *places),))


def _check_value(op: str, value: Tensor, time: Places) -> None:
    if value.ndim > 3:
        raise ShapeError(
            f"Control.{op} takes a value of at most (time, batch, units): "
            f"found {tuple(value.shape)}"
        )
    times = count(time)
    if value.ndim == 3 and times is not None and value.shape[0] != times:
        raise ShapeError(
            f"Control.{op} takes one value for each selected time: time= selects {times}, "
            f"found {tuple(value.shape)}"
        )


_PLACES = ("layer", "units", "time", "batch")


@dataclass(frozen=True, eq=False)
class Control:
    """Values to set inside a net. Build one with a constructor, compose with ``|``.

    ``on off set patch`` and the memory controls *select* their value where they apply; ``scale`` and
    ``add`` compute with what is there. In ``a | b``, b sees the result of a. All take ``layer=``,
    ``units=``, ``time=`` (from the start of the sequence) and ``batch=``: a number, a slice, a list of
    numbers or a mask. A tensor as a value broadcasts with (batch, units): all of them, or those selected;
    with a third dimension in front it goes along the selected times (along time 0, 1, ...
    where ``time=`` is not given). Gradients flow into it.

    >>> control = Control.off("o", layer=0) | Control.keep(units=slice(0, 8), time=range(10, 20))
    >>> Control.from_json(control.to_json()).to_json() == control.to_json()
    True
    """

    rules: tuple[Rule, ...] = ()

    def __or__(self, other: Control) -> Control:
        if not isinstance(other, Control):
            return NotImplemented
        return Control(self.rules + other.rules)

    def __bool__(self) -> bool:
        return bool(self.rules)

    def __repr__(self) -> str:
        return f"Control.from_json({self.to_json()!r})"

    @_Constructor
    @staticmethod
    def on(
        name: str,
        *,
        layer: Index | None = None,
        units: Index | None = None,
        time: Index | None = None,
        batch: Index | None = None,
    ) -> Control:
        """`name` is 1."""
        return _control("on", name, None, layer, units, time, batch)

    @_Constructor
    @staticmethod
    def off(
        name: str,
        *,
        layer: Index | None = None,
        units: Index | None = None,
        time: Index | None = None,
        batch: Index | None = None,
    ) -> Control:
        """`name` is 0."""
        return _control("off", name, None, layer, units, time, batch)

    @_Constructor
    @staticmethod
    def set(
        name: str,
        value: float | Tensor,
        *,
        layer: Index | None = None,
        units: Index | None = None,
        time: Index | None = None,
        batch: Index | None = None,
    ) -> Control:
        """`name` is `value`."""
        return _control("set", name, value, layer, units, time, batch)

    @_Constructor
    @staticmethod
    def scale(
        name: str,
        value: float | Tensor,
        *,
        layer: Index | None = None,
        units: Index | None = None,
        time: Index | None = None,
        batch: Index | None = None,
    ) -> Control:
        """`name` is multiplied by `value`."""
        return _control("scale", name, value, layer, units, time, batch)

    @_Constructor
    @staticmethod
    def add(
        name: str,
        value: float | Tensor,
        *,
        layer: Index | None = None,
        units: Index | None = None,
        time: Index | None = None,
        batch: Index | None = None,
    ) -> Control:
        """`value` is added to `name`."""
        return _control("add", name, value, layer, units, time, batch)

    @_Constructor
    @staticmethod
    def patch(
        name: str,
        value: Tensor,
        *,
        layer: Index | None = None,
        units: Index | None = None,
        time: Index | None = None,
        batch: Index | None = None,
    ) -> Control:
        """`name` is the tensor `value`, for example one recorded in another run."""
        if not isinstance(value, Tensor):
            raise OptionError(f"Control.patch takes a tensor: found {type(value).__name__}")
        return _control("patch", name, value, layer, units, time, batch)

    @_Constructor
    @staticmethod
    def keep(
        *,
        layer: Index | None = None,
        units: Index | None = None,
        time: Index | None = None,
        batch: Index | None = None,
    ) -> Control:
        """Memory keep: the state stays as it was, in each cell's own terms (LSTM: f=1, i=0)."""
        return _control("keep", None, None, layer, units, time, batch)

    @_Constructor
    @staticmethod
    def reset(
        *,
        layer: Index | None = None,
        units: Index | None = None,
        time: Index | None = None,
        batch: Index | None = None,
    ) -> Control:
        """Memory reset: the state becomes 0, in each cell's own terms (LSTM: f=0, i=0)."""
        return _control("reset", None, None, layer, units, time, batch)

    @_Constructor
    @staticmethod
    def write(
        *,
        layer: Index | None = None,
        units: Index | None = None,
        time: Index | None = None,
        batch: Index | None = None,
    ) -> Control:
        """Memory write: the state becomes the new content (LSTM: f=0, i=1)."""
        return _control("write", None, None, layer, units, time, batch)

    def to_json(self) -> str:
        """The control as small JSON."""
        return json.dumps([rule.to_data() for rule in self.rules])

    @staticmethod
    def from_json(text: str) -> Control:
        """The control that `to_json` wrote.

        Raises:
            DataError: if `text` is not such a document.
        """
        data = _load(text, "the control")
        if not isinstance(data, list):
            raise DataError(f"a control is a JSON list of rules, found {type(data).__name__}")
        control = Control()
        for entry in data:
            control |= _load_rule(entry)
        return control


_FIXED = {"on": 1.0, "off": 0.0}


def _load_rule(data: Any) -> Control:
    if not isinstance(data, dict) or not set(data) <= {"op", "name", "value", *_PLACES}:
        raise DataError(
            f"a rule of a control has op, name, value, layer, units, time, batch: {data}"
        )
    op, name, value = data.get("op"), data.get("name"), data.get("value")
    if op not in (*MEMORY, *_FIXED, *_VALUES):
        known = ", ".join((*MEMORY, *_FIXED, *_VALUES))
        raise DataError(f"unknown op {op!r} in a control: expected one of {known}")
    if (name is None) != (op in MEMORY) or (value is None) == (op in _VALUES):
        raise DataError(f"the rule {data} of a control has a name or value too many or too few")
    if isinstance(value, list):
        with _as_data_error("a control's value is a number or nested lists"):
            # In double precision: each run rounds it to its own, so nothing is rounded twice.
            value = torch.tensor(value, dtype=torch.float64)
    places = [load(k, data.get(k)) for k in _PLACES]
    with _as_data_error(f"the rule {data} of a control"):
        return _control(str(op), name, value, *places)  # type: ignore[arg-type]


# --- Record ---------------------------------------------------------------------------------------


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
            times (n,) or (n, B))``, or a folder that gets ``<path>/<first time>.npy``.
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

    @staticmethod
    def from_json(text: str) -> Record:
        """The request that `to_json` wrote.

        Raises:
            DataError: if `text` is not such a document.
        """
        data = _load(text, "the record")
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
        with _as_data_error("the record"):
            return Record(*names, every=every, time=time, units=units, grad=grad)  # type: ignore[arg-type]


class Records(dict[str, Tensor]):
    """What was recorded: path -> (T', B, U), and the times of its rows.

    Args:
        values: path -> tensor.
        times: (T',), or (T', B) where each column began at its own time. A row is there where any
            column's time was asked for; padding is 0.
    """

    def __init__(self, values: Mapping[str, Tensor], times: Tensor) -> None:
        super().__init__(values)
        self.times = times

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

    @staticmethod
    def from_json(text: str) -> Records:
        """The records that `to_json` wrote.

        Raises:
            DataError: if `text` is not such a document.
        """
        data = _load(text, "the records")
        keys = ("values", "shapes", "dtypes")
        if not isinstance(data, dict) or set(data) != {"times", *keys}:
            raise DataError("records are a JSON object with times, values, shapes and dtypes")
        values, shapes, dtypes = (data[key] for key in keys)
        if not all(isinstance(d, dict) and set(d) == set(values) for d in (values, shapes, dtypes)):
            raise DataError("records have values, shapes and dtypes for the same names")
        for dtype in dtypes.values():
            if dtype not in _DTYPES:
                raise DataError(f"unknown dtype {dtype!r} in records: expected one of {_DTYPES}")
        with _as_data_error("the records"):
            return Records(
                {
                    n: torch.tensor(v, dtype=getattr(torch, dtypes[n])).reshape(shapes[n])
                    for n, v in values.items()
                },
                torch.tensor(data["times"], dtype=torch.int64),
            )


_DTYPES = ("float32", "float64", "float16", "bfloat16", "bool")


# --- Controls of code that cannot be changed ------------------------------------------------------

_ACTIVE: ContextVar[tuple[tuple[object, Control], ...]] = ContextVar("controls", default=())


@contextmanager
def controlled(owners: Sequence[object], control: Control) -> Iterator[None]:
    """Within the block, `control` acts in every call of `owners`, before their own controls.

    It belongs to the thread (or asyncio task) that entered the block.
    """
    if not isinstance(control, Control):
        raise OptionError(f"controlled takes a Control: found {type(control).__name__}")
    # The owners themselves, not their ids: an id is given again once its owner is gone.
    token = _ACTIVE.set((*_ACTIVE.get(), *((owner, control) for owner in owners)))
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def active_control(owner: object, control: Control | None) -> Control | None:
    """The controls that hold for one call of `owner`: of the open blocks, then its own."""
    active = _ACTIVE.get()
    if not active:
        return control
    rules = [r for other, c in active if other is owner for r in c.rules]
    if control is not None:
        rules += control.rules
    return Control(tuple(rules)) if rules else None
