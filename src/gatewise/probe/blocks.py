"""Controls of code that cannot be changed: blocks in which they act."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

from gatewise.errors import OptionError
from gatewise.probe.control import Control

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
    _count(1)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
        _count(-1)


_OPEN = [0]  # blocks, of all threads: what torch.compile can read; the rest leaves its programs
_COUNTING = Lock()


def _count(change: int) -> None:
    with _COUNTING:
        _OPEN[0] += change


def active_control(owner: object, control: Control | None) -> Control | None:
    """The controls that hold for one call of `owner`: of the open blocks, then its own."""
    if _OPEN[0] == 0:
        return control
    active = _ACTIVE.get()
    if not active:
        return control
    rules = [r for other, c in active if other is owner for r in c.rules]
    if control is not None:
        rules += control.rules
    return Control(tuple(rules)) if rules else None
