"""The order of a cell's blocks, stored with its weights: rows in another order would load without a word.

It goes into the metadata that torch keeps beside a state_dict (and saves with it), so that the keys stay
torch.nn's. Weights that come without it, from torch.nn for instance, are taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_KEYS = ("blocks", "recurrent_blocks")


def note_order(
    destination: Any, prefix: str, blocks: Sequence[str], recurrent: Sequence[str]
) -> None:
    """Write the row blocks of weight_ih and of weight_hh into the metadata of a state_dict."""
    metadata = getattr(destination, "_metadata", None)
    if metadata is not None:
        own = metadata.setdefault(prefix[:-1], {})
        own |= dict(zip(_KEYS, (list(blocks), list(recurrent)), strict=True))


def check_order(
    noted: Mapping[str, Any],
    prefix: str,
    blocks: Sequence[str],
    recurrent: Sequence[str],
    faults: list[str],
) -> None:
    """Add to `faults` what torch is to say where the weights' blocks stand in another order."""
    for key, expected in zip(_KEYS, (blocks, recurrent), strict=True):
        found = noted.get(key)
        if found is not None and list(found) != list(expected):
            faults.append(
                f"{prefix[:-1] or 'the cell'}: expected weights with the {key.replace('_', ' ')} "
                f"{', '.join(expected) or 'none'}, in this order; found {', '.join(found) or 'none'}: "
                "name them in the equations in the order of the weights, or train anew."
            )
            return
