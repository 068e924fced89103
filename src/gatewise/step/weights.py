"""A stack and its decoder as the step kernels read them: packed once, shared by all sessions.

What does not change from call to call stands here: the packed tensors, and the numbers that say how they lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from gatewise.engine.base import Direction
from gatewise.engine.cpu.layout import Layout, Variant
from gatewise.engine.cpu.step.formats import Format, Quantised, pack, passes, quantise
from gatewise.engine.cpu.step.linear import WIDE
from gatewise.engine.cpu.step.tiles import Target
from gatewise.step.memory import settled

_TABLE_ROWS = 1024  # of the embedding, at once


@dataclass(eq=False)
class Part:
    """The arguments of one function of the kernel: tensors by name, and numbers."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def values(self) -> dict[str, int]:
        """Name -> number or address."""
        return {**{n: t.data_ptr() for n, t in self.tensors.items()}, **self.numbers}

    def bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())


def padded(units: int, lanes: int) -> int:
    """Units rounded up to whole registers."""
    return -(-units // lanes) * lanes


def rows_of(name: str, k: int, form: Format) -> dict[str, int]:
    """How activation rows of k numbers lie."""
    return {
        f"k:{name}": k,
        f"depth:{name}": form.depth(k),
        f"turns:{name}": form.depth(k) // form.turn,
        f"header:{name}": form.header(k),
        f"bytes:{name}": form.row_bytes(k),
    }


def _passes(name: str, k: int, blocks: int, form: Format, lanes: int) -> dict[str, int]:
    return {f"pass{i}:{name}": form.pass_bytes(k, v, lanes) for i, v in enumerate(passes(blocks))}


def layer_part(
    direction: Direction,
    form: Format,
    target: Target,
    table: Tensor | None,
    stored: Mapping[str, Quantised],
) -> Part:
    """One layer: panels of W_ih and W_hh, biases, parameters.

    Args:
        direction: the layer.
        form: of the weights.
        target: the processor.
        table: the embedding, where W_ih is folded into a table over its rows; or None.
        stored: "ih", "hh" -> the matrix in whole numbers, where it is given.
    """
    law, weights, lanes = direction.law, direction.weights, target.lanes
    units, inputs = weights.hidden_size, weights.ih.shape[1]
    size = padded(units, lanes)
    blocks, recurrent = len(law.pre), len(law.recurrent_blocks)
    part = Part(numbers={"Hp": size})
    bias_x, bias_h = biases(direction, lanes)
    panels = []
    if table is None:
        panels.append(pack(stored.get("ih", weights.ih), blocks, form, lanes))
        part.tensors["bias_x"] = bias_x
        part.numbers |= rows_of("x", inputs, form) | _passes("x", inputs, blocks, form, lanes)
    else:
        part.tensors["table"] = _table(table, weights.ih, bias_x, blocks, lanes)
        part.numbers["table_row"] = blocks * size
    if recurrent:
        panels.append(pack(stored.get("hh", weights.hh), recurrent, form, lanes))
        part.numbers |= rows_of("h", units, form) | _passes("h", units, recurrent, form, lanes)
        part.tensors["bias_h"] = bias_h
    whole = torch.cat(panels, 1) if panels else torch.zeros(size // lanes, 64, dtype=torch.uint8)
    part.tensors["weights"] = settled(whole)
    part.numbers["panel_bytes"] = whole.shape[1]
    for name, value in weights.params.items():
        part.tensors[f"param:{name}"] = F.pad(value.detach().float(), (0, size - units))
    for name, share in direction.zoneout.items():
        assert not isinstance(share, Tensor)
        part.tensors[f"zoneout:{name}"] = torch.full((1,), share)
    return part


def biases(direction: Direction, lanes: int) -> tuple[Tensor, Tensor]:
    """The bias of the x part, and that of the h part where the two are read apart: (blocks, Hp)."""
    law, weights = direction.law, direction.weights
    size = padded(weights.hidden_size, lanes)
    x = _blocks(weights.b_ih, len(law.pre), weights.hidden_size, size)
    h = _blocks(weights.b_hh, len(law.recurrent_blocks), weights.hidden_size, size)
    if not Layout(law, Variant()).apart:
        for place, name in enumerate(law.recurrent_blocks):
            x[law.pre.index(name)] += h[place]
    return x, h


def _blocks(bias: Tensor | None, blocks: int, units: int, size: int) -> Tensor:
    new = torch.zeros(blocks, size)
    if bias is not None and blocks:
        new[:, :units] = bias.detach().float().view(blocks, units)
    return new


def _table(embedding: Tensor, ih: Tensor, bias: Tensor, blocks: int, lanes: int) -> Tensor:
    """W x + b of every token, (V, blocks Hp): all blocks of a panel's units side by side, as they are read."""
    size, units = bias.shape[1], ih.shape[0] // blocks
    table = torch.empty(len(embedding), size // lanes, blocks, lanes)
    for start in range(0, len(embedding), _TABLE_ROWS):
        rows = embedding[start : start + _TABLE_ROWS].detach().float()
        found = F.linear(rows, ih.detach().float()).view(len(rows), blocks, units)
        whole = bias.repeat(len(rows), 1, 1)
        whole[..., :units] += found
        panels = whole.view(len(rows), blocks, size // lanes, lanes)
        table[start : start + len(rows)] = panels.transpose(1, 2)
    return settled(table.flatten(1))


def linear_part(
    weight: Tensor | Quantised, bias: Tensor | None, form: Format, target: Target
) -> Part:
    """A matrix (outputs, k) in panels of 64 outputs that follow one another."""
    outputs, k = (weight.numbers if isinstance(weight, Quantised) else weight).shape
    wide = WIDE * target.lanes
    size = padded(outputs, wide)
    panels = pack(_spread(weight, size, form, wide, target.lanes), WIDE, form, target.lanes)
    part = Part(
        {"weights": settled(panels), "bias": torch.zeros(size)},
        {"row": size, "outputs": outputs, "panel_bytes": panels.shape[1]},
    )
    if bias is not None:
        part.tensors["bias"][:outputs] = bias.detach().float()
    part.numbers |= rows_of("x", k, form) | _passes("x", k, WIDE, form, target.lanes)
    return part


def _spread(
    weight: Tensor | Quantised, size: int, form: Format, wide: int, lanes: int
) -> Tensor | Quantised:
    """The rows in the order in which `pack` makes panels of neighbours."""
    if isinstance(weight, Tensor) and form.bits < 16:
        weight = quantise(weight, form)
    if isinstance(weight, Quantised):
        return Quantised(
            _reordered(weight.numbers, size, wide, lanes),
            _reordered(weight.scales, size, wide, lanes),
        )
    return _reordered(weight.detach(), size, wide, lanes)


def _reordered(rows: Tensor, size: int, wide: int, lanes: int) -> Tensor:
    whole = F.pad(rows, (0, 0, 0, size - len(rows)))
    return whole.view(size // wide, wide // lanes, lanes, -1).transpose(0, 1).reshape(size, -1)


def embedding_rows(embedding: Tensor, form: Format) -> Tensor:
    """Every token's activation row, (V, bytes) uint8: what the kernel would convert it to."""
    rows = embedding.detach().float()
    count, k = rows.shape
    out = torch.zeros(count, form.row_bytes(k), dtype=torch.uint8)
    header, depth = form.header(k), form.depth(k)
    if form.bits >= 16:
        dtype = torch.float32 if form.name == "float32" else torch.bfloat16
        data = F.pad(rows.to(dtype), (0, depth - k)).contiguous().view(torch.uint8)
        out[:, : data.shape[1]] = data
        return settled(out)
    top = rows.abs().amax(1, keepdim=True)
    factor = torch.where(top > 1e-30, 127 / top, 0.0)
    numbers = F.pad((rows * factor).round().to(torch.int8), (0, depth - k))
    out[:, :4] = (top / 127).contiguous().view(torch.uint8)
    out[:, header : header + depth] = numbers.view(torch.uint8)
    if form.name == "int8":
        sums = -128 * numbers.sum(1, keepdim=True, dtype=torch.int32)
        out[:, 4:8] = sums.contiguous().view(torch.uint8)
    else:
        groups = -8 * numbers.view(count, -1, form.turn).sum(-1, dtype=torch.int32)
        out[:, 64 : 64 + 4 * groups.shape[1]] = groups.contiguous().view(torch.uint8)
    return settled(out)


def state_places(directions: Sequence[Direction], lanes: int) -> tuple[list[dict[str, int]], int]:
    """Layer by layer: state -> where it begins in a column's row; and the row's length."""
    places: list[dict[str, int]] = []
    row = 0
    for direction in directions:
        here = {}
        for name in direction.law.states:
            here[name] = row
            row += padded(direction.weights.hidden_size, lanes)
        places.append(here)
    return places, row
