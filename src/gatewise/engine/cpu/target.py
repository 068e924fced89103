"""The processor that kernels are made for: this one, or another by name. Knows LLVM's names of processors."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache

from gatewise.errors import OptionError, unknown

VARIABLE = "GATEWISE_TARGET"
"""Environment variable: a name of `TARGETS`, or "host"."""


@dataclass(frozen=True)
class Target:
    """A kind of processor.

    Args:
        name: as in $GATEWISE_TARGET.
        triple: LLVM's name of architecture, vendor and system.
        cpu: LLVM's name of the processor.
        features: LLVM's list of features, beyond those of the processor.
        vector_bytes: width of a register.
        registers: how many vector registers there are.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int

    @property
    def architecture(self) -> str:
        """Of the instructions: "x86_64" or "aarch64"."""
        first = self.triple.split("-")[0]
        return {"arm64": "aarch64", "amd64": "x86_64"}.get(first, first)

    def __str__(self) -> str:
        return f"{self.cpu}, {self.registers} registers of {self.vector_bytes} bytes"

    def has(self, feature: str) -> bool:
        """Whether the list of features names one, such as "avx512bf16"."""
        return f"+{feature}" in self.features.split(",")


_LINUX = "-unknown-linux-gnu"
_WHOLE = "-prefer-256-bit"  # or LLVM splits registers of 64 bytes in two for some processors
TARGETS = {
    t.name: t
    for t in (
        Target("x86-64-v2", f"x86_64{_LINUX}", "x86-64-v2", "", 16, 16),
        Target("x86-64-v3", f"x86_64{_LINUX}", "x86-64-v3", "", 32, 16),
        Target("x86-64-v4", f"x86_64{_LINUX}", "x86-64-v4", _WHOLE, 64, 32),
        Target("aarch64", f"aarch64{_LINUX}", "generic", "", 16, 32),
        Target("apple-m1", "arm64-apple-macosx11.0.0", "apple-m1", "", 16, 32),
    )
}
"""Processors that code can be emitted for by name."""


def current() -> Target:
    """The target of this process: $GATEWISE_TARGET, or the processor it runs on.

    Raises:
        UnknownNameError: if there is no such target.
        OptionError: if this processor cannot run its code.
    """
    name = os.environ.get(VARIABLE, "") or "host"
    return host() if name == "host" else _chosen(name)


@cache
def _chosen(name: str) -> Target:
    if name not in TARGETS:
        raise unknown(VARIABLE, name, ["host", *TARGETS])
    target, here = TARGETS[name], host()
    if target.architecture != here.architecture:
        raise OptionError(
            f"{VARIABLE}={name} is for {target.architecture}: expected a target of this machine "
            f"({here.architecture}), or host"
        )
    if target.vector_bytes > here.vector_bytes:
        raise OptionError(
            f"{VARIABLE}={name} has registers of {target.vector_bytes} bytes, this processor "
            f"({here.cpu}) of {here.vector_bytes}: expected a smaller target, or host"
        )
    return Target(name, here.triple, target.cpu, *_shape_of(target))


def _shape_of(target: Target) -> tuple[str, int, int]:
    return target.features, target.vector_bytes, target.registers


@cache
def host() -> Target:
    """The processor that this process runs on."""
    import llvmlite.binding as llvm

    found = llvm.get_host_cpu_features()
    width, count = _registers(found)
    features = ",".join(filter(None, (found.flatten(), _WHOLE if width == 64 else "")))
    return Target(
        "host", llvm.get_default_triple(), llvm.get_host_cpu_name(), features, width, count
    )


def _registers(features: dict[str, bool]) -> tuple[int, int]:
    """Width and number of the vector registers that kernels use."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return 16, 32
    if features.get("avx512f"):
        return 64, 32
    return (32 if features.get("avx2") and features.get("fma") else 16), 16


def unsupported() -> str | None:
    """Why there can be no kernels on this machine, or None."""
    machine = platform.machine().lower()
    if sys.maxsize < 1 << 32 or machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        return f"there are no kernels for {platform.machine()}"
    if sys.platform == "win32":
        return "there are no kernels for Windows"
    return None
