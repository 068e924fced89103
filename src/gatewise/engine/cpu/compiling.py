"""From LLVM IR to functions of this processor, kept on disk. Knows modules and files; no cell."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from gatewise.folders import user_cache

_FORMAT = 1
_LOCK = threading.RLock()  # LLVM's front end is shared by all threads
_MACHINE: list[Any] = []
_ALIVE: list[Any] = []  # code must outlive its last call, so none is ever freed


def machine() -> Any:
    """The target machine of this host."""
    with _LOCK:
        if not _MACHINE:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            target = llvm.Target.from_default_triple()
            _MACHINE.append(
                target.create_target_machine(
                    cpu=llvm.get_host_cpu_name(),
                    features=llvm.get_host_cpu_features().flatten(),
                    opt=3,
                    jit=True,
                )
            )
        return _MACHINE[0]


def vector_bytes() -> int:
    """The width of this processor's registers, as the kernels use them."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") and features.get("fma") else 16


def has_dots() -> bool:
    """Whether this processor multiplies pairs of bfloat16."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512bf16") and features.get("avx512f"))


def functions(module: ir.Module, names: Sequence[str]) -> list[int]:
    """The addresses of some functions of `module`, compiled or from the cache."""
    with _LOCK:
        text = str(module)
        key = _key(text)
        stored = _read(key)
        parsed = llvm.parse_assembly(text)
        if stored is None:
            _optimise(parsed)
        engine = llvm.create_mcjit_compiler(parsed, machine())
        made: list[bytes] = []
        engine.set_object_cache(lambda _, code: made.append(code), lambda _: stored)
        engine.finalize_object()
        if stored is None and made:
            _write(key, made[0])
        _ALIVE.append(engine)
        return [engine.get_function_address(name) for name in names]


def _optimise(module: Any) -> None:
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(machine(), options)
    builder.getModulePassManager().run(module, builder)


def _key(text: str) -> str:
    host = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    parts = (str(_FORMAT), llvmlite.__version__, str(llvm.llvm_version_info), host, text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def _folder() -> Path:
    return user_cache() / "kernels"


def _read(key: str) -> bytes | None:
    """A stored object; its first 32 bytes are the sum of the rest."""
    try:
        data = (_folder() / key).read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _write(key: str, code: bytes) -> None:
    """Store an object, whole or not at all; where that fails the next process compiles again."""
    with contextlib.suppress(OSError):
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(name, folder / key)
