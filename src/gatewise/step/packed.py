"""The packed forms of models, kept beside them, and packed again where the weights have changed since."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from torch import nn

from gatewise.engine.cpu.step.formats import Quantised
from gatewise.mappings.seq_to_seq import LanguageModel
from gatewise.stack import Layers
from gatewise.step.model import StepModel, StepStack
from gatewise.types import version_of

_Version = tuple[tuple[int, int], ...]
_KNOWN: WeakKeyDictionary[nn.Module, dict[str, tuple[_Version, StepModel | StepStack]]] = (
    WeakKeyDictionary()
)
_STORED: WeakKeyDictionary[nn.Module, tuple[str, _Version, Mapping[str, Quantised]]] = (
    WeakKeyDictionary()
)
_LOCK = threading.Lock()


def remember(model: LanguageModel, dtype: str, stored: Mapping[str, Quantised]) -> None:
    """The model's matrices were stored in these whole numbers: they are packed as they are."""
    with _LOCK:
        _STORED[model] = dtype, _version(model), stored


def packed_model(model: LanguageModel, dtype: str) -> StepModel:
    """The language model, packed; errors as of `StepModel`."""
    known = _find(model, dtype)
    if known is None:
        with _LOCK:
            kind, version, stored = _STORED.get(model, ("", (), {}))
        own = stored if kind == dtype and version == _version(model) else None
        known = _keep(model, dtype, StepModel(model, dtype, stored=own))
    assert isinstance(known, StepModel)
    return known


def packed_stack(stack: Layers, dtype: str) -> StepStack:
    """The stack, packed; errors as of `StepStack`."""
    known = _find(stack, dtype)
    if known is None:
        known = _keep(stack, dtype, StepStack(stack, dtype))
    assert isinstance(known, StepStack)
    return known


def _version(model: nn.Module) -> _Version:
    """Changes where a weight is changed in place or replaced; not where that is done behind its back, by `.data`."""
    return tuple((p.data_ptr(), version_of(p)) for p in model.parameters())


def _find(model: nn.Module, dtype: str) -> StepModel | StepStack | None:
    with _LOCK:
        version, packed = _KNOWN.get(model, {}).get(dtype, (None, None))
    return packed if version == _version(model) else None


def _keep(model: nn.Module, dtype: str, packed: StepModel | StepStack) -> StepModel | StepStack:
    with _LOCK:
        _KNOWN.setdefault(model, {})[dtype] = (_version(model), packed)
    return packed
