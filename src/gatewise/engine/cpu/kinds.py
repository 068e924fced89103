"""The numbers that kernels compute with and store, as LLVM types. Knows no arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
VOID = ir.VoidType()


class _BFloat(ir.types._BaseFloatType):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not name."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


_BFloat._create_instance()
BFLOAT = _BFloat()


@dataclass(frozen=True)
class Kind:
    """The numbers of a kernel.

    Args:
        name: what is computed with: "float32" or "float64".
        lanes: how many of them a register holds.
        registers: how many registers there are: sums of a matrix product that fit.
        narrow: activations and weights are stored as bfloat16; sums, equations and states are float32.
        dots: the processor multiplies pairs of bfloat16 (AVX512_BF16).
    """

    name: str
    lanes: int
    registers: int = 16
    narrow: bool = False
    dots: bool = False

    @property
    def factors(self) -> int:
        """How many factors of a sum one number of a packed matrix holds."""
        return 2 if self.narrow else 1

    @property
    def stored(self) -> ir.Type:
        """The IR type of an activation in memory; bfloat16 is 16 bits."""
        return I16 if self.narrow else self.scalar

    @property
    def packed(self) -> ir.Type:
        """The IR type of what a packed matrix is made of: a number, or a pair of bfloat16."""
        return I32 if self.narrow else self.scalar

    @property
    def scalar(self) -> ir.Type:
        """The IR type of one number."""
        return ir.FloatType() if self.name == "float32" else ir.DoubleType()

    @property
    def vector(self) -> ir.VectorType:
        """The IR type of a register."""
        return ir.VectorType(self.scalar, self.lanes)

    @property
    def bits(self) -> ir.VectorType:
        """Integers of the same width, a register of them."""
        return ir.VectorType(I32 if self.name == "float32" else I64, self.lanes)

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return 4 if self.name == "float32" else 8
