"""Where gatewise keeps what it can make again. Knows the environment; nothing of what is kept."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """The user's cache folder for gatewise: $XDG_CACHE_HOME/gatewise or ~/.cache/gatewise."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "gatewise"
