"""What may differ between a stored run and the options it is continued with."""

from __future__ import annotations

from typing import Any

from gatewise.errors import OptionError


def compare(stored: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Lines about options that differ from those that a run was begun with.

    Raises:
        OptionError: if model, batches or data are others: no run can go on with those.
    """
    for part in ("mapping", "model", "streams", "batches", "data"):
        if stored.get(part) != found.get(part):
            was, now = _first_difference(part, stored.get(part), found.get(part))
            why = " (another text, or another --tokenizer)" if "vocab_size" in was else ""
            raise OptionError(
                f"the run was begun with {was}, found {now}{why}: resume it with the same, "
                "or begin another with a new --out"
            )
    old, new = stored.get("training", {}), found["training"]
    for name in ("optimizer", "schedule"):
        if old.get(name) != new[name]:
            raise OptionError(
                f"--{name}: the run was begun with {old.get(name)}, found {new[name]}: "
                "resume it with the same, or begin another with a new --out"
            )
    return [
        f"--{name.replace('_', '-')}: {old[name]} before, now {new[name]}"
        for name in new
        if name in old and old[name] != new[name] and name not in _FREE
    ]


# what may change without changing a step
_FREE = frozenset(
    [
        "epochs",
        "minutes",
        "steps",
        "checkpoint_every",
        "checkpoint_seconds",
        "keep",
        "log_every",
        "sample_every",
        "tensorboard",
        "max_skips",
    ]
)


def _first_difference(part: str, stored: Any, found: Any) -> tuple[str, str]:
    if isinstance(stored, dict) and isinstance(found, dict):
        for name in [*found, *stored]:
            if stored.get(name) != found.get(name):
                return (
                    f"{part} {name} {stored.get(name, 'none')}",
                    f"{found.get(name, 'none')}",
                )
    return f"{part} {stored}", f"{found}"
