"""How weights and activations lie in memory, in each of the four kinds of numbers. Knows shapes only.

A **panel** is one register of units (16 where registers are 64 bytes wide) with all blocks of the weight
(the gates): what a thread reads from its beginning to its end. Where there are more than four blocks a panel
has several passes, one after the other. Along k, weights lie in the order in which they are used.

An **activation row** is what a panel is multiplied with: a vector that was converted once for all panels.
For 8 and 4 bits weights are stored with an offset (128 or 8) that makes them unsigned, and the row begins with
its scale and what takes the offset away again:

=========  ======================  ==========================================================
numbers    weight                  activation row
=========  ======================  ==========================================================
float32    float32                 float32
bfloat16   bfloat16, pairs of k    bfloat16
int8       uint8, fours of k       64 bytes: scale, -128 sum(q); then int8
int4       nibbles, groups of 64   64 bytes: scale; -8 sum(q) of each group; then int8
=========  ======================  ==========================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.errors import EngineError

LINE = 64
"""Bytes of a cache line: every row and panel begins on one."""

GROUP = 64
"""Weights along k that share a scale in int4."""


@dataclass(frozen=True)
class Format:
    """A kind of numbers for weights.

    Args:
        name: "float32", "bfloat16", "int8" or "int4".
        turn: how many k one turn of the product's loop takes; k is padded to whole turns.
        bits: of a weight.
    """

    name: str
    turn: int
    bits: int

    def depth(self, k: int) -> int:
        """k rounded up to whole turns."""
        return -(-k // self.turn) * self.turn

    def header(self, k: int) -> int:
        """Bytes before the numbers of an activation row."""
        if self.name == "int8":
            return LINE
        return LINE + _lines(4 * self.depth(k) // GROUP) if self.name == "int4" else 0

    def row_bytes(self, k: int) -> int:
        """Bytes of an activation row."""
        size = {"float32": 4, "bfloat16": 2}.get(self.name, 1)
        return self.header(k) + _lines(size * self.depth(k))

    def panel_bytes(self, k: int, blocks: int, lanes: int) -> int:
        """Bytes of a panel."""
        return sum(self.pass_bytes(k, v, lanes) for v in passes(blocks))

    def pass_bytes(self, k: int, vectors: int, lanes: int) -> int:
        """Bytes of one pass of a panel."""
        units, depth = vectors * lanes, self.depth(k)
        if self.name == "int4":
            return depth // GROUP * (_lines(2 * units) + units * GROUP // 2)
        scales = _lines(4 * units) if self.name == "int8" else 0
        return scales + _lines(depth * units * self.bits // 8)


FORMATS = {
    "float32": Format("float32", 16, 32),
    "bfloat16": Format("bfloat16", 16, 16),
    "int8": Format("int8", 16, 8),
    "int4": Format("int4", GROUP, 4),
}
"""Every kind of numbers, the most exact first."""


def _lines(size: int) -> int:
    return -(-size // LINE) * LINE


def passes(blocks: int) -> list[int]:
    """How many registers of a row each pass over a panel computes: four at most, nearly equal."""
    count = -(-blocks // 4)
    return [(blocks * (i + 1)) // count - (blocks * i) // count for i in range(count)]


@dataclass(frozen=True, eq=False)
class Quantised:
    """A matrix (rows, k) as whole numbers and scales.

    Args:
        numbers: (rows, k) int8; -127 to 127, or -8 to 7.
        scales: (rows, 1) float32, or (rows, groups) bfloat16: what a number is multiplied with.
    """

    numbers: Tensor
    scales: Tensor

    def dense(self) -> Tensor:
        """The matrix that they stand for, float32."""
        k, groups = self.numbers.shape[1], self.scales.shape[1]
        scales = self.scales.float()
        if groups > 1 or self.scales.dtype == torch.bfloat16:
            scales = scales.repeat_interleave(GROUP, 1)[:, :k]
        return self.numbers.float() * scales


def quantise(weight: Tensor, form: Format) -> Quantised:
    """The nearest whole numbers under the scales that lose least; int8 or int4.

    Raises:
        EngineError: if a weight is not finite: no whole number stands for it.
    """
    weight = weight.detach().float()
    if not bool(weight.isfinite().all()):
        raise EngineError(
            f"expected finite weights to store as {form.name}, found NaN or infinity: "
            "the model has diverged; take an earlier checkpoint"
        )
    return _quantise8(weight) if form.name == "int8" else _quantise4(weight)


def _quantise8(weight: Tensor) -> Quantised:
    scales = weight.abs().amax(1, keepdim=True) / 127
    scales = torch.where(scales > 0, scales, 1.0)
    return Quantised((weight / scales).round_().to(torch.int8), scales)


def _quantise4(weight: Tensor) -> Quantised:
    """Of some scales near the largest weight's, the one with the least squared error."""
    rows, k = weight.shape
    groups = F.pad(weight, (0, -k % GROUP)).reshape(rows, -1, GROUP)
    place = groups.abs().argmax(-1, keepdim=True)
    largest = groups.gather(-1, place)
    best, chosen = torch.full_like(largest, torch.inf), torch.ones_like(largest)
    for share in torch.linspace(5.6, 8.4, 15).tolist():
        scale = _as_bfloat16(largest / -share)
        error = (_numbers4(groups, scale) * scale - groups).square().sum(-1, keepdim=True)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, scale, chosen)
    numbers = _numbers4(groups, chosen).to(torch.int8)
    return Quantised(
        numbers.reshape(rows, -1)[:, :k].contiguous(), chosen.squeeze(-1).to(torch.bfloat16)
    )


def _as_bfloat16(scale: Tensor) -> Tensor:
    """Scales that are stored exactly, and not 0."""
    rounded = scale.to(torch.bfloat16).float()
    return torch.where(rounded == 0, 1.0, rounded)


def _numbers4(groups: Tensor, scale: Tensor) -> Tensor:
    return (groups / scale).round_().clamp_(-8, 7)


def pack(weight: Tensor | Quantised, blocks: int, form: Format, lanes: int) -> Tensor:
    """(blocks H, k) as panels, (H / lanes, bytes) uint8.

    Args:
        weight: the matrix; where it is not yet of whole numbers they are found first.
        blocks: how many blocks of rows it has, one register each in a panel.
        form: kind of numbers.
        lanes: units of a register.
    """
    if form.bits < 16 and isinstance(weight, Tensor):
        weight = quantise(weight, form)
    if isinstance(weight, Quantised):
        numbers = _units(weight.numbers, blocks, lanes, form)
        scales = _units(weight.scales, blocks, lanes, None)
        pack_pass = _pack8 if form.name == "int8" else _pack4
        parts = [pack_pass(numbers[s], scales[s]) for s in _slices(blocks)]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]
    dtype = torch.float32 if form.name == "float32" else torch.bfloat16
    dense = _units(weight.detach().to(dtype), blocks, lanes, form)
    parts = [_pack_real(dense[s]) for s in _slices(blocks)]
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def _slices(blocks: int) -> list[slice]:
    found, done = [], 0
    for count in passes(blocks):
        found.append(slice(done, done + count))
        done += count
    return found


def _units(weight: Tensor, blocks: int, lanes: int, form: Format | None) -> Tensor:
    """(blocks H, k) as (blocks, panels, lanes, depth), zeros where nothing was."""
    rows, k = weight.shape
    depth = k if form is None else form.depth(k)
    units = rows // blocks
    new = weight.new_zeros(blocks, -(-units // lanes) * lanes, depth)
    new[:, :units, :k] = weight.reshape(blocks, units, k)
    return new.reshape(blocks, -1, lanes, depth)


def _bytes(value: Tensor) -> Tensor:
    """(panels, ...) as (panels, bytes)."""
    return value.contiguous().flatten(1).view(torch.uint8)


def _pack_real(part: Tensor) -> Tensor:
    """(V, panels, lanes, depth): k, block, unit; bfloat16: pairs of k within a unit."""
    vectors, panels, lanes, depth = part.shape
    if part.dtype == torch.float32:
        return _bytes(part.permute(1, 3, 0, 2))
    pairs = part.reshape(vectors, panels, lanes, depth // 2, 2)
    return _bytes(pairs.permute(1, 3, 0, 2, 4))


def _pack8(part: Tensor, scales: Tensor) -> Tensor:
    """Scales (float32) first, then fours of k within a unit."""
    vectors, panels, lanes, depth = part.shape
    fours = (part.to(torch.int16) + 128).to(torch.uint8)
    fours = fours.reshape(vectors, panels, lanes, depth // 4, 4)
    heads = _bytes(scales.permute(1, 0, 2, 3))
    heads = F.pad(heads, (0, -heads.shape[1] % LINE))
    return torch.cat([heads, _bytes(fours.permute(1, 3, 0, 2, 4))], 1)


def _pack4(part: Tensor, scales: Tensor) -> Tensor:
    """For each group its scales (bfloat16), then bytes whose low and high halves are 32 k apart."""
    vectors, panels, lanes, depth = part.shape
    nibbles = (part.to(torch.int16) + 8).to(torch.uint8)
    halves = nibbles.reshape(vectors, panels, lanes, depth // GROUP, 2, GROUP // 2)
    both = halves[..., 0, :] | (halves[..., 1, :] << 4)
    fours = both.reshape(vectors, panels, lanes, depth // GROUP, GROUP // 8, 4)
    body = fours.permute(1, 3, 4, 0, 2, 5).reshape(panels, depth // GROUP, -1)
    heads = scales.permute(1, 3, 0, 2).contiguous().flatten(2).view(torch.uint8)
    heads = F.pad(heads, (0, -heads.shape[2] % LINE))
    return torch.cat([heads, body], 2).flatten(1)
