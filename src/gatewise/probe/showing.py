"""How records and controls show themselves in a notebook. It knows their data, not their classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from gatewise.display import Markup, block, escape, heat_map, number, places, table
from gatewise.places import Places

_ROWS = 100
_MAPS = 12
"""Values that get a map; the others are in the table."""
_SAMPLED = 1 << 22
"""Numbers from which on steps are left out of a map and of the figures."""
_CLOSED, _OPEN = 0.1, 0.9
"""Of a gate (Karpathy, Johnson & Li 2015, section 4.2)."""


def record_html(
    names: Iterable[str], every: int, time: Places, units: Places, grad: bool, to: object
) -> Markup:
    """What is to be read, where; the arguments are the attributes of a Record."""
    rows = [["names", ", ".join(names) or "nothing"]]
    rows += [[k, _where(at)] for k, at in (("times", time), ("units", units)) if at is not None]
    if every > 1:
        rows.append(["every", f"{every:,} steps"])
    if grad:
        rows.append(["gradients", "the graph is kept"])
    if to is not None:
        rows.append(["goes to", "a function" if callable(to) else str(to)])
    return block("Record", table((), rows))


def records_html(
    records: Mapping[str, Tensor], times: Tensor, own_times: Mapping[str, Tensor]
) -> Markup:
    """A table of what was recorded, and maps of it: units down, time across."""
    if not records:
        return block("Records", "nothing was recorded")
    listed = list(records.items())
    rows = [[name, *_figures(value)] for name, value in listed[:_ROWS]]
    head = ["name", "shape", "mean", "least", "most", "below .1", "above .9", "not finite"]
    parts: list[Markup | str] = [table(head, rows, len(listed) - len(rows))]
    for name, value in listed[:_MAPS]:
        parts.append(_map(name, value, own_times.get(name, times)))
    if len(records) > _MAPS:
        parts.append(f"maps of the first {_MAPS} of {len(records):,}")
    return block(f"Records of {_steps(times)}", *parts)


def _figures(value: Tensor) -> list[str | float | None]:
    """Shape, mean, least, most, and of what lies from 0 to 1 the shares that are closed and open."""
    shape = " \u00d7 ".join(f"{size:,}" for size in value.shape)
    seen = _sample(value).double()
    finite = seen[seen.isfinite()]
    strange = f"{1 - finite.numel() / seen.numel():.1%}" if finite.numel() < seen.numel() else None
    if not finite.numel():
        return [shape, None, None, None, None, None, strange]
    least, most = float(finite.min()), float(finite.max())
    shares: list[str | None] = [None, None]
    if least >= 0 and most <= 1:
        closed, opened = (finite < _CLOSED).double().mean(), (finite > _OPEN).double().mean()
        shares = [f"{float(share):.1%}" for share in (closed, opened)]
    return [shape, float(finite.mean()), least, most, *shares, strange]


def _sample(value: Tensor) -> Tensor:
    """Every so manieth step of a value that is too large to look at whole, on the CPU."""
    step = max(1, value.numel() // _SAMPLED)
    return value.detach()[::step].cpu()


def _map(name: str, value: Tensor, times: Tensor) -> Markup:
    if value.ndim != 3 or not value.numel():
        return Markup()
    step = max(1, value[:, 0].numel() // _SAMPLED)
    shown = value.detach()[::step, 0].double().cpu().numpy().T
    columns = f", column 0 of {value.shape[1]:,}" if value.shape[1] > 1 else ""
    title = f"{name}: {value.shape[2]:,} units down, {_steps(times)} across{columns}"
    return Markup(f"<p>{escape(title)}<br/>{heat_map(shown, title)}</p>")


def _steps(times: Tensor) -> str:
    """`31 steps, times 0 to 30`."""
    count = len(times)
    if not times.numel():
        return "0 steps"
    first, last = int(times.min()), int(times.max())
    return f"{count:,} steps, times {first:,} to {last:,}"


class Act(NamedTuple):
    """One rule of a control."""

    op: str
    name: str | None
    value: float | Tensor | None
    layer: Places
    units: Places
    time: Places
    batch: Places


def control_html(acts: Iterable[Act]) -> Markup:
    """A table of what is set, and where; a later row sees the result of those above it."""
    rows = [[_what(act), *(_where(place) for place in act[3:])] for act in acts]
    if not rows:
        return block("Control", "nothing is set")
    return block("Control", table(["what", "layers", "units", "times", "columns"], rows))


_SIGNS = {"set": "=", "patch": "=", "scale": "\u00d7", "add": "+"}


def _what(rule: Act) -> str:
    if rule.name is None:
        return f"memory {rule.op}"
    if rule.op in ("on", "off"):
        return f"{rule.name} = {1 if rule.op == 'on' else 0}"
    return f"{rule.name} {_SIGNS[rule.op]} {_value(rule.value)}"


def _value(value: float | Tensor | None) -> str:
    if isinstance(value, Tensor):
        if value.numel() == 1:
            return number(float(value))
        size = " \u00d7 ".join(f"{one:,}" for one in value.shape)
        return f"a tensor {size}, mean {number(float(value.detach().double().mean()))}"
    return number(0.0 if value is None else value)


def _where(place: Places) -> str:
    """`all`, `3`, `0 to 9`, `from 10 on, every 2`."""
    if place is None:
        return "all"
    if not isinstance(place, slice):
        return places(sorted(place))
    start, step = place.start or 0, place.step or 1
    every = f", every {step:,}" if step > 1 else ""
    if place.stop is None:
        return f"from {start:,} on{every}" if start or step > 1 else "all"
    if place.stop <= start:
        return "none"
    if place.stop == start + 1:
        return f"{start:,}"
    return f"{start:,} to {place.stop - 1:,}{every}"
