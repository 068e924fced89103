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

from gatewise.card import Driver
from gatewise.engine.closed import ClosedEngine
from gatewise.engine.cuda.engine import CudaEngine

FUNCTIONS = ("exp", "log", "log1p", "sqrt", "tanh", "fabs")

DECLARED = "".join(f"float {f}f(float); double {f}(double);\n" for f in FUNCTIONS)

SHIM = """
#define __device__
#define __global__
#define __launch_bounds__(threads, blocks)
#define __shared__ static thread_local
struct Index { unsigned x, y, z; };
static thread_local Index blockIdx, threadIdx, blockDim, gridDim;
template <class A, class B> static inline A same_bits(B b) {
  static_assert(sizeof(A) == sizeof(B), "");
  A a;
  __builtin_memcpy(&a, &b, sizeof a);
  return a;
}
static inline float __uint_as_float(unsigned u) { return same_bits<float>(u); }
static inline unsigned __float_as_uint(float v) { return same_bits<unsigned>(v); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline float half_to_float(unsigned short bits) { return same_bits<_Float16>(bits); }
static inline unsigned short float_to_half(float v) {
  return same_bits<unsigned short>((_Float16)v);
}
static inline float bfloat_to_float(unsigned short bits) {
  return same_bits<float>((unsigned)bits << 16);
}

// threads of a block take turns; what they are called by is put back when one goes on
extern "C" void gatewise_pause();
extern "C" void gatewise_together(void (*)(const void *, unsigned, unsigned), const void *, unsigned, unsigned);
static inline void take_turns() {
  const Index own = threadIdx;
  gatewise_pause();
  threadIdx = own;
}
static thread_local unsigned waiting[33], meetings[33];
static inline void meet(unsigned place, unsigned all) {
  const unsigned meeting = meetings[place];
  if (++waiting[place] == all) {
    waiting[place] = 0;
    ++meetings[place];
  } else while (meetings[place] == meeting) take_turns();
}
static inline void __syncthreads() { meet(32, blockDim.x); }

struct eight { unsigned a, b, c, d; };
template <class T> static inline eight fresh(const T *p) {
  eight v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
static inline void arrive(unsigned *met) { __atomic_fetch_add(met, 1, __ATOMIC_RELEASE); }
static inline void await_all(const unsigned *met, unsigned all) {
  while ((int)(__atomic_load_n(met, __ATOMIC_ACQUIRE) - all) < 0) take_turns();
}

// of a warp's lanes, twice over: one lane can be a product ahead of another
static thread_local unsigned lanes[2][1024][6], turn[1024];
template <float (*number)(unsigned short)>
static inline void multiply(float *c, const unsigned *a, unsigned b0, unsigned b1) {
  const unsigned thread = threadIdx.x, lane = thread % 32, side = turn[thread]++ % 2;
  const unsigned own[6] = {a[0], a[1], a[2], a[3], b0, b1};
  __builtin_memcpy(lanes[side][thread], own, sizeof own);
  meet(thread / 32, 32);
  for (unsigned r = 0; r < 4; ++r) {
    const unsigned row = lane / 4, half = r / 2, column = lane % 4 * 2 + r % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned quarter = k % 8 / 2, high = k / 8, shift = k % 2 * 16;
      const unsigned left = lanes[side][thread - lane + row * 4 + quarter][half + 2 * high];
      const unsigned right = lanes[side][thread - lane + column * 4 + quarter][4 + high];
      c[r] += number((unsigned short)(left >> shift)) * number((unsigned short)(right >> shift));
    }
  }
}
#define multiply_bfloat16 multiply<bfloat_to_float>
#define multiply_float16 multiply<half_to_float>
"""

LOOP = """
extern "C" void run_{name}(void **parameters, unsigned blocks, unsigned threads) {{
  blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
      {name}(*(const {name}_arguments *)parameters[0], *(const long long *)parameters[1]);
}}
"""

TOGETHER = """
static void one_{name}(const void *parameters, unsigned block, unsigned thread) {{
  void *const *const p = (void *const *)parameters;
  blockIdx.x = block;
  blockDim.x = {threads};
  gridDim.x = *(const unsigned *)p[2];
  threadIdx.x = thread;
  {name}(*(const {name}_arguments *)p[0], *(const long long *)p[1]);
}}
extern "C" void run_{name}(void **parameters, unsigned blocks, unsigned threads) {{
  const void *p[] = {{parameters[0], parameters[1], &blocks}};
  gatewise_together(one_{name}, p, blocks, threads);
}}
"""

BLOCKS = 3
"""Of the emulated card: as many can wait for each other."""

LIBCUDA = """
#include <dlfcn.h>
#include <ucontext.h>
#include <cstdio>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace {
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = false;
};
thread_local ucontext_t scheduler;
thread_local Fiber *current;
thread_local std::function<void()> body;
void begin() {
  Fiber *own = current;
  body();
  own->done = true;
  swapcontext(&own->context, &scheduler);
}
}

extern "C" {
void gatewise_pause() { swapcontext(&current->context, &scheduler); }

void gatewise_together(void (*kernel)(const void *, unsigned, unsigned), const void *parameters,
                       unsigned blocks, unsigned threads) {
  std::vector<std::thread> all;
  for (unsigned block = 0; block < blocks; ++block)
    all.emplace_back([=] {
      std::vector<Fiber> fibers(threads);
      unsigned thread = 0, left = threads;
      body = [&] { kernel(parameters, block, thread); };
      for (Fiber &f : fibers) {
        const size_t size = 64 << 10;
        f.stack.reset(new char[size]);
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.get();
        f.context.uc_stack.ss_size = size;
        f.context.uc_link = nullptr;
        makecontext(&f.context, begin, 0);
      }
      while (left) {
        for (thread = 0; thread < threads; ++thread) {
          current = &fibers[thread];
          if (current->done) continue;
          swapcontext(&scheduler, &current->context);
          if (current->done) --left;
        }
        std::this_thread::yield();
      }
    });
  for (std::thread &one : all) one.join();
}

int cuLaunchCooperativeKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                              unsigned by, unsigned bz, unsigned shared, void *stream, void **parameters) {
  if (gx == 0 || gy != 1 || gz != 1 || bx == 0 || bx > 1024 || by != 1 || bz != 1) return 1;
  if (shared || stream) return 1;
  if (gx > MOST_BLOCKS) return 720;
  ((void (*)(void **, unsigned, unsigned))function)(parameters, gx, bx);
  return 0;
}
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
        names = re.findall(r"__global__ void (\w+)\(const", text)
        loops = "".join(LOOP.format(name=name) for name in names)
        together = re.findall(r"__global__ void __launch_bounds__\((\d+), 1\) (\w+)\(", text)
        loops += "".join(TOGETHER.format(name=name, threads=n) for n, name in together)
        declared = f'extern "C" {{\n{DECLARED}}}\n'
        return str(self._library(declared + SHIM + text + loops)).encode()

    def driver(self) -> Driver:
        if self._driver is None:
            text = LIBCUDA.replace("MOST_BLOCKS", str(BLOCKS))
            self._driver = Driver(ctypes.CDLL(str(self._library(text)), ctypes.RTLD_GLOBAL))
        return self._driver

    def stream(self, device: torch.device) -> int:
        return 0

    def here(self, device: torch.device) -> AbstractContextManager[object]:
        return nullcontext()

    def together(self, device: torch.device) -> int:
        return BLOCKS

    def _library(self, text: str) -> Path:
        path = Path(self._folder.name) / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.so"
        if not path.exists():
            options = ["-x", "c++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
            command = [str(compiler()), *options, "-", "-o", str(path), "-ldl", "-pthread"]
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
    stand_ins = {"cuda": engine, "closed": ClosedEngine(engine)}
    order = tuple(stand_ins.get(e.name, e) for e in choose.ORDER)
    monkeypatch.setattr(choose, "ORDER", order)
