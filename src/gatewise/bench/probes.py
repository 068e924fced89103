"""Small kernels that do one thing as fast as this processor can: read memory, multiply and add.

Knows LLVM IR and the threads of the compiled engine; no cell. What they reach is the ceiling that other
figures are held against.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from gatewise.engine.cpu import threads
from gatewise.engine.cpu.compiling import functions
from gatewise.engine.cpu.target import current

_UNROLLED = 8  # registers that one turn of the reading loop adds up
_LINE = 64


@dataclass(frozen=True)
class Instruction:
    """How one multiply-add is written.

    Args:
        dtype: of the factors.
        call: an IR expression of %acc, %a and %b, after its declaration.
        declare: the IR declaration of what is called.
        acc, factor: IR types of a register of sums and of factors.
        operations: multiplications and additions in one.
        feature: what the processor must have, by LLVM's name; empty: nothing.
    """

    dtype: str
    call: str
    declare: str
    acc: str
    factor: str
    operations: int
    feature: str = ""


def _plain(dtype: str, scalar: str, size: int) -> Instruction:
    lanes = current().vector_bytes // size
    kind = f"<{lanes} x {scalar}>"
    name = f"@llvm.fmuladd.v{lanes}f{8 * size}"
    return Instruction(
        dtype,
        f"call {kind} {name}({kind} %a, {kind} %b, {kind} %ACC)",
        f"declare {kind} {name}({kind}, {kind}, {kind})",
        kind,
        kind,
        2 * lanes,
    )


def _dot(dtype: str, name: str, acc: str, factor: str, pairs: int, feature: str) -> Instruction:
    return Instruction(
        dtype,
        f"call {acc} {name}({acc} %ACC, {factor} %a, {factor} %b)",
        f"declare {acc} {name}({acc}, {factor}, {factor})",
        acc,
        factor,
        2 * 16 * pairs,
        feature,
    )


def instructions() -> tuple[Instruction, ...]:
    """The multiply-adds that kernels of this processor are made of; several forms of one are tried in turn."""
    bf16, vnni = "@llvm.x86.avx512bf16.dpbf16ps.512", "@llvm.x86.avx512.vpdpbusd.512"
    return (
        _plain("float64", "double", 8),
        _plain("float32", "float", 4),
        _dot("bfloat16", bf16, "<16 x float>", "<32 x bfloat>", 2, "avx512bf16"),
        _dot("int8", vnni, "<16 x i32>", "<64 x i8>", 4, "avx512vnni"),
        _dot("int8", vnni, "<16 x i32>", "<16 x i32>", 4, "avx512vnni"),  # before LLVM 21
    )


@dataclass(frozen=True)
class Arithmetic:
    """A loop of independent multiply-adds.

    Args:
        operations: that one turn of the loop does.
    """

    address: int
    operations: int

    def run(self, turns: int, workers: int) -> int:
        """Run it; the number of operations done by the threads that were granted."""
        factors = torch.zeros(256, dtype=torch.uint8)
        sink = torch.zeros(workers, 8, dtype=torch.int64)
        arguments = [factors.data_ptr(), turns, sink.data_ptr()]
        threads.run(self.address, arguments, workers)
        return turns * self.operations * int(sink[:, 0].sum())


@cache
def arithmetic(dtype: str) -> Arithmetic | str:
    """The loop for factors of a dtype, or why there is none here."""
    from llvmlite import binding

    why = f"no instruction for {dtype} is known"
    for instruction in instructions():
        if instruction.dtype != dtype:
            continue
        if instruction.feature and not binding.get_host_cpu_features().get(instruction.feature):
            why = f"this processor has no {instruction.feature}"
            continue
        try:
            address = _compile(_arithmetic_ir(instruction), "multiply_add")
        except RuntimeError as error:  # another release of LLVM writes it differently
            why = f"LLVM: {str(error).splitlines()[0]}"
            continue
        return Arithmetic(address, instruction.operations * _sums())
    return why


def _sums() -> int:
    """Registers that hold sums: enough to hide the latency of each, and none of them in memory."""
    return 24 if current().vector_bytes == 64 else 12


def _compile(text: str, name: str) -> int:
    threads.publish()
    source: Any = text  # `functions` asks for the text of a module, and this is one
    (address,) = functions(source, [name])
    return address


_HEAD = """
declare i32 @omp_get_thread_num()
define void @NAME(ptr %arguments) {
entry:
  %first = load i64, ptr %arguments
  %place.1 = getelementptr i64, ptr %arguments, i64 1
  %second = load i64, ptr %place.1
  %place.2 = getelementptr i64, ptr %arguments, i64 2
  %third = load i64, ptr %place.2
  %number = call i32 @omp_get_thread_num()
  %thread = sext i32 %number to i64
"""


def _arithmetic_ir(instruction: Instruction) -> str:
    """Arguments: the factors, the turns of the loop, and a line for each thread."""
    count, acc = range(_sums()), instruction.acc
    zero = "zeroinitializer"
    lines = [instruction.declare, _HEAD.replace("NAME", "multiply_add")]
    lines += [
        "  %factors = inttoptr i64 %first to ptr",
        f"  %a = load {instruction.factor}, ptr %factors, align 1",
        f"  %b = load {instruction.factor}, ptr %factors, align 1",
        "  br label %loop",
        "loop:",
        "  %turn = phi i64 [0, %entry], [%next, %loop]",
    ]
    lines += [f"  %s{k} = phi {acc} [{zero}, %entry], [%n{k}, %loop]" for k in count]
    lines += [f"  %n{k} = {instruction.call.replace('%ACC', f'%s{k}')}" for k in count]
    lines += [
        "  %next = add i64 %turn, 1",
        "  %more = icmp ult i64 %next, %second",
        "  br i1 %more, label %loop, label %done",
        "done:",
        "  %offset = mul i64 %thread, 64",
        "  %address = add i64 %third, %offset",
        "  %line = inttoptr i64 %address to ptr",
        # stored in turn over the same place: all sums are wanted, and the last word is a mark
        *(f"  store volatile {acc} %n{k}, ptr %line, align 1" for k in count),
        "  store i64 1, ptr %line",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)


@cache
def _reader() -> int:
    return _compile(_reading_ir(), "read_all")


def _reading_ir() -> str:
    """Arguments: the first byte, bytes of one thread, and a line for each thread whose second word says how often."""
    lanes, count = current().vector_bytes // 4, range(_UNROLLED)
    kind = f"<{lanes} x i32>"
    lines = [
        f"declare i32 @llvm.vector.reduce.add.v{lanes}i32({kind})",
        _HEAD.replace("NAME", "read_all"),
        "  %offset = mul i64 %thread, 64",
        "  %address = add i64 %third, %offset",
        "  %line = inttoptr i64 %address to ptr",
        "  %often.place = getelementptr i64, ptr %line, i64 1",
        "  %often = load i64, ptr %often.place",
        "  %skip = mul i64 %thread, %second",
        "  %start = add i64 %first, %skip",
        "  %base = inttoptr i64 %start to ptr",
        "  br label %pass",
        "pass:",
        "  %turn = phi i64 [0, %entry], [%turn.next, %pass.end]",
        *(f"  %s{k} = phi {kind} [zeroinitializer, %entry], [%n{k}, %pass.end]" for k in count),
        "  br label %loop",
        "loop:",
        "  %at = phi i64 [0, %pass], [%at.next, %loop]",
        *(f"  %t{k} = phi {kind} [%s{k}, %pass], [%n{k}, %loop]" for k in count),
    ]
    for k in count:
        lines += [
            f"  %at.{k} = add i64 %at, {k * current().vector_bytes}",
            f"  %p{k} = getelementptr i8, ptr %base, i64 %at.{k}",
            f"  %v{k} = load {kind}, ptr %p{k}, align {current().vector_bytes}",
            f"  %n{k} = add {kind} %t{k}, %v{k}",
        ]
    lines += [
        f"  %at.next = add i64 %at, {_UNROLLED * current().vector_bytes}",
        "  %inside = icmp ult i64 %at.next, %second",
        "  br i1 %inside, label %loop, label %pass.end",
        "pass.end:",
        "  %turn.next = add i64 %turn, 1",
        "  %again = icmp ult i64 %turn.next, %often",
        "  br i1 %again, label %pass, label %done",
        "done:",
        f"  %sum.0 = add {kind} %n0, zeroinitializer",
        *(f"  %sum.{k} = add {kind} %sum.{k - 1}, %n{k}" for k in count[1:]),
        f"  %total = call i32 @llvm.vector.reduce.add.v{lanes}i32({kind} %sum.{_UNROLLED - 1})",
        "  %wide = zext i32 %total to i64",
        "  store i64 %wide, ptr %line",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)


class Reader:
    """Reads a block of memory over and over, each thread its own part.

    Args:
        size: bytes in all, rounded up so that each thread has whole cache lines.
        workers: threads.
    """

    def __init__(self, size: int, workers: int) -> None:
        piece = _UNROLLED * _LINE
        self._each = -(-size // (workers * piece)) * piece
        self._workers = workers
        self.size = self._each * workers
        words = self.size // 4
        self._memory = torch.ones(words + _LINE // 4, dtype=torch.int32)
        self._first = -(-self._memory.data_ptr() // _LINE) * _LINE
        self._lines: Tensor = torch.zeros(workers, 8, dtype=torch.int64)

    def run(self, passes: int) -> int:
        """Read everything `passes` times; the bytes read, of the threads that were granted.

        The memory is full of ones: each thread's sum says whether it read all that it should.
        """
        self._lines.zero_()
        self._lines[:, 1] = passes
        arguments = [self._first, self._each, self._lines.data_ptr()]
        threads.run(_reader(), arguments, self._workers)
        expected = passes * self._each // 4 % (1 << 32)
        granted = int((self._lines[:, 0] == expected).sum())
        assert granted >= 1, "the reading kernel did not read what it was told to"
        return granted * passes * self._each
