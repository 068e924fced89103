"""Which engine runs a plan: the first in a fixed order that can. The choice is visible."""

from __future__ import annotations

import logging
import sys
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from gatewise.engine.base import Engine, Plan
from gatewise.engine.closed import ClosedEngine
from gatewise.engine.cpu.engine import CompiledEngine
from gatewise.engine.cuda.engine import CudaEngine
from gatewise.engine.reference import ReferenceEngine
from gatewise.engine.scan import ScanEngine
from gatewise.errors import EngineError, EngineWarning, unknown

_LOG = logging.getLogger("gatewise.engine")
_SAID: set[tuple[str, str]] = set()

_CUDA = CudaEngine()

ORDER: tuple[Engine, ...] = (
    ClosedEngine(_CUDA),
    CompiledEngine(),
    _CUDA,
    ScanEngine(),
    ReferenceEngine(),
)
"""Every engine, the preferred first."""


@dataclass(frozen=True)
class EngineInfo:
    """One engine: its name, what it is, and whether it can run on this machine."""

    name: str
    summary: str
    available: bool
    reason: str

    def __str__(self) -> str:
        state = "available" if self.available else f"not available: {self.reason}"
        return f"{self.name}: {self.summary} ({state})"


def engines() -> tuple[EngineInfo, ...]:
    """Every engine in the order of preference, whether it can run here, and if not why.

    An engine may leave what another was measured to run faster to that one: `closed` leaves large training
    runs to `compiled` on some processors, and LSTMs and GRUs in 16 bits to `cuda` on a card.

    >>> [e.name for e in engines()]
    ['closed', 'compiled', 'cuda', 'scan', 'reference']
    """
    found = ((e, e.available()) for e in ORDER)
    return tuple(EngineInfo(e.name, e.summary, why is None, why or "") for e, why in found)


def choose(plan: Plan, x: Tensor, engine: str = "auto") -> Engine:
    """The engine for a plan.

    Args:
        plan: what to run.
        x: the input, (T, B, I).
        engine: a name, or "auto": the first in the order that honours the plan.
    Raises:
        UnknownNameError: if there is no such engine.
        EngineError: if the named engine cannot honour the plan; the message says why.
    """
    if engine == "auto":
        return _first(plan, x)
    check_engine(engine)
    named = next(e for e in ORDER if e.name == engine)
    why = named.available() or named.refusal(plan, x)
    if why is not None:
        raise EngineError(f"engine {engine} cannot run this: {why}; use engine='auto'")
    return named


def check_engine(name: str) -> None:
    """Raise UnknownNameError unless `name` is "auto" or an engine's."""
    names = ["auto", *(e.name for e in ORDER)]
    if name not in names:
        raise unknown("engine", name, names)


def _first(plan: Plan, x: Tensor) -> Engine:
    reasons: list[str] = []
    for candidate in ORDER:
        why = candidate.available() or candidate.refusal(plan, x) or candidate.reluctance(plan, x)
        if why is None:
            _say(candidate.name, "; ".join(reasons) or "the fastest that can run this")
            if candidate is ORDER[-1]:
                _warn(plan, x)
            return candidate
        reasons.append(f"not {candidate.name}, because {why}")
    raise EngineError(f"no engine can run this: {'; '.join(reasons)}")


def _say(name: str, reason: str) -> None:
    """One log line for each new choice."""
    if (name, reason) not in _SAID:
        _SAID.add((name, reason))
        _LOG.info("engine %s: %s", name, reason)


_LARGE = 1 << 18  # steps x columns x units
_WARNED: set[str] = set()


def _warn(plan: Plan, x: Tensor) -> None:
    """Warn once for each reason why a large run on the CPU falls back to the plain loop.

    Not where a transform of torch is at work: nothing else could run that.
    """
    units = max(d.weights.hidden_size for d in plan.directions)
    if x.device.type != "cpu" or plan.special or x.shape[0] * x.shape[1] * units < _LARGE:
        return
    compiled = next(e for e in ORDER if e.name == "compiled")
    reason = compiled.available() or compiled.refusal(plan, x)
    if reason is not None and reason not in _WARNED:
        _WARNED.add(reason)
        warnings.warn(
            f"a large run goes to the engine reference, a plain loop, several times slower than "
            f"compiled, because {reason}; engine='reference' asks for it without this warning",
            EngineWarning,
            stacklevel=_depth(),
        )


def _depth() -> int:
    """How far up the caller of this package is."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(("gatewise.", "torch.nn.modules")):
            break
        depth, frame = depth + 1, frame.f_back
    return depth


def active_transform() -> str | None:
    """What of torch's transforms is active: closed kernels refuse them."""
    functorch = getattr(torch._C, "_are_functorch_transforms_active", None)
    if functorch is not None and functorch():
        return "torch.func"
    level = getattr(torch.autograd.forward_ad, "_current_level", -1)
    return "forward-mode AD" if level >= 0 else None
