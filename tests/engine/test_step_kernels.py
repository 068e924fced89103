"""The products and conversions of the step kernels, for this processor and for lesser ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from llvmlite import ir
from torch import Tensor

from gatewise.engine.cpu import threads
from gatewise.engine.cpu.compiling import functions
from gatewise.engine.cpu.kinds import I8, I64
from gatewise.engine.cpu.step.activations import conversion
from gatewise.engine.cpu.step.formats import (
    FORMATS,
    GROUP,
    Format,
    Quantised,
    pack,
    passes,
    quantise,
)
from gatewise.engine.cpu.step.panels import Routine
from gatewise.engine.cpu.step.products import most_rows, product
from gatewise.engine.cpu.step.program import host
from gatewise.engine.cpu.step.tiles import Target
from gatewise.engine.cpu.target import current
from gatewise.step.weights import embedding_rows

WIDEST = current().vector_bytes // 4
TARGETS = [Target(lanes) for lanes in (4, 8, 16) if lanes <= WIDEST]
TARGETS += [host()] if host() not in TARGETS else []
VECTORS = 3  # two passes are tested where blocks are 5


@cache
def _kernels(form: Format, target: Target) -> Callable[..., None]:
    """``call(rows or 0, **arguments)``: the product for so many rows over all panels, or the conversion."""
    threads.publish()
    module, routines = ir.Module(), {}
    convert = conversion(module, form, target)
    for rows in range(most_rows(form, VECTORS) + 1):
        p = Routine(module, f"run{rows}", target)
        if not rows:
            arguments = [p.number(n) for n in ("k", "depth", "header")]
            p.builder.call(convert, [p.pointer("source"), *arguments, p.pointer("row", I8)])
        else:
            _all_panels(
                p, product(module, form, target, rows, VECTORS, VECTORS * target.lanes), rows
            )
        p.finish()
        routines[rows] = p
    addresses = functions(module, [f"run{rows}" for rows in routines])

    def call(number: int, **values: int) -> None:
        names = routines[number].arguments
        threads.run(addresses[number], [values[n] for n in sorted(names, key=names.__getitem__)], 1)

    return call


def _all_panels(p: Routine, function: ir.Function, rows: int) -> None:
    b = p.builder
    with p.loop(I64(0), p.number("panels"), "panel") as i:
        out = p.at(p.pointer("out"), (i, I64(rows * VECTORS * p.target.lanes)))
        panel = p.at(p.pointer("weights", I8), (i, p.number("bytes")))
        turns, header = p.number("turns"), p.number("header")
        b.call(function, [p.pointer("rows", I8), p.number("stride"), panel, turns, header, out])


def _converted(x: Tensor, form: Format, target: Target) -> Tensor:
    """The activation rows of x (R, k)."""
    k = x.shape[1]
    rows = torch.zeros(len(x), form.row_bytes(k), dtype=torch.uint8)
    for source, row in zip(x, rows, strict=True):
        _kernels(form, target)(
            0,
            source=source.data_ptr(),
            k=k,
            depth=form.depth(k),
            header=form.header(k),
            row=row.data_ptr(),
        )
    return rows


def _multiplied(rows: Tensor, weight: Tensor, form: Format, target: Target) -> Tensor:
    """(R, blocks H): all rows at once."""
    k, units = weight.shape[1], len(weight) // VECTORS
    panels = pack(weight, VECTORS, form, target.lanes)
    assert panels.shape[1] == form.panel_bytes(k, VECTORS, target.lanes)
    out = torch.zeros(len(panels), len(rows), VECTORS, target.lanes)
    _kernels(form, target)(
        len(rows),
        rows=rows.data_ptr(),
        stride=rows.shape[1],
        weights=panels.data_ptr(),
        bytes=panels.shape[1],
        panels=len(panels),
        turns=form.depth(k) // form.turn,
        header=form.header(k),
        out=out.data_ptr(),
    )
    whole = out.permute(1, 2, 0, 3).reshape(len(rows), VECTORS, -1)
    return whole[..., :units].reshape(len(rows), -1)


def _dense(weight: Tensor, form: Format) -> Tensor:
    """The matrix that the packed one stands for."""
    if form.bits < 16:
        return quantise(weight, form).dense()
    return weight.to(getattr(torch, form.name)).float()


def _rounded(x: Tensor, form: Format) -> Tensor:
    """The vectors that activation rows stand for."""
    if form.bits >= 16:
        return x.to(getattr(torch, form.name)).float()
    scale = x.abs().amax(1, keepdim=True) / 127
    return (x / scale).round() * scale


def _problem(k: int, rows: int) -> tuple[Tensor, Tensor]:
    return torch.randn(VECTORS * 21, k) / k**0.5, torch.randn(rows, k)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_product_is_that_of_the_rounded_numbers(name: str, target: Target) -> None:
    form = FORMATS[name]
    for k in (1, 16, 63, 130):
        weight, x = _problem(k, most_rows(form, VECTORS))
        found = _multiplied(_converted(x, form, target), weight, form, target)
        expected = _rounded(x, form).double() @ _dense(weight, form).double().t()
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_row_is_the_same_whatever_the_number_of_rows(name: str, target: Target) -> None:
    form = FORMATS[name]
    weight, x = _problem(100, most_rows(form, VECTORS))
    rows = _converted(x, form, target)
    whole = _multiplied(rows, weight, form, target)
    for count in range(1, len(rows)):
        for first in range(len(rows) - count + 1):
            part = rows[first : first + count]
            assert torch.equal(
                _multiplied(part, weight, form, target), whole[first : first + count]
            )


@pytest.mark.parametrize("name", FORMATS)
def test_an_embedding_lies_as_the_kernel_converts_it(name: str) -> None:
    form, x = FORMATS[name], torch.randn(7, 70)
    x[3] = 0
    assert torch.equal(embedding_rows(x, form), _converted(x, form, host()))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_vector_gives_no_number(name: str, value: float) -> None:
    form = FORMATS[name]
    weight, x = _problem(40, 2)
    x[0, 5] = value
    found = _multiplied(_converted(x, form, host()), weight, form, host())
    assert not found[0].isfinite().any()
    assert found[1].isfinite().all()


@pytest.mark.parametrize("name", FORMATS)
def test_a_vector_of_zeros_and_of_tiny_numbers(name: str) -> None:
    form = FORMATS[name]
    weight, x = _problem(40, 2)
    x[0], x[1] = 0, 1e-38
    found = _multiplied(_converted(x, form, host()), weight, form, host())
    assert torch.equal(found[0], torch.zeros_like(found[0]))
    assert float(found[1].abs().max()) < 1e-35


def test_passes_cover_all_blocks_with_four_registers_at_most() -> None:
    for blocks in range(1, 20):
        assert sum(passes(blocks)) == blocks
        assert max(passes(blocks)) <= 4


def test_whole_numbers_stand_for_the_weights() -> None:
    weight = torch.randn(9, 130)
    weight[2] = 0
    eight, four = (quantise(weight, FORMATS[n]) for n in ("int8", "int4"))
    assert eight.numbers.abs().max() <= 127
    assert int(four.numbers.min()) >= -8
    assert int(four.numbers.max()) <= 7
    assert four.scales.shape == (9, -(-130 // GROUP))
    error8 = (eight.dense() - weight).abs()
    assert bool((error8 <= 0.51 * eight.scales).all())
    assert float((four.dense() - weight).square().mean().sqrt()) < 0.13
    for found in (eight, four):
        assert torch.equal(found.dense()[2], weight[2])


def test_four_bits_lose_least_under_the_scales_that_are_chosen() -> None:
    weight = torch.randn(40, 64)
    chosen = quantise(weight, FORMATS["int4"])
    largest = weight.abs().amax(1, keepdim=True) / 7
    plain = Quantised((weight / largest).round().to(torch.int8), largest)
    error = [(q.dense() - weight).square().mean() for q in (chosen, plain)]
    assert error[0] < 0.9 * error[1]


def test_code_without_instructions_of_x86_is_well_formed() -> None:
    from llvmlite import binding

    for form in FORMATS.values():
        module = ir.Module()
        product(module, form, Target(4, x86=False), 2, 4, 16)
        conversion(module, form, Target(4, x86=False))
        binding.parse_assembly(str(module)).verify()
