"""The engines: what runs a plan. One file each, one line in `choose`."""

from __future__ import annotations

from gatewise.engine.base import Direction, Engine, Plan, Result
from gatewise.engine.choose import EngineInfo, check_engine, choose, engines

__all__ = [
    "Direction",
    "Engine",
    "EngineInfo",
    "Plan",
    "Result",
    "check_engine",
    "choose",
    "engines",
]
