"""Tensors in safetensors files: written without a second copy, read with every claim checked.

The layout is that of safetensors (an 8-byte length, a JSON header, the data), and the library reads
what is written here. It is not used itself because it would copy all tensors before they can be
summed, and because it trusts a header more than a file from elsewhere deserves.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gatewise.checkpoint import strict_json
from gatewise.checkpoint.disk import (
    CHUNK,
    Buffer,
    Digest,
    UnusableFileError,
    memory_size,
    open_plain,
    read_exactly,
    refuse_holes,
)

MAX_HEADER = 1 << 20  # bytes; some 8,000 tensors
MAX_DIMENSIONS = 16
_METADATA = "__metadata__"
_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class TensorFileError(ValueError):
    """Tensors that cannot be stored, or a file that is no honest safetensors file."""


class Span(NamedTuple):
    """Where a tensor lies in the data: bytes begin to end."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def encode(tensors: Mapping[str, Tensor]) -> Iterator[Buffer]:
    """The bytes of a safetensors file, piece by piece; on the CPU they are the tensors' own memory.

    A tensor that stands under two names (tied weights) is stored once; the second name is kept in
    the metadata, as other writers do.

    Raises:
        TensorFileError: a tensor that the format cannot hold.
    """
    shared, own = _split_shared(tensors)
    order = sorted(own, key=lambda name: (-own[name].element_size(), name))
    header: dict[str, Any] = {_METADATA: {"format": "pt", **shared}}
    begin = 0
    for name in order:
        end = begin + own[name].numel() * own[name].element_size()
        header[name] = {
            "dtype": _NAMES[own[name].dtype],
            "shape": list(own[name].shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = strict_json.dumps(header, indent=None)
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise TensorFileError(f"{len(own)} tensors need a header of {len(text)} bytes")
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        if own[name].numel():
            yield _bytes(own[name])


def _split_shared(tensors: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, Tensor]]:
    shared: dict[str, str] = {}
    own: dict[str, Tensor] = {}
    first: dict[Any, str] = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            raise TensorFileError(f"{name!r} is not a tensor with its own values in memory")
        if tensor.dtype not in _NAMES:
            raise TensorFileError(f"{name!r} is {tensor.dtype}, which safetensors cannot hold")
        if not name or name in (_METADATA, "format"):
            raise TensorFileError(f"{name!r} cannot be the name of a tensor")
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        conjugated = tensor.is_conj() or tensor.is_neg()
        if tensor.numel() and not conjugated and first.setdefault(place, name) != name:
            shared[name] = first[place]
        else:
            own[name] = tensor
    return shared, own


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data)


def read_tensors(path: Path, expected: Digest) -> dict[str, Tensor]:
    """The tensors of a file whose size and sum are `expected`; they share one block of memory.

    The header is checked against the size of the file before anything of that size is allocated.

    Raises:
        TensorFileError, UnusableFileError: the file is not what the manifest and its header claim.
        OSError: it cannot be read.
    """
    descriptor, found = open_plain(path)
    try:
        if found.st_size != expected.size:
            raise TensorFileError(
                f"expected {expected.size} bytes, found {found.st_size}: damaged or half-written"
            )
        refuse_holes(descriptor, found.st_size)
        memory = memory_size()
        if memory is not None and found.st_size > memory:
            raise UnusableFileError(
                f"needs {found.st_size} bytes of memory, this machine has {memory}"
            )
        header, begin, total = _read_header(descriptor, found.st_size)
        spans, shared = check_header(header, found.st_size - begin)
        data = _allocate(found.st_size - begin)
        _fill(descriptor, data, total)
    finally:
        os.close(descriptor)
    if total.hexdigest() != expected.sha256:
        raise TensorFileError("the SHA-256 differs from the manifest: damaged")
    tensors = {name: _view(data, span) for name, span in spans.items()}
    return tensors | {name: tensors[other] for name, other in shared.items()}


def _read_header(descriptor: int, size: int) -> tuple[bytes, int, Any]:
    total = hashlib.sha256()
    prefix = read_exactly(descriptor, 8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > size - 8:
        raise TensorFileError(f"the header claims {length} bytes in a file of {size}")
    if length > MAX_HEADER:
        raise TensorFileError(f"the header is {length} bytes, at most {MAX_HEADER} are expected")
    header = read_exactly(descriptor, length)
    total.update(prefix)
    total.update(header)
    return header, 8 + length, total


def _allocate(size: int) -> Tensor:
    try:
        return torch.empty(size, dtype=torch.uint8)
    except RuntimeError:  # what torch raises where Python has MemoryError
        raise UnusableFileError(f"needs {size} bytes of memory, which are not free") from None


def _fill(descriptor: int, data: Tensor, total: Any) -> None:
    view = memoryview(data.numpy().data)
    file = io.FileIO(descriptor, closefd=False)
    done = 0
    while done < len(view):
        count = file.readinto(view[done : done + CHUNK])
        if not count:
            raise TensorFileError(f"the file ends {len(view) - done} bytes early")
        total.update(view[done : done + count])
        done += count


def check_header(header: bytes, data_size: int) -> tuple[dict[str, Span], dict[str, str]]:
    """Where each tensor lies, and the second names, from a header that describes `data_size` bytes.

    Raises:
        TensorFileError: unknown dtypes, shapes that do not fit their bytes, tensors that overlap,
            leave gaps or end elsewhere than the data, or anything of another type than expected.
    """
    try:
        entries = strict_json.loads_object(header)
    except strict_json.JsonError as error:
        raise TensorFileError(f"the header is {error}") from None
    metadata = entries.pop(_METADATA, {})
    spans = {name: _span(name, entry) for name, entry in entries.items()}
    position = 0
    for name, span in sorted(spans.items(), key=lambda item: (item[1].begin, item[1].end)):
        if span.begin != position:
            kind = "overlaps the one before it" if span.begin < position else "leaves a gap"
            raise TensorFileError(f"tensor {name[:80]!r} {kind}")
        position = span.end
    if position != data_size:
        raise TensorFileError(f"the tensors end at byte {position} of {data_size}")
    return spans, _shared(metadata, spans)


def _span(name: str, entry: object) -> Span:
    fault = TensorFileError(f"tensor {name[:80]!r} is described wrongly")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise fault
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise TensorFileError(f"tensor {name[:80]!r} has the unknown dtype {str(dtype)[:20]!r}")
    if not _is_naturals(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise fault
    if not _is_naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise fault
    count = strides = 1
    for size in shape:
        count, strides = count * size, strides * max(size, 1)
    if count * _DTYPES[dtype].itemsize != offsets[1] - offsets[0] or strides >= 1 << 60:
        raise TensorFileError(
            f"tensor {name[:80]!r} of shape {str(shape)[:80]} does not fit "
            f"its {offsets[1] - offsets[0]} bytes"
        )
    return Span(_DTYPES[dtype], tuple(shape), offsets[0], offsets[1])


def _is_naturals(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 62 for item in value
    )


def _shared(metadata: object, spans: Mapping[str, Span]) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise TensorFileError("the metadata is not a table of strings")
    return {
        name: other
        for name, other in metadata.items()
        if name != "format" and name not in spans and other in spans
    }


def _view(data: Tensor, span: Span) -> Tensor:
    piece = data[span.begin : span.end]
    if span.begin % span.dtype.itemsize:  # other writers may not align
        piece = piece.clone()
    if span.begin == span.end:
        return torch.empty(span.shape, dtype=span.dtype)
    return piece.view(span.dtype).reshape(span.shape)
