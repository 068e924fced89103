"""A stand-in for a card: the printed CUDA C compiled as C++, launched by a loop over blocks and threads.

Only NVRTC and libcuda are replaced. The engine's buffers, its loop over t, the arguments of a launch as the
driver gets them, and the text of the kernels are those of a card.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch

from gatewise.engine.cuda.driver import Driver
from gatewise.engine.cuda.engine import CudaEngine

FUNCTIONS = ("exp", "log", "log1p", "sqrt", "tanh", "fabs")

DECLARED = "".join(f"float {f}f(float); double {f}(double);\n" for f in FUNCTIONS)

SHIM = """
#define __device__
#define __global__
struct Index { unsigned x, y, z; };
static thread_local Index blockIdx, threadIdx, blockDim;
template <class A, class B> static inline A same_bits(B b) {
  static_assert(sizeof(A) == sizeof(B), "");
  A a;
  __builtin_memcpy(&a, &b, sizeof a);
  return a;
}
static inline float __uint_as_float(unsigned u) { return same_bits<float>(u); }
static inline unsigned __float_as_uint(float v) { return same_bits<unsigned>(v); }
static inline float half_to_float(unsigned short bits) { return same_bits<_Float16>(bits); }
static inline unsigned short float_to_half(float v) {
  return same_bits<unsigned short>((_Float16)v);
}
"""

LOOP = """
extern "C" void run_{name}(void **parameters, unsigned blocks, unsigned threads) {{
  blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
      {name}(*(const {name}_arguments *)parameters[0], *(const long long *)parameters[1]);
}}
"""

LIBCUDA = """
#include <dlfcn.h>
#include <cstdio>
extern "C" {
int cuModuleLoadData(void **module, const char *image) {
  *module = dlopen(image, RTLD_NOW);
  return *module ? 0 : 209;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
  char full[256];
  std::snprintf(full, sizeof full, "run_%s", name);
  *function = dlsym(module, full);
  return *function ? 0 : 500;
}
int cuGetErrorString(int code, const char **text) {
  *text = code == 500 ? "named symbol not found" : "no kernel image is available";
  return 0;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void *stream, void **parameters, void **extra) {
  if (gx == 0 || gy != 1 || gz != 1 || bx == 0 || bx > 1024 || by != 1 || bz != 1) return 1;
  if (shared || stream || extra) return 1;
  ((void (*)(void **, unsigned, unsigned))function)(parameters, gx, bx);
  return 0;
}
}
"""


def compiler() -> str | None:
    """A C++ compiler of this machine; the shim is for GCC's and Clang's on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    return shutil.which("g++") or shutil.which("clang++")


class Emulated:
    """Runs kernels on the CPU."""

    device = "cpu"

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gatewise-emulated-")
        self._driver: Driver | None = None

    def available(self) -> str | None:
        return None if compiler() else "there is no C++ compiler"

    def compile(self, text: str, device: torch.device) -> bytes:
        names = re.findall(r"__global__ void (\w+)\(", text)
        loops = "".join(LOOP.format(name=name) for name in names)
        declared = f'extern "C" {{\n{DECLARED}}}\n'
        return str(self._library(declared + SHIM + text + loops)).encode()

    def driver(self) -> Driver:
        if self._driver is None:
            self._driver = Driver(ctypes.CDLL(str(self._library(LIBCUDA))))
        return self._driver

    def stream(self, device: torch.device) -> int:
        return 0

    def here(self, device: torch.device) -> AbstractContextManager[object]:
        return nullcontext()

    def _library(self, text: str) -> Path:
        path = Path(self._folder.name) / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.so"
        if not path.exists():
            options = ["-x", "c++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
            command = [str(compiler()), *options, "-", "-o", str(path), "-ldl"]
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr + text
        return path


@cache
def platform() -> Emulated:
    """The one of this process: what it has compiled is used again."""
    return Emulated()


def emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the engine "cuda" run on the CPU."""
    if compiler() is None:
        pytest.skip("no C++ compiler to emulate a card with")
    choose = sys.modules["gatewise.engine.choose"]
    engine = CudaEngine(platform())
    order = tuple(engine if e.name == "cuda" else e for e in choose.ORDER)
    monkeypatch.setattr(choose, "ORDER", order)
