"""A kernel of CUDA C that runs all steps in one launch: blocks that stay, and meet after each step.

A block holds the recurrent weights of some units in its registers, in the order in which the tensor cores
take them. A step is their product with what all blocks passed on after the last one (h forward, the
gradients of the pre-activations backward), the cell's equations, and a meeting of all blocks. Columns are
taken sixteen at a time. Knows a kernel's reads, lines and writes; no cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template

from gatewise.engine.cuda.kernel import Kernel, Kind

COLUMNS = 16  # of the batch, at a time
_CHUNK = 32  # what a thread's 16 bytes of each of 4 lanes cover of a product's length
_SHARED = 48 << 10  # bytes that a block has without asking for more
_REGISTERS = {8: 160, 16: 96}  # warps of a block -> what weights may take of a thread's registers
LOW = ("bfloat16", "float16")
"""The numbers that the tensor cores multiply here."""


@dataclass(frozen=True)
class Split:
    """How a product with recurrent weights lies over the blocks of a launch.

    Args:
        size: H.
        parts: rows of the product for each unit: its recurrent blocks forward, 1 backward.
        units: of a block.
        tiles: of 16 rows.
        warps: of a block; each multiplies its share of the length.
        chunks: of the length, for each warp.
    """

    size: int
    parts: int
    units: int
    tiles: int
    warps: int
    chunks: int

    @property
    def blocks(self) -> int:
        """Of the launch."""
        return -(-self.size // self.units)

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.warps

    @property
    def length(self) -> int:
        """Of the product, padded: a row of what is passed on."""
        return self.warps * self.chunks * _CHUNK

    @property
    def row(self) -> int:
        """Numbers from one column's sums to the next one's; 4 more, so that no banks collide."""
        return 16 * self.tiles + 4


def split(size: int, parts: int, length: int, most: int) -> Split | None:
    """The split of a product of `parts` rows for each of `size` units, or None if no card holds it.

    Args:
        size: H.
        parts: rows for each unit.
        length: of the product.
        most: blocks that run at the same time.
    """
    if most < 1 or (least := -(-size // most)) > 16:
        return None
    tiles = -(-parts * least // 16)
    units = min(16, 16 * tiles // parts)  # no more weights in a thread than the fewest units need
    for warps, registers in _REGISTERS.items():
        chunks = -(-length // (_CHUNK * warps))
        found = Split(size, parts, units, tiles, warps, chunks)
        shared = 4 * warps * COLUMNS * found.row
        if 8 * tiles * chunks <= registers and shared <= _SHARED:
            return found
    return None


_TEXT = Template("""\
extern "C" __global__ void __launch_bounds__($threads, 1) $name(const ${name}_arguments a, const long long) {
  __shared__ float sums[$warps][$columns][$row];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, quarter = lane % 4;
  const long long base = (long long)blockIdx.x * $units;

  unsigned held[$chunks][2][$tiles][4];
#pragma unroll
  for (unsigned c = 0; c < $chunks; ++c)
#pragma unroll
    for (unsigned s = 0; s < 2; ++s)
#pragma unroll
      for (unsigned m = 0; m < $tiles; ++m)
#pragma unroll
        for (unsigned r = 0; r < 4; ++r) {
          const unsigned local = m * 16 + group + r % 2 * 8, part = local / $units;
          const long long out = base + local % $units;
          const long long in = (warp * $chunks + c) * $chunk + quarter * 8 + s * 4 + r / 2 * 2;
          unsigned pair = 0;
          if (part < $parts && out < $size) {
            if (in < $inner) pair = a.weight[$weight_at].bits;
            if (in + 1 < $inner) pair |= (unsigned)a.weight[$weight_next].bits << 16;
          }
          held[c][s][m][r] = pair;
        }

  const unsigned column = threadIdx.x / $units;
  const unsigned local = threadIdx.x % $units;
  const bool mine = column < $columns && base + local < $size;
  const long long unit = mine ? base + local : base;
  for (long long n = 0; n < a.T; ++n) {
    const long long t = a.reverse ? a.T - 1 - n : n;
    for (long long first = 0; first < a.B; first += $columns) {
      const bool inside = mine && first + column < a.B;
      const unsigned row = inside ? (unsigned)(first + column) : 0;
      const long long i = (long long)row * a.H + unit;
      const long long line = t * a.B + row;  // of arrays (T, B, ...)
      const long long at = line * a.H + unit;  // in arrays (T, B, H)
$reads
      if (first == 0 && n > 0) {
        if (threadIdx.x == 0) await_all(a.met, (unsigned)n * gridDim.x);
        __syncthreads();
      }
      {
        float found[$tiles][2][4] = {};
        const low *from = a.passed + ((n & 1) * a.rows + first + group) * $length
            + warp * ($chunks * $chunk) + quarter * 8;
#pragma unroll
        for (unsigned start = 0; start < $chunks; start += 4) {
          eight in[4][2];
#pragma unroll
          for (unsigned c = 0; c < 4; ++c)
#pragma unroll
            for (unsigned k = 0; k < 2; ++k)
              if (start + c < $chunks)
                in[c][k] = fresh(from + k * (8 * $length) + (start + c) * $chunk);
#pragma unroll
          for (unsigned c = 0; c < 4; ++c)
#pragma unroll
            for (unsigned m = 0; m < $tiles; ++m)
#pragma unroll
              for (unsigned k = 0; k < 2; ++k)
                if (start + c < $chunks) {
                  multiply_$low(found[m][k], held[start + c][0][m], in[c][k].a, in[c][k].b);
                  multiply_$low(found[m][k], held[start + c][1][m], in[c][k].c, in[c][k].d);
                }
        }
#pragma unroll
        for (unsigned m = 0; m < $tiles; ++m)
#pragma unroll
          for (unsigned k = 0; k < 2; ++k)
#pragma unroll
            for (unsigned r = 0; r < 4; ++r)
              sums[warp][k * 8 + quarter * 2 + r % 2][m * 16 + group + r / 2 * 8] = found[m][k][r];
      }
      __syncthreads();
      real product[$parts] = {};
      if (inside)
#pragma unroll
        for (unsigned w = 0; w < $warps; ++w)
#pragma unroll
          for (unsigned p = 0; p < $parts; ++p) product[p] += sums[w][column][p * $units + local];
$lines
      if (inside) {
        low *const to = a.passed + (((n + 1) & 1) * a.rows + row) * $length;
$writes
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) arrive(a.met);
  }
}
""")


class Together(Kernel):
    """A kernel of all steps.

    Args:
        name: in the program.
        kind: of its numbers; `low` is one of `LOW`.
        split: over the blocks.
        inner: the length of the product, without padding.
        transposed: the product is with columns of the weights: backward.
    """

    def __init__(self, name: str, kind: Kind, split: Split, inner: int, transposed: bool) -> None:
        super().__init__(name, kind)
        self._split, self._inner, self._transposed = split, inner, transposed
        self._low = kind.low
        for key in ("T", "reverse", "rows"):
            self.number(key)
        self._field("weight", "low *")
        self._field("passed", "low *")
        self._field("met", "unsigned *")

    def hidden(self, index: int, blocks: int) -> str:
        return f"product[{index}]"

    def back(self) -> str:
        return "product[0]"

    def pass_on(self, place: str, value: str) -> None:
        self._writes.append(f"put(to + {place}, {value});")

    def _text(self) -> str:
        sizes = {n: getattr(self._split, n) for n in ("threads", "warps", "row", "units", "chunks")}
        sizes |= {n: getattr(self._split, n) for n in ("tiles", "parts", "size", "length")}
        size = self._split.size
        where = f"in * {size} + out" if self._transposed else f"(part * {size} + out) * {size} + in"
        step = size if self._transposed else 1
        return _TEXT.substitute(
            sizes,
            name=self.name,
            low=self._low,
            columns=COLUMNS,
            chunk=_CHUNK,
            inner=self._inner,
            weight_at=where,
            weight_next=f"{where} + {step}",
            reads=_indented(self._read_lines(), 6),
            lines=_indented(self.lines.text, 6),
            writes=_indented(self._writes, 8),
        )


def _indented(lines: list[str], by: int) -> str:
    return "\n".join(" " * by + line for line in lines)
