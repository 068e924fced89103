"""Control: what to set inside a net, as data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError, ShapeError, UsageError
from gatewise.places import Places, as_places, count, dump, load
from gatewise.probe.documents import as_data_error, read_json
from gatewise.types import Index

MEMORY = ("keep", "reset", "write")
FIXED = {"on": 1.0, "off": 0.0}
"""What these operations set."""
_VALUES = ("set", "scale", "add", "patch")


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

    def _repr_html_(self) -> str:
        from gatewise.probe.showing import Act, control_html

        return control_html(Act(*vars(rule).values()) for rule in self.rules)

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
            DataError: if `text` is not such a document, or a value in it is not finite.
        """
        data = read_json(text, "the control")
        if not isinstance(data, list):
            raise DataError(f"a control is a JSON list of rules, found {type(data).__name__}")
        control = Control()
        for entry in data:
            control |= _load_rule(entry)
        return control


def _load_rule(data: Any) -> Control:
    if not isinstance(data, dict) or not set(data) <= {"op", "name", "value", *_PLACES}:
        raise DataError(
            f"a rule of a control has op, name, value, layer, units, time, batch: {data}"
        )
    op, name, value = data.get("op"), data.get("name"), data.get("value")
    if op not in (*MEMORY, *FIXED, *_VALUES):
        known = ", ".join((*MEMORY, *FIXED, *_VALUES))
        raise DataError(f"unknown op {op!r} in a control: expected one of {known}")
    if (name is None) != (op in MEMORY) or (value is None) == (op in _VALUES):
        raise DataError(f"the rule {data} of a control has a name or value too many or too few")
    if isinstance(value, list):
        with as_data_error("a control's value is a number or nested lists"):
            # In double precision: each run rounds it to its own, so nothing is rounded twice.
            value = torch.tensor(value, dtype=torch.float64)
    places = [load(k, data.get(k)) for k in _PLACES]
    with as_data_error(f"the rule {data} of a control"):
        made = _control(str(op), name, value, *places)  # type: ignore[arg-type]
    given = made.rules[0].value
    if given is not None and not torch.as_tensor(given).isfinite().all():
        raise DataError(
            f"expected finite numbers as the value of {op} {name}, found NaN or infinity"
        )
    return made
