"""One kernel of CUDA C under construction: its arguments, and the lines of one unit of one column.

All reads stand before the arithmetic and all writes after it, so that no read waits for a write that the
compiler cannot tell apart from it. Knows arrays and their order in memory; no cell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import Template

from gatewise.engine.cuda.lines import Lines

C_NAMES = {"float32": "float", "float64": "double", "bfloat16": "bfloat16", "float16": "float16"}
"""torch's name of a dtype -> the C type of a stored number."""


@dataclass(frozen=True)
class Kind:
    """The numbers of a kernel, by torch's names.

    Args:
        low: what matrix products read and give.
        wide: states, what is kept and recorded, controls; other than `low` under autocast.
    """

    low: str
    wide: str

    @property
    def real(self) -> str:
        """What the equations are computed in."""
        return "float64" if self.wide == "float64" else "float32"


@dataclass(frozen=True)
class Entry:
    """A kernel in a program: its name there, and the order of its arguments."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """The text of some kernels.

    Args:
        text: CUDA C.
        entries: "forward" and, where there is one, "backward".
    """

    text: str
    entries: dict[str, Entry]


_PRELUDE = """\
struct bfloat16 { unsigned short bits; };
struct float16 { unsigned short bits; };

typedef $real real;
typedef $low low;
typedef $wide wide;

static __device__ inline float infinity() { return __uint_as_float(0x7f800000u); }
static __device__ inline float not_a_number() { return __uint_as_float(0x7fc00000u); }

static __device__ inline float get(const float *p) { return *p; }
static __device__ inline double get(const double *p) { return *p; }
static __device__ inline float get(const bfloat16 *p) {
  return __uint_as_float((unsigned)p->bits << 16);
}
static __device__ inline float get(const float16 *p) { return half_to_float(p->bits); }

static __device__ inline void put(float *p, float v) { *p = v; }
static __device__ inline void put(double *p, double v) { *p = v; }
static __device__ inline void put(bfloat16 *p, float v) {
  const unsigned u = __float_as_uint(v);  // to the nearest, ties to even; NaN stays NaN
  p->bits = v != v ? 0x7fc0 : (unsigned short)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
static __device__ inline void put(float16 *p, float v) { p->bits = float_to_half(v); }

"""


def prelude(kind: Kind) -> str:
    """The types, and how numbers are read and written.

    half_to_float and float_to_half are the compiler's affair: what compiles the text gives them.
    """
    names = {side: C_NAMES[getattr(kind, side)] for side in ("real", "low", "wide")}
    return Template(_PRELUDE).substitute(names)


class Kernel:
    """One kernel: a thread computes one unit of one column at step t.

    Attributes:
        lines: its arithmetic.
    """

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.lines = Lines(C_NAMES[kind.real])
        self._fields: dict[str, tuple[str, str]] = {}
        self._reads: dict[str, str] = {}
        self._writes: list[str] = []
        self.number("B")
        self.number("H")

    def number(self, key: str) -> str:
        """An argument that is a whole number."""
        return self._field(key, "long long ")

    def read(self, key: str, index: str, kind: str = "wide") -> str:
        """A number of an array."""
        field = self._field(key, f"{kind} *")
        return self._read(f"const real {{}} = get({field} + {index});")

    def flag(self, key: str, index: str) -> str:
        """Whether a byte of an array is set."""
        field = self._field(key, "unsigned char *")
        return self._read(f"const bool {{}} = {field}[{index}] != 0;")

    def write(self, key: str, index: str, value: str, kind: str = "wide") -> None:
        """A number into an array."""
        self._writes.append(f"put({self._field(key, f'{kind} *')} + {index}, {value});")

    def hidden(self, index: int, blocks: int) -> str:
        """R h of a recurrent block."""
        return self.read("hs", f"((long long)row * {blocks} + {index}) * a.H + unit", "low")

    def back(self) -> str:
        """What reaches h from the step behind, through R."""
        return self.read("back:h", "i", "low")

    def pass_on(self, place: str, value: str) -> None:
        """Give a number to the next step's product; here that reads it where it is written anyhow."""

    def text(self) -> str:
        """The kernel in C."""
        fields = "".join(f"  {kind}{name};\n" for name, kind in self._fields.values())
        return f"struct {self.name}_arguments {{\n{fields}}};\n\n{self._text()}"

    def _text(self) -> str:
        body = "\n".join(f"  {line}" for line in self._body())
        return (
            f'extern "C" __global__ void {self.name}(const {self.name}_arguments a, '
            f"const long long t) {{\n{body}\n}}\n"
        )

    def entry(self) -> Entry:
        """How it is called."""
        return Entry(self.name, tuple(self._fields))

    def _body(self) -> list[str]:
        where = [
            "const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;",
            "const unsigned units = (unsigned)a.H;",
            "if (i >= (unsigned)a.B * units) return;",
            "const unsigned row = i / units;",
            "const long long unit = i - row * units;",
            "const long long line = t * a.B + row;  // of arrays (T, B, ...)",
            "const long long at = line * a.H + unit;  // in arrays (T, B, H)",
        ]
        return [*where, *self._read_lines(), *self.lines.text, *self._writes]

    def _read_lines(self) -> list[str]:
        return [line.format(name) for line, name in self._reads.items()]

    def _field(self, key: str, kind: str) -> str:
        if key not in self._fields:
            taken = {name for name, _ in self._fields.values()}
            self._fields[key] = (_identifier(key, taken), kind)
        return f"a.{self._fields[key][0]}"

    def _read(self, line: str) -> str:
        return self._reads.setdefault(line, f"x{len(self._reads)}")


def _identifier(key: str, taken: set[str]) -> str:
    """A C name for an argument: in names of gates there may be dots."""
    base = name = re.sub(r"[^0-9A-Za-z_]", "_", key)
    number = 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name
