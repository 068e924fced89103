"""The probes do what they say that they do, and know where they do it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewise.bench import ceilings
from gatewise.bench.ceilings import Ceiling, Ceilings

pytest.importorskip("llvmlite", reason="llvmlite is not installed")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_SECONDS", 0.0)
    monkeypatch.setattr(ceilings, "_TURNS", 2)
    monkeypatch.setattr(ceilings, "_SIZE", 16)


@pytest.mark.parametrize("size", [1, 4096, 100_000])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_byte_is_read(size: int, workers: int) -> None:
    from gatewise.bench.probes import Reader

    reader = Reader(size, workers)
    assert size <= reader.size < size + 512 * workers + 512
    for passes in (1, 3):  # the sum of all ones, which the kernel gives, says how many were read
        assert reader.run(passes) in {passes * reader.size * k // workers for k in (1, workers)}


def test_a_reader_that_reads_less_is_found_out() -> None:
    from gatewise.bench.probes import Reader

    reader = Reader(4096, 1)
    reader._memory[100] = 0
    with pytest.raises(AssertionError, match="did not read"):
        reader.run(1)


@pytest.mark.parametrize("dtype", ceilings.DTYPES)
def test_operations_are_counted(dtype: str) -> None:
    from gatewise.bench.probes import Arithmetic, arithmetic, instructions

    loop = arithmetic(dtype)
    if isinstance(loop, str):
        assert "no " in loop
        return
    each = next(i.operations for i in instructions() if i.dtype == dtype)
    assert isinstance(loop, Arithmetic)
    assert loop.run(10, 1) == 10 * loop.operations
    assert loop.operations % each == 0


def test_an_unknown_dtype_has_a_reason() -> None:
    assert ceilings.instructions("float8", 1) == (
        "instructions float8",
        "no instruction for float8 is known",
    )


def test_all_limits_of_this_machine() -> None:
    said: list[str] = []
    found = ceilings.measure((1,), said.append)
    assert {c.name for c in found.found if c.what == "reading"} == {"L1", "L2", "L3", "DRAM"}
    assert {c.name for c in found.found if c.what == "matmul"} == {"float64", "float32", "bfloat16"}
    assert all(c.best >= c.median > 0 for c in found.found)
    assert ("matmul int8", "torch has no public one") in found.missing
    assert said[-1] == "the machine: reading"


def test_a_ceiling_is_the_better_of_both_ways() -> None:
    found = Ceilings((
        Ceiling("instructions", "float32", 2, 7.0, 6.0),
        Ceiling("matmul", "float32", 2, 5.0, 5.0),
        Ceiling("matmul", "float32", 1, 9.0, 9.0),
        Ceiling("reading", "L2", 2, 3.0, 2.0, 100),
    ))  # fmt: skip
    assert found.arithmetic("float32", 2) == 7.0
    assert found.arithmetic("bfloat16", 2) is None
    assert found.reading("L2", 2) == 3.0
    assert found.reading("L2", 1) is None


def test_sizes_of_caches_as_the_system_says(tmp_path: Path) -> None:
    for number, (level, kind, size) in enumerate(
        [
            ("1", "Data", "48K"),
            ("1", "Instruction", "64K"),
            ("2", "Unified", "2M"),
            ("4", "U", "1G"),
        ]
    ):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    (tmp_path / "index9").mkdir()  # says nothing
    found = ceilings.cache_sizes(tmp_path)
    assert found == {"L1": 48 << 10, "L2": 2 << 20, "L3": 16 << 20}
    assert ceilings.cache_sizes(tmp_path / "none")["L1"] == 32 << 10


def test_levels_lie_in_their_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"L1": 48 << 10, "L2": 1 << 20, "L3": 32 << 20}
    monkeypatch.setattr(ceilings, "cache_sizes", lambda: sizes)
    for threads in (1, 2):
        for level, size in ceilings.levels(2).items():
            assert ceilings.level_of(size(threads), threads) == level
