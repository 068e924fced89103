"""A state dict as named tensors and JSON, so that it can be stored without pickle."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gatewise.errors import CheckpointError

_TENSOR, _TUPLE, _INTEGERS = "__tensor__", "__tuple__", "__integers__"


def split_state(state: Any, prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """The tensors of a nested state by path, and the rest as JSON values that name them.

    Args:
        state: dicts (keys all strings or all integers), lists, tuples, tensors and JSON scalars, as
            `optimizer.state_dict()` returns; floats survive JSON exactly.
        prefix: put before each path.
    Returns:
        tensors by path (not copied), and what `join_state` rebuilds the state from.
    """
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = value
            return {_TENSOR: path}
        if isinstance(value, dict):
            inside = {str(k): walk(v, f"{path}.{k}" if path else str(k)) for k, v in value.items()}
            integers = bool(value) and all(isinstance(k, int) for k in value)
            return {_INTEGERS: inside} if integers else inside
        if isinstance(value, (list, tuple)):
            items = [walk(v, f"{path}.{i}" if path else str(i)) for i, v in enumerate(value)]
            return {_TUPLE: items} if isinstance(value, tuple) else items
        return value

    return tensors, walk(state, prefix)


def join_state(tensors: dict[str, Tensor], meta: Any) -> Any:
    """The state that `split_state` took apart.

    Raises:
        CheckpointError: if a tensor it names is missing.
    """
    if isinstance(meta, list):
        return [join_state(tensors, v) for v in meta]
    if not isinstance(meta, dict):
        return meta
    if _TENSOR in meta:
        if meta[_TENSOR] not in tensors:
            raise CheckpointError(f"training state: tensor {meta[_TENSOR]!r} is missing")
        return tensors[meta[_TENSOR]]
    if _TUPLE in meta:
        return tuple(join_state(tensors, v) for v in meta[_TUPLE])
    if _INTEGERS in meta:
        return {int(k): join_state(tensors, v) for k, v in meta[_INTEGERS].items()}
    return {k: join_state(tensors, v) for k, v in meta.items()}
