"""From LLVM IR to functions of this processor, kept on disk. Knows modules and files; no cell."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from gatewise.engine.cpu.target import Target, current, host
from gatewise.folders import user_cache

_FORMAT = 2
_KEEP = 512  # kernels; each 10 to 100 kB
_UNFINISHED = "unfinished-"
_ABANDONED = 3600.0  # seconds
_LOCK = threading.RLock()  # LLVM's front end is shared by all threads
_ALIVE: list[Any] = []  # code must outlive its last call, so none is ever freed


@cache
def machine(target: Target, jit: bool = False) -> Any:
    """LLVM's machine for a target."""
    if target.architecture == host().architecture:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    made = llvm.Target.from_triple(target.triple)
    model = "jitdefault" if jit else "default"
    return made.create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, jit=jit, codemodel=model
    )


def functions(module: ir.Module, names: Sequence[str]) -> list[int]:
    """The addresses of some functions of `module`, compiled for `target.current` or from the cache."""
    target = current()
    with _LOCK:
        text = str(module)
        key = _key(text, target)
        stored = _read(key)
        engine, code = _compiled(text, target) if stored is None else (_loaded(stored, target), b"")
        if code:
            _write(key, code)
        _ALIVE.append(engine)
        return [engine.get_function_address(name) for name in names]


def _compiled(text: str, target: Target) -> tuple[Any, bytes]:
    """The code of a module, and its object file."""
    parsed = llvm.parse_assembly(text)
    _optimise(parsed, machine(target, jit=True))
    engine = llvm.create_mcjit_compiler(parsed, machine(target, jit=True))
    made: list[bytes] = []
    engine.set_object_cache(lambda _, code: made.append(code), lambda _: None)
    engine.finalize_object()
    return engine, made[0] if made else b""


def _loaded(stored: bytes, target: Target) -> Any:
    """The code of a stored object file; the module's text need not be parsed."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine(target, jit=True))
    engine.add_object_file(llvm.ObjectFileRef.from_data(stored))
    engine.finalize_object()
    return engine


def assembly(module: ir.Module, target: Target) -> str:
    """The assembly text of a module, for any target."""
    with _LOCK:
        parsed, made = _optimised(module, target)
        return str(made.emit_assembly(parsed))


def object_code(module: ir.Module, target: Target) -> bytes:
    """The object file of a module, for any target."""
    with _LOCK:
        parsed, made = _optimised(module, target)
        return bytes(made.emit_object(parsed))


def _optimised(module: ir.Module, target: Target) -> tuple[Any, Any]:
    made = machine(target)
    parsed = llvm.parse_assembly(str(module))
    parsed.triple, parsed.data_layout = target.triple, str(made.target_data)
    _optimise(parsed, made)
    return parsed, made


def _optimise(module: Any, made: Any) -> None:
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(made, options)
    builder.getModulePassManager().run(module, builder)


def _key(text: str, target: Target) -> str:
    where = f"{target.triple} {target.cpu} {target.features}"
    parts = (str(_FORMAT), llvmlite.__version__, str(llvm.llvm_version_info), where, text)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def _folder() -> Path:
    try:
        return user_cache() / "kernels"
    except RuntimeError as error:  # the user has no home
        raise FileNotFoundError(str(error)) from None


def _read(key: str) -> bytes | None:
    """A stored object; its first 32 bytes are the sum of the rest."""
    try:
        path = _folder() / key
        if not (_is_own(path.parent) and _is_own(path)):
            return None
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the least recently used are dropped first
    return data[32:]


def _is_own(path: Path) -> bool:
    """Whether nobody but this user can have written there: what is read from it is run."""
    if not hasattr(os, "geteuid"):
        return True
    found = path.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _write(key: str, code: bytes) -> None:
    """Store an object, whole or not at all; where that fails the next process compiles again."""
    with contextlib.suppress(OSError):
        folder = _folder()
        folder.mkdir(0o700, parents=True, exist_ok=True)
        if not _is_own(folder):
            folder.chmod(0o700)
        handle, name = tempfile.mkstemp(dir=folder, prefix=_UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(name, folder / key)
        except OSError:
            os.unlink(name)
            raise
        _prune(folder)


def _prune(folder: Path) -> None:
    """Drop the least recently used beyond `_KEEP`, and what a killed process left behind."""
    ages: list[tuple[float, Path]] = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may drop the same
            age = time.time() - path.stat().st_mtime
            if path.name.startswith(_UNFINISHED):
                if age > _ABANDONED:
                    path.unlink()
            else:
                ages.append((age, path))
    for _, path in sorted(ages)[_KEEP:]:
        with contextlib.suppress(OSError):
            path.unlink()
