"""Kernels that bring matrices into the order in which others read them, and sum columns.

Each is shared by threads in one way: along its outermost loop. Knows registers and memory; no cell.
"""

from __future__ import annotations

from llvmlite import ir

from gatewise.engine.cpu.kinds import I32, I64, Kind
from gatewise.engine.cpu.program import Program


def emit_rows_pack(module: ir.Module, kind: Kind, name: str) -> Program:
    """Rows of a matrix side by side: out[panel, k, v, lane] = source[panel ps + v vs + lane, k].

    Arguments: source (rows x K, `ld` apart), out (`out_panel` from panel to panel), panels, vectors,
    ps, vs, K, depth (K in packed numbers, rounded up), and `rows`, `es`: a row exists where panel ps
    + v es + lane is below `rows`; others are 0. Of bfloat16 a packed number is a pair of neighbours
    along k.
    """
    p = Program(module, name, kind, lambda _: False)
    b, lanes = p.builder, kind.lanes
    first, end, _ = p.share(p.number("panels"))
    with (
        p.loop(first, end, "panel") as panel,
        p.loop(I64(0), p.number("vectors"), "v") as v,
        p.loop(I64(0), p.number("depth"), "k", lanes) as k,
    ):
        unit = b.mul(panel, p.number("ps"))
        row = b.add(unit, b.mul(v, p.number("vs")))
        square = []
        counted = b.add(unit, b.mul(v, p.number("es")))
        for r in range(lanes):
            exists = b.icmp_signed("<", b.add(counted, I64(r)), p.number("rows"))
            at = p.at(p.pointer("source"), (b.add(row, I64(r)), p.number("ld")))
            square.append(_packed_row(p, at, k, exists))
        stride = b.mul(p.number("vectors"), I64(lanes))
        out = p.at(
            p.pointer("out", kind.packed),
            (panel, p.number("out_panel")),
            (k, stride),
            (v, I64(lanes)),
        )
        for j, column in enumerate(_transposed(b, square)):
            inside = b.icmp_signed("<", b.add(k, I64(j)), p.number("depth"))
            with b.if_then(inside):
                _put(p, column, p.at(out, (I64(j), stride)))
    p.finish()
    return p


def _packed_row(p: Program, row: ir.Value, k: ir.Value, exists: ir.Value) -> ir.Value:
    """Packed numbers k..k + lanes of a row, as integers where they are pairs; 0 beyond its end."""
    lanes, kind, b = p.lanes, p.kind, p.builder
    size, count = p.number("K"), kind.lanes
    if not kind.narrow:
        return lanes.load_some(b.gep(row, [k]), _up_to(p, b.sub(size, k), exists))
    first = b.mul(k, I64(2))
    halves = []
    for part in range(2):
        at = b.add(first, I64(part * count))
        mask = _up_to(p, b.sub(size, at), exists)
        halves.append(lanes.narrowed(lanes.load_some(b.gep(row, [at]), mask)))
    order = ir.Constant(ir.VectorType(I32, 2 * count), list(range(2 * count)))
    joined = b.shuffle_vector(halves[0], halves[1], order)
    return b.bitcast(joined, ir.VectorType(I32, count))


def _up_to(p: Program, count: ir.Value, exists: ir.Value) -> ir.Value:
    """A mask: lanes below `count`, if the row exists at all."""
    b, lanes = p.builder, p.kind.lanes
    kind = ir.VectorType(I64, lanes)
    counting = ir.Constant(kind, list(range(lanes)))
    inside = b.icmp_signed("<", counting, p.lanes.splat(count))
    return b.and_(inside, p.lanes.splat(exists))


def _transposed(b: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """The columns of a square of registers, by exchanging ever smaller blocks."""
    count = len(rows)
    kind = ir.VectorType(I32, count)
    distance = count // 2
    while distance:
        upper, lower = [], []
        for lane in range(count):
            first = not lane & distance
            upper.append(lane if first else lane - distance + count)
            lower.append(lane + distance if first else lane + count)
        new = list(rows)
        for r in range(count):
            if not r & distance:
                pair = rows[r], rows[r + distance]
                new[r] = b.shuffle_vector(*pair, ir.Constant(kind, upper))
                new[r + distance] = b.shuffle_vector(*pair, ir.Constant(kind, lower))
        rows, distance = new, distance // 2
    return rows


def _put(p: Program, register: ir.Value, at: ir.Value) -> None:
    place = p.builder.bitcast(at, register.type.as_pointer())
    p.builder.store(register, place, align=p.kind.itemsize * p.kind.lanes)


def emit_columns_pack(module: ir.Module, kind: Kind, name: str) -> Program:
    """Columns in panels: out[panel, k, v, lane] = source[k, (panel vectors + v) lanes + lane].

    Arguments: source (depth x columns, `ld` apart), out, depth, vectors, panels, columns, and
    `block`, `rows`: of each `block` rows that are packed, only `rows` are in the source, and the
    others 0. Of bfloat16 a packed number is a pair of neighbours along k; `depth` counts packed
    numbers.
    """
    p = Program(module, name, kind, lambda _: False)
    b, lanes = p.builder, kind.lanes
    first, end, _ = p.share(p.number("depth"))
    with p.loop(first, end, "k") as k:
        parts = [b.add(b.mul(k, I64(kind.factors)), I64(f)) for f in range(kind.factors)]
        lines = [_line(p, part) for part in parts]
        with p.loop(I64(0), b.mul(p.number("panels"), p.number("vectors")), "n") as n:
            column = b.mul(n, I64(lanes))
            left = b.sub(p.number("columns"), column)
            found = [
                p.lanes.load_some(b.gep(line, [column]), _up_to(p, left, exists))
                for line, exists in lines
            ]
            panel = b.sdiv(n, p.number("vectors"))
            v = b.sub(n, b.mul(panel, p.number("vectors")))
            stride = b.mul(p.number("vectors"), I64(lanes))
            out = p.at(
                p.pointer("out", kind.packed),
                (panel, b.mul(p.number("depth"), stride)),
                (k, stride),
                (v, I64(lanes)),
            )
            _put(p, found[0] if not kind.narrow else _interleaved(p, found), out)
    p.finish()
    return p


def _line(p: Program, k: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Where packed row k is in the source, and whether it is there."""
    b, block = p.builder, p.number("block")
    which = b.sdiv(k, block)
    inner = b.sub(k, b.mul(which, block))
    exists = b.icmp_signed("<", inner, p.number("rows"))
    row = b.add(b.mul(which, p.number("rows")), inner)
    return p.at(p.pointer("source"), (row, p.number("ld"))), exists


def _interleaved(p: Program, rows: list[ir.Value]) -> ir.Value:
    """Two rows as pairs of bfloat16."""
    b, lanes = p.builder, p.kind.lanes
    low, high = (b.zext(p.lanes.narrowed(r), p.kind.bits) for r in rows)
    return b.or_(low, b.shl(high, ir.Constant(p.kind.bits, [16] * lanes)))


def emit_column_sums(module: ir.Module, kind: Kind, name: str) -> Program:
    """out[n] = sum_m a[m, n], in wide numbers: a (rows x columns, `ld` apart), columns in registers."""
    p = Program(module, name, kind, lambda argument: kind.narrow and argument == "a")
    b, lanes, unroll = p.builder, kind.lanes, 4
    first, end, _ = p.share(b.sdiv(p.number("columns"), I64(lanes)))
    with p.loop(first, end, "n", unroll) as n:
        columns = []
        for u in range(unroll):  # the last ones may be summed twice
            own = b.add(n, I64(u))
            own = b.select(b.icmp_signed("<", own, end), own, b.sub(end, I64(1)))
            columns.append(b.mul(own, I64(lanes)))
        zero = p.lanes.number(0.0)

        def add(m: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            row = p.at(p.pointer("a"), (m, p.number("ld")))
            pairs = zip(sums, columns, strict=True)
            return [b.fadd(s, p.lanes.load(b.gep(row, [c]))) for s, c in pairs]

        totals = p.repeat(I64(0), p.number("rows"), 1, [zero] * unroll, add)
        for total, column in zip(totals, columns, strict=True):
            p.lanes.store(total, p.at(p.pointer("out"), column))
    p.finish()
    return p
