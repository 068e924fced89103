"""From LLVM IR to functions of this processor, kept on disk. Knows modules and the store; no cell.

What is stored is found by its recipe: everything that determines the IR, as text. So a stored kernel costs
neither emitting nor printing IR. The sum of the emitters' own sources is part of the name.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite import ir

from gatewise.engine.cpu import store
from gatewise.engine.cpu.target import Target, current, host

_FORMAT = "3"
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


@dataclass(frozen=True)
class Written:
    """Kernels as IR.

    Args:
        module: where they are.
        names: of the functions.
        arguments: part -> its arguments in order; kept with the code.
    """

    module: ir.Module
    names: tuple[str, ...]
    arguments: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Loaded:
    """Kernels as machine code: addresses in the order of `Written.names`, and the arguments."""

    addresses: tuple[int, ...]
    arguments: dict[str, tuple[str, ...]]


def load(recipe: str, write: Callable[[], Written]) -> Loaded:
    """The kernels that a recipe determines, for `target.current`: stored ones, or compiled.

    Args:
        recipe: everything that what `write` writes follows from, the emitters and the target aside.
        write: called where nothing is stored.
    """
    target, own = current(), store.sources()
    if own is None:  # the text of the IR is its own recipe
        made = write()
        return load_text(made, target)
    with _LOCK:
        key = _key(f"{own} {recipe}", target)
        return _stored(key, target) or _made(key, write(), target)


def load_text(written: Written, target: Target) -> Loaded:
    """The same of kernels that have no recipe but the text of their IR."""
    with _LOCK:
        key = _key(f"{written.names} {written.arguments} {written.module}", target)
        return _stored(key, target) or _made(key, written, target)


def functions(module: ir.Module, names: Sequence[str]) -> list[int]:
    """The addresses of some functions of a module, for `target.current`."""
    return list(load_text(Written(module, tuple(names), {}), current()).addresses)


def _made(key: str, written: Written, target: Target) -> Loaded:
    engine, code = _compiled(str(written.module), target)
    head = {"names": written.names, "arguments": written.arguments}
    if code:
        store.write(key, json.dumps(head).encode() + b"\n" + code)
    return _addresses(engine, head)


def _stored(key: str, target: Target) -> Loaded | None:
    found = store.read(key)
    if found is None:
        return None
    line, _, code = found.partition(b"\n")
    return _addresses(_loaded(code, target), json.loads(line))


def _addresses(engine: Any, head: dict[str, Any]) -> Loaded:
    _ALIVE.append(engine)
    return Loaded(
        tuple(engine.get_function_address(name) for name in head["names"]),
        {part: tuple(names) for part, names in head["arguments"].items()},
    )


def _key(recipe: str, target: Target) -> str:
    where = f"{target.triple} {target.cpu} {target.features}"
    return store.name_of(_FORMAT, llvmlite.__version__, str(llvm.llvm_version_info), where, recipe)


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
