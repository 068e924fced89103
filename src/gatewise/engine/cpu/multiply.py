"""The kernel of a large matrix product: C = start + A B, a share of the rows for each thread.

torch's float32 products reach half of what registers of 512 bits allow on some processors; this one
is for those. B comes in packed panels; A is read by rows, or, where its rows are columns in memory,
copied in strips first. Knows registers and memory.
"""

from __future__ import annotations

from llvmlite import ir

from gatewise.engine.cpu.kinds import I32, I64, VOID, Kind
from gatewise.engine.cpu.lanes import Lanes
from gatewise.engine.cpu.program import Program, rows_of, sum_products

VECTORS = {16: 2, 32: 4}
"""Registers of the processor -> registers of a panel of B."""
GROUP = 16
"""Strips of rows that go over all of B together: they stay in the second-level cache."""


def strip_of(kind: Kind) -> int:
    """Rows of a strip."""
    return rows_of(VECTORS[kind.registers], kind)


def emit_multiply(module: ir.Module, kind: Kind, name: str, by_columns: bool) -> Program:
    """C[m, n] = start[m, n] + sum_k A[m, k] B[k, n].

    Arguments: a (rows `lda` apart; `by_columns`: columns `lda` apart), b (panels, depth, vectors,
    lanes), c (`ldc`), start (`lds`, 0: one row for all), M, N, depth, strips, panels
    and, by columns, `space`: per thread GROUP strips of depth rows and one register more.
    """
    p = Program(module, name, kind, lambda _: False)
    b, rows, vectors = p.builder, strip_of(kind), VECTORS[kind.registers]
    depth, wide = p.number("depth"), I64(vectors * kind.lanes)
    block = _block(module, kind, rows, vectors, by_columns)
    first, end, _ = p.share(p.number("strips"))
    here = b.sext(b.call(p.external("omp_get_thread_num", I32), []), I64)
    strip_size = b.mul(depth, I64(rows))
    space = None
    if by_columns:
        own = b.add(b.mul(strip_size, I64(GROUP)), I64(kind.lanes))
        space = p.at(p.pointer("space"), (here, own))
    with p.loop(first, end, "group", GROUP) as start:
        last = b.add(start, I64(GROUP))
        last = b.select(b.icmp_signed("<", last, end), last, end)
        if by_columns:
            assert space is not None
            with p.loop(start, last, "copied") as strip:
                _copy_strip(p, rows, strip, p.at(space, (b.sub(strip, start), strip_size)))
        with p.loop(I64(0), p.number("panels"), "panel") as panel:
            w = p.at(p.pointer("b"), (panel, b.mul(depth, wide)))
            column = b.mul(panel, wide)
            left = b.sub(p.number("N"), column)
            with p.loop(start, last, "strip") as strip:
                row = b.mul(strip, I64(rows))
                if space is None:
                    a = p.at(p.pointer("a"), (row, p.number("lda")))
                else:
                    a = p.at(space, (b.sub(strip, start), strip_size))
                c = p.at(p.pointer("c"), (row, p.number("ldc")), column)
                s = p.at(p.pointer("start"), (row, p.number("lds")), column)
                count = b.sub(p.number("M"), row)
                values = [a, p.number("lda"), count, w, depth, c, p.number("ldc")]
                b.call(block, [*values, s, p.number("lds"), left])
    p.finish()
    return p


def _copy_strip(p: Program, rows: int, strip: ir.Value, out: ir.Value) -> None:
    """out[k, r] = a[k, row + r], 0 beyond the last row."""
    b, lanes = p.builder, p.kind.lanes
    row = b.mul(strip, I64(rows))
    source, left = b.gep(p.pointer("a"), [row]), b.sub(p.number("M"), row)
    least = b.select(b.icmp_signed("<", left, I64(rows)), left, I64(rows))
    numbers = ir.VectorType(I64, lanes)
    masks = {}
    for at in range(0, rows, lanes):
        counting = ir.Constant(numbers, [at + i for i in range(lanes)])
        masks[at] = b.icmp_signed("<", counting, p.lanes.splat(least))
    with p.loop(I64(0), p.number("depth"), "k") as k:
        line = p.at(source, (k, p.number("lda")))
        target = p.at(out, (k, I64(rows)))
        for at, mask in masks.items():
            value = p.lanes.load_some(b.gep(line, [I64(at)]), mask)
            # what is written beyond is written again by the next k
            p.lanes.store(value, b.gep(target, [I64(at)]))


def _block(module: ir.Module, kind: Kind, rows: int, vectors: int, by_columns: bool) -> ir.Function:
    """One strip times one panel: (a, lda, count, w, depth, c, ldc, start, lds, left).

    Of the rows `count` exist, of the columns `left`; those beyond are not written.
    """
    place = kind.scalar.as_pointer()
    signature = ir.FunctionType(VOID, [place, I64, I64, place, I64, place, I64, place, I64, I64])
    name = f"block_{'columns' if by_columns else 'rows'}"
    function = ir.Function(module, signature, name)
    function.linkage = "internal"
    a, lda, count, w, depth, c, ldc, start, lds, left = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    lanes = Lanes(b, kind)
    numbers = ir.VectorType(I64, kind.lanes)
    masks = []
    for v in range(vectors):
        counting = ir.Constant(numbers, [v * kind.lanes + i for i in range(kind.lanes)])
        masks.append(b.icmp_signed("<", counting, lanes.splat(left)))
    last = b.sub(count, I64(1))
    near = [b.select(b.icmp_signed("<", I64(r), last), I64(r), last) for r in range(rows)]
    sums = []
    for r in range(rows):
        line = b.gep(start, [b.mul(lds, near[r])])
        sums += [
            lanes.load_some(b.gep(line, [I64(v * kind.lanes)]), masks[v]) for v in range(vectors)
        ]
    lines = [b.gep(a, [b.mul(lda, near[r])]) for r in range(rows)]

    def factor(r: int, k: ir.Value) -> ir.Value:
        if by_columns:
            return b.gep(a, [b.add(b.mul(k, I64(rows)), I64(r))])
        return b.gep(lines[r], [k])

    sums = sum_products(b, lanes, function, factor, w, sums, vectors, depth)
    for r in range(rows):
        with b.if_then(b.icmp_signed("<", I64(r), count), likely=True):
            line = b.gep(c, [b.mul(ldc, I64(r))])
            for v in range(vectors):
                at = b.gep(line, [I64(v * kind.lanes)])
                lanes.store_some(sums[r * vectors + v], at, masks[v])
    b.ret_void()
    return function
