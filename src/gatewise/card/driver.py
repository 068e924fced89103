"""CUDA's own interfaces, through ctypes: text to machine code (NVRTC), and launching it (the driver).

Both are C interfaces that NVIDIA documents and keeps; torch brings the first with it and the second comes with
the card. torch's own `torch.cuda._compile_kernel` does the same, but is private, needs an installed
toolkit (for include paths that nothing here reads), and builds its arguments anew at each launch.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint, c_void_p
from functools import cache
from importlib.util import find_spec

import torch

from gatewise.errors import EngineError

OPTIONS = ("--std=c++17", "--fmad=false")
"""No products are contracted into sums: an equation rounds as it does on tensors."""

HEADER = """\
static __device__ inline float half_to_float(unsigned short bits) {
  float v;
  asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
  return v;
}
static __device__ inline unsigned short float_to_half(float v) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
  return bits;
}

struct eight { unsigned a, b, c, d; };  // numbers of 16 bits
template <class T> static __device__ inline eight fresh(const T *p) {  // past the L1 cache, which may be stale
  eight v;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.a), "=r"(v.b), "=r"(v.c), "=r"(v.d) : "l"(p) : "memory");
  return v;
}
static __device__ inline void arrive(unsigned *met) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" : : "l"(met) : "memory");
}
static __device__ inline void await_all(const unsigned *met, unsigned all) {
  unsigned seen;
  do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(met) : "memory");
  while ((int)(seen - all) < 0);
}
#define MULTIPLY(name, type) \\
  static __device__ inline void multiply_##name(float *c, const unsigned *a, unsigned b0, unsigned b1) { \\
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 " \\
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \\
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) \\
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1)); \\
  }
MULTIPLY(bfloat16, "bf16")
MULTIPLY(float16, "f16")

"""
"""What stands before the text of a program: what only the card's own language has.

Conversions, a product of 16 x 16 and 16 x 8 numbers by a warp, and how blocks meet: one arrives when all
that it has written can be seen, and waits until all have arrived.
"""

Launch = Callable[[int], None]
"""Runs a kernel at step t."""


# --- NVRTC ---------------------------------------------------------------------------------------


@cache
def nvrtc() -> ctypes.CDLL | None:
    """NVRTC's library, or None where there is none."""
    for name in _nvrtc_names():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        create = library.nvrtcCreateProgram
        create.argtypes = [POINTER(c_void_p), c_char_p, c_char_p, c_int, c_void_p, c_void_p]
        library.nvrtcCompileProgram.argtypes = [c_void_p, c_int, POINTER(c_char_p)]
        for function in ("nvrtcGetProgramLogSize", "nvrtcGetCUBINSize", "nvrtcGetPTXSize"):
            getattr(library, function).argtypes = [c_void_p, POINTER(c_size_t)]
        for function in ("nvrtcGetProgramLog", "nvrtcGetCUBIN", "nvrtcGetPTX"):
            getattr(library, function).argtypes = [c_void_p, c_char_p]
        library.nvrtcGetErrorString.restype = c_char_p
        return library
    return None


def _nvrtc_names() -> list[str]:
    """By its name (torch has loaded it already, as a rule), then where packages put it."""
    major = (torch.version.cuda or "12").split(".")[0]
    if sys.platform == "win32":
        name, pattern = f"nvrtc64_{major}0_0.dll", f"nvrtc64_{major}*_0.dll"
    else:
        name, pattern = f"libnvrtc.so.{major}", f"libnvrtc.so.{major}"
    folders = [os.path.join(os.path.dirname(torch.__file__), "lib")]
    spec = find_spec("nvidia")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        folders += glob.glob(os.path.join(root, "*", "lib"))
        folders += glob.glob(os.path.join(root, "*", "bin"))
    return [name, *(p for f in folders for p in sorted(glob.glob(os.path.join(f, pattern))))]


def compile_text(text: str, capability: tuple[int, int]) -> bytes:
    """Machine code for cards of a compute capability; where NVRTC does not know it, PTX for the driver.

    Raises:
        EngineError: if there is no NVRTC, or it refuses the text.
    """
    library = nvrtc()
    if library is None:
        raise EngineError("NVRTC, which torch's CUDA build brings, was not found")
    number = capability[0] * 10 + capability[1]
    known = _architectures(library)
    exact = number in known
    if not exact:
        number = max((k for k in known if k < number), default=number)
    arch = f"--gpu-architecture={'sm' if exact else 'compute'}_{number}"
    options = [o.encode() for o in (arch, *OPTIONS)]
    program = c_void_p()
    source = (HEADER + text).encode()
    _check(
        library, library.nvrtcCreateProgram(byref(program), source, b"gatewise.cu", 0, None, None)
    )
    try:
        array = (c_char_p * len(options))(*options)
        if library.nvrtcCompileProgram(program, len(options), array):
            log = _text_of(library, program, "ProgramLog").rstrip(b"\0").decode()
            raise EngineError(f"NVRTC refuses the kernel of a cell; please report it:\n{log}")
        return _text_of(library, program, "CUBIN" if exact else "PTX")
    finally:
        library.nvrtcDestroyProgram(byref(program))


def _text_of(library: ctypes.CDLL, program: c_void_p, what: str) -> bytes:
    size = c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _architectures(library: ctypes.CDLL) -> list[int]:
    count = c_int()
    _check(library, library.nvrtcGetNumSupportedArchs(byref(count)))
    found = (c_int * count.value)()
    _check(library, library.nvrtcGetSupportedArchs(found))
    return list(found)


def _check(library: ctypes.CDLL, code: int) -> None:
    if code:
        name = library.nvrtcGetErrorString(code)
        raise EngineError(f"NVRTC: {name.decode() if name else code}")


# --- the driver ----------------------------------------------------------------------------------


class Driver:
    """The calls of the CUDA driver that load and launch a kernel.

    Args:
        library: libcuda, or what stands in for it in a test.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.cuModuleLoadData.argtypes = [POINTER(c_void_p), c_char_p]
        library.cuModuleGetFunction.argtypes = [POINTER(c_void_p), c_void_p, c_char_p]
        library.cuGetErrorString.argtypes = [c_int, POINTER(c_char_p)]
        sizes = [c_uint] * 7
        library.cuLaunchKernel.argtypes = [c_void_p, *sizes, c_void_p, c_void_p, c_void_p]
        library.cuLaunchCooperativeKernel.argtypes = [c_void_p, *sizes, c_void_p, c_void_p]

    def load(self, image: bytes, names: Sequence[str]) -> list[c_void_p]:
        """The kernels of a module; it is never unloaded."""
        module = c_void_p()
        self._check(self._library.cuModuleLoadData(byref(module), image))
        found = []
        for name in names:
            function = c_void_p()
            code = self._library.cuModuleGetFunction(byref(function), module, name.encode())
            self._check(code)
            found.append(function)
        return found

    def bind(
        self, function: c_void_p, arguments: Sequence[int], blocks: int, threads: int, stream: int
    ) -> Launch:
        """A kernel with all its arguments but t: each launch changes one number and makes one call."""
        values = (c_int64 * max(1, len(arguments)))(*arguments)
        t = c_int64()
        parameters = (c_void_p * 2)(ctypes.addressof(values), ctypes.addressof(t))
        call = (function, blocks, 1, 1, threads, 1, 1, 0, c_void_p(stream), parameters, None)
        launch, check = self._library.cuLaunchKernel, self._check

        def at(step: int, alive: object = (values, parameters)) -> None:
            t.value = step
            if code := launch(*call):
                check(code)

        return at

    def run_together(
        self, function: c_void_p, arguments: Sequence[int], blocks: int, threads: int, stream: int
    ) -> None:
        """Run a kernel whose blocks wait for each other: all at the same time, or it is refused."""
        values = (c_int64 * len(arguments))(*arguments)
        t = c_int64()
        parameters = (c_void_p * 2)(ctypes.addressof(values), ctypes.addressof(t))
        call = (function, blocks, 1, 1, threads, 1, 1, 0, c_void_p(stream), parameters)
        self._check(self._library.cuLaunchCooperativeKernel(*call))

    def _check(self, code: int) -> None:
        if code:
            text = c_char_p()
            self._library.cuGetErrorString(code, byref(text))
            reason = text.value.decode() if text.value else f"error {code}"
            raise EngineError(f"the CUDA driver refuses a kernel: {reason}")


@cache
def driver() -> Driver:
    """The driver of this machine."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return Driver(ctypes.CDLL(name))
    except OSError as error:
        raise EngineError(f"the CUDA driver's library {name} was not found") from error
