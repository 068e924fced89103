"""From contestants to tables, aims and the JSON document, with results made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gatewise.bench import aims, scaling, tables
from gatewise.bench.ceilings import Ceiling, Ceilings
from gatewise.bench.contestants import Contestant, Excluded
from gatewise.bench.match import Match, hold
from gatewise.bench.parity import error
from gatewise.bench.report import Left, Report, Row, Table
from gatewise.bench.timing import Plan, spread

# ---------------------------------------------------------------------------- the form of the document

NUMBER = (int, float)
SPREAD = {"median": float, "q1": float, "q3": float, "least": float, "rounds": int}
DOCUMENT: dict[str, Any] = {
    "format": int,
    "settings": {
        "verb": str, "threads": int, "seconds": NUMBER, "rounds": int, "seed": int,
        "compile": bool, "contestants": [str],
    },
    "machine": {
        "gatewise": str, "torch": str, "python": str, "system": str, "processor": str,
        "instructions": [str], "caches": {str: int}, "cores": int, "threads": int,
    },
    "ceilings": {
        "found": [{"what": str, "name": str, "threads": int, "best": float, "median": float,
                   "size": int}],
        "missing": [{"name": str, "why": str}],
    },
    "tables": [{
        "kind": str, "title": str, "size": {str: (str, int)}, "floors": {str: float}, "notes": [str],
        "rows": [{
            "name": str, "label": str, "dtype": str, "engine": str, "seconds": SPREAD,
            "speed": {str: float}, "speed_by_round": {str: SPREAD}, "error": (float, type(None)),
            "rate": (float, type(None)), "share_of_ceiling": (float, type(None)),
            "more": {str: NUMBER},
        }],
        "left_out": [{"name": str, "label": str, "dtype": str, "why": str, "wrong": bool}],
    }],
    "aims": [{
        "key": str, "text": str, "statistic": str, "value": float, "sense": str,
        "aim": (float, type(None)), "met": (bool, type(None)), "over": [str],
    }],
}  # fmt: skip
"""The document of format 1: every key with the type of its value; {str: ...} is any name."""


def check_form(found: Any, form: Any, where: str = "") -> None:
    """Fail where a document has another form."""
    if isinstance(form, dict) and set(form) == {str}:
        assert isinstance(found, dict), where
        for name, value in found.items():
            check_form(value, form[str], f"{where}.{name}")
    elif isinstance(form, dict):
        assert isinstance(found, dict), where
        assert set(found) == set(form), f"{where}: {set(found) ^ set(form)}"
        for name, part in form.items():
            check_form(found[name], part, f"{where}.{name}")
    elif isinstance(form, list):
        assert isinstance(found, list), where
        for k, value in enumerate(found):
            check_form(value, form[0], f"{where}[{k}]")
    else:
        assert isinstance(found, form), f"{where}: {found!r} is no {form}"


# ---------------------------------------------------------------------------- a match


def _match(**contestants: Contestant[None, Tensor]) -> Match[None, Tensor]:
    return Match(
        "train",
        "made up",
        {"T": 1},
        None,
        contestants,
        lambda entry, _: error([entry], [torch.ones(4)]),
        lambda entry, _: lambda: entry.sum(),
        ("base", "gone"),
        operations=dict.fromkeys(contestants, 100.0),
        label=lambda text: text.upper(),
    )


def _gone(_: None) -> Tensor:
    raise Excluded("it has gone")


def test_who_is_wrong_or_absent_is_not_timed() -> None:
    right, wrong = (lambda _: torch.ones(4)), (lambda _: torch.full((4,), 1.5))
    match = _match(
        base=Contestant("base", "float32", right),
        peer=Contestant("peer", "float32", wrong),
        mine=Contestant("mine", "float32", wrong, ours=True),
        gone=Contestant("gone", "float32", _gone),
        other=Contestant("other", "bfloat16", lambda _: torch.full((4,), 1.01)),
    )
    said: list[str] = []
    ceilings = Ceilings((Ceiling("matmul", "float32", 2, 1e12, 1e12),))
    table = hold(match, Plan(seconds=0.0), ceilings, 2, said.append)
    assert [row.name for row in table.rows] == ["base", "other"]
    assert {(e.name, e.wrong) for e in table.left} == {
        ("peer", False), ("mine", True), ("gone", False),
    }  # fmt: skip
    assert {e.why for e in table.left if e.name == "gone"} == {"it has gone"}
    base = table.rows[0]
    assert base.label == "BASE"
    assert base.speeds == {"base": 1.0}
    assert base.error == 0.0
    assert base.rate == pytest.approx(100.0 / base.seconds.median)
    assert base.share == pytest.approx(base.rate / 1e12)
    assert table.floors == {"float32": 1e-10}
    assert table.rows[1].share is None
    assert said == ["made up: parity", "made up: timing 2 contestants"]
    report = Report({}, {}, {}, [table], [])
    assert [e.name for e in report.wrong] == ["mine"]


def test_nobody_left_is_an_empty_table() -> None:
    table = hold(
        _match(gone=Contestant("gone", "float32", _gone)), Plan(), Ceilings(()), 1, lambda _: None
    )
    assert table.rows == []
    assert tables.contest(table).row_count == 0


# ---------------------------------------------------------------------------- aims


def _row(name: str, seconds: float, dtype: str = "float32", **more: Any) -> Row:
    return Row(name, name, dtype, spread([seconds]), **more)


def _training(hidden: int, gates: float, cell: str = "lstm") -> Table:
    size = {"cell": cell, "T": 35, "B": 20, "H": hidden, "L": 2}
    bases = {"torch": 4.0, "torch-bf16": 3.0}
    times = {**bases, "gatewise": 4.0, "gatewise-gates": 4.1, "gatewise-bf16": gates / 1.01}
    times["gatewise-bf16-gates"] = gates
    rows = [
        _row(n, s, speeds={base: own / s for base, own in bases.items()}) for n, s in times.items()
    ]
    return Table("train", f"H {hidden}", size, rows)


def test_aims_of_training() -> None:
    verdicts = {v.key: v for v in aims.judge([_training(200, 1.0), _training(650, 2.0)])}
    mean = verdicts["train.bf16.torch.mean"]
    assert mean.value == pytest.approx(8**0.5)
    assert mean.met is True
    assert mean.over == ["T35 B20 H200 L2", "T35 B20 H650 L2"]
    least = verdicts["train.bf16.torch-bf16.least"]
    assert (least.value, least.met) == (1.5, True)
    assert verdicts["train.float32.least"].value == pytest.approx(4 / 4.1)
    assert verdicts["train.float32.least"].met is False
    assert verdicts["train.float32.h200"].over == ["T35 B20 H200 L2"]
    assert verdicts["train.bfloat16.gates"].value == pytest.approx(1.01)
    assert verdicts["train.bfloat16.gates"].met is True
    assert verdicts["train.float32.gates"].met is True
    assert "train.bfloat16.control" not in verdicts  # nobody measured it
    assert "train.gru.bf16.torch.mean" not in verdicts


def test_a_gru_is_shown_without_an_aim() -> None:
    verdicts = aims.judge([_training(200, 1.0, "gru")])
    shown = next(v for v in verdicts if v.key == "train.gru.bf16.torch.mean")
    assert (shown.value, shown.aim, shown.met) == (4.0, None, None)
    assert "train.bf16.torch.mean" not in {v.key for v in verdicts}


def _stepping(batch: int, int8: float) -> Table:
    size = {"H": 256, "V": 100, "B": batch, "L": 2}
    rows = [
        _row("onnx-int8", 40.0, "int8"),
        _row("onnx-int8-1", 30.0, "int8"),
        _row(
            "gatewise-int8", int8, "int8",
            more={"tokens_per_second": batch / int8, "over_reading": int8 / 8.0},
        ),
    ]  # fmt: skip
    return Table("step", "", size, rows)


def test_aims_of_steps() -> None:
    verdicts = {v.key: v for v in aims.judge([_stepping(1, 10.0), _stepping(16, 40.0)])}
    assert verdicts["step.int8"].value == 3.0  # beside the better of both
    assert verdicts["step.int8.reading"].value == 1.25
    assert verdicts["step.int8.reading"].sense == "<="
    assert verdicts["step.b16.int8"].value == 0.75
    assert verdicts["step.b16.int8"].met is False
    assert verdicts["step.b16.tokens"].value == pytest.approx(4.0)


def test_aims_of_cells() -> None:
    rows = [
        _row("gatewise", 4.0, rate=4 / 4.0),
        _row("coupled", 3.3, rate=3 / 3.3, speeds={"coupled-loop": 5.0}),
    ]
    first = Table("first", "", {"T": 1}, [_row("cold", 0.5), _row("warm", 0.2)])
    table = Table("cell", "", {"T": 1}, rows)
    verdicts = {v.key: v for v in aims.judge([table, first])}
    assert verdicts["cell.float32.operation"].value == pytest.approx(1.1)
    assert verdicts["cell.loop"].met is True
    assert verdicts["cell.first.cold"].met is True
    assert verdicts["cell.first.warm"].met is False


def test_every_aim_has_its_own_key() -> None:
    keys = [aim.key for aim in aims.AIMS]
    assert len(set(keys)) == len(keys)


# ---------------------------------------------------------------------------- what is shown

MACHINE: dict[str, Any] = {
    "gatewise": "0", "torch": "2", "python": "3", "system": "x", "processor": "a processor",
    "instructions": ["avx2"], "caches": {"L1": 1}, "cores": 4, "threads": 2,
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "verb": "train", "threads": 2, "seconds": 1.0, "rounds": 3, "seed": 0, "compile": False,
    "contestants": [],
}  # fmt: skip
LIMITS = {
    "found": [
        {
            "what": "matmul",
            "name": "float32",
            "threads": 1,
            "best": 2e11,
            "median": 1e11,
            "size": 0,
        },
        {"what": "reading", "name": "L1", "threads": 2, "best": 9e11, "median": 8e11, "size": 4},
    ],
    "missing": [{"name": "matmul int8", "why": "none"}],
}


def _report() -> Report:
    table = Table(
        "train",
        "a title",
        {"cell": "lstm", "T": 35, "B": 20, "H": 200, "L": 2},
        [
            _row("torch", 2e-3, speeds={"torch": 1.0}, error=1e-6),
            _row("gatewise-bf16-gates", 1e-3, "bfloat16", speeds={"torch": 2.0}, engine="compiled"),
        ],
        [
            Left(name, "torch.compile", dtype, "it takes long")
            for name, dtype in (("torch-compile", "float32"), ("other", "int8"))
        ],
        {"bfloat16": 5e-4},
        ["a note"],
    )
    return Report(SETTINGS, MACHINE, LIMITS, [table], aims.judge([table]))


def test_the_document_has_its_form() -> None:
    document = json.loads(json.dumps(_report().document()))
    check_form(document, DOCUMENT)
    assert document["format"] == 1
    with pytest.raises(AssertionError, match="key"):
        check_form([{"key": 1}], [{"key": str}], "")


def _keys(form: Any) -> set[str]:
    if isinstance(form, list):
        return _keys(form[0])
    if not isinstance(form, dict):
        return set()
    return {k for k in form if isinstance(k, str)}.union(*(_keys(part) for part in form.values()))


def test_the_page_names_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    section = page[page.index("## `--json`") :]
    assert {key for key in _keys(DOCUMENT) if f"`{key}`" not in section} == set()


def test_tables_show_it_all() -> None:
    text = " ".join(tables.render(_report(), width=110).split())
    for part in (
        "a processor, 2 of 4 cores, avx2", "torch matmul float32", "200", "GFLOP/s", "a title",
        "compiled", "x torch", "2.00", "left out: torch.compile (fp32), torch.compile (int8): it takes long", "a note",
        "at the ceiling of bfloat16: 500 us, 4.0 x torch", "aims", ">= 2.3", "missed", "T35 B20",
    ):  # fmt: skip
        assert part in text, part
    assert "\x1b" not in text
    assert "\x1b" in tables.render(_report(), width=110, colour=True)
    plain = tables.render(_report(), width=80).splitlines()
    assert max(len(line) for line in plain if "note" not in line) <= 80
    assert not [line for line in plain if line != line.rstrip()]


# ---------------------------------------------------------------------------- how time grows


def _grown() -> list[Table]:
    rows = []
    for size in scaling.all_sizes():
        seconds = 1e-6 * size.steps * size.batch * size.hidden**2
        numbers = {"T": size.steps, "B": size.batch, "H": size.hidden, "L": size.layers}
        rows.append(Table("train", "", {"cell": "lstm", **numbers}, [_row("torch", seconds)]))
    return rows


def test_exponents_of_growth() -> None:
    found = scaling.document(_grown())
    assert {axis: round(v["torch"]["exponent"], 6) for axis, v in found.items()} == {
        "T": 1.0, "B": 1.0, "H": 2.0,
    }  # fmt: skip
    for axis, (_, values) in scaling.AXES.items():
        assert [n for n, _ in found[axis]["torch"]["points"]] == list(values)
    assert scaling.exponent([(1, 1.0)]) is None


def test_a_plot(tmp_path: Any) -> None:
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    for name in ("a.png", "a.svg"):
        scaling.check_plot(tmp_path / name)
        scaling.plot(_grown(), tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
