"""Runs a kernel on the threads that torch's operators run on: a second pool would fight the first.

torch's workers spin for a while after each operator; other threads would have to share the processors
with them. So the kernel's address goes to ``GOMP_parallel`` of the OpenMP library that torch has loaded.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_STARTED_IN = os.getpid()


@cache
def _openmp() -> Any:
    """torch's libgomp, its functions known to the kernels; None where torch has another one."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        lines = []
    paths = {line.split()[-1] for line in lines if "libgomp" in line}
    for path in sorted(paths):
        try:
            library = ctypes.CDLL(path)
            library.GOMP_parallel.argtypes = (
                ctypes.c_void_p,
                ctypes.c_void_p,
                ctypes.c_uint,
                ctypes.c_uint,
            )
            library.GOMP_parallel.restype = None
        except (OSError, AttributeError):
            continue
        return library
    return None


_INSTEAD = {  # where torch has no libgomp: this is the one thread
    "omp_get_thread_num": ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 0),
    "omp_get_num_threads": ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1),
}


@cache
def publish() -> None:
    """Tell the compiler where the functions are that kernels call."""
    library = _openmp()
    for name, instead in _INSTEAD.items():
        found = instead if library is None else getattr(library, name)
        llvm.add_symbol(name, ctypes.cast(found, ctypes.c_void_p).value)
    process = ctypes.CDLL(None)
    for name in ("sched_yield", "logf", "log"):
        llvm.add_symbol(name, ctypes.cast(getattr(process, name), ctypes.c_void_p).value)


def run(address: int, arguments: Sequence[int], threads: int) -> None:
    """Call the kernel at `address` on as many threads of torch's pool, or fewer."""
    data = (ctypes.c_int64 * len(arguments))(*arguments)
    call(address, ctypes.addressof(data), threads)


def call(address: int, data: int, threads: int) -> None:
    """The same, with the address of arguments that lie in memory already."""
    library = _openmp()
    # libgomp's pool does not survive a fork
    if library is None or threads < 2 or os.getpid() != _STARTED_IN:
        _KERNEL(address)(data)
    else:
        library.GOMP_parallel(address, data, threads, 0)
