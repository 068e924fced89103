"""The arguments of a call to machine code: addresses and numbers by name. Knows tensors; no kernel."""

from __future__ import annotations

from torch import Tensor


class Arguments:
    """Collects the arguments of one call, and keeps what they point to alive."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self._alive: list[Tensor] = []

    def point(self, name: str, tensor: Tensor) -> Tensor:
        """A contiguous tensor."""
        assert tensor.is_contiguous()
        self._alive.append(tensor)
        self.values[name] = tensor.data_ptr()
        return tensor

    def offset(self, name: str, tensor: Tensor, elements: int) -> None:
        """A tensor from one of its numbers on; the address may lie outside it."""
        self._alive.append(tensor)
        self.values[name] = tensor.data_ptr() + elements * tensor.element_size()
