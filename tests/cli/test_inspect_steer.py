"""`gatewise inspect steer`: what the controls do to what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gatewise as gw
from gatewise.probe import Control


def texts(called: Any) -> list[dict[str, Any]]:
    assert called.status == 0, called.err
    found: list[dict[str, Any]] = json.loads(called.out)["texts"]
    return found


def test_each_is_what_that_control_writes(gatewise: Any, trained: Path) -> None:
    words = ("inspect", "steer", trained, "def gate", "--max-tokens", "12", "--json")
    cases = [
        (("--do", "off", "--name", "o"), Control.off("o")),
        (("--do", "keep", "--time", "4:"), Control.keep(time=slice(4, None))),
        (("--do", "reset", "--time", "3"), Control.reset(time=3)),
        (("--do", "write", "--units", "0:8"), Control.write(units=slice(0, 8))),
        (
            ("--do", "set", "--name", "layers.0.c", "--units", "3,5", "--value", "-2"),
            Control.set("layers.0.c", -2.0, units=[3, 5]),
        ),
        (
            ("--do", "scale", "--name", "g", "--value", "2", "--layer", "0"),
            Control.scale("g", 2.0, layer=0),
        ),
    ]
    run = gw.load(trained)
    options = {"max_tokens": 12, "temperature": 0.0, "seed": 1}
    plain = run.generate("def gate", **options).run()[0].text
    for flags, control in cases:
        without, with_it = texts(gatewise(*words, *flags))
        assert without["text"] == plain
        assert with_it["text"] == run.generate("def gate", control=control, **options).run()[0].text
        assert Control.from_json(with_it["control"]).to_json() == control.to_json()
        expected = run.read("def gate", control=control).nats_per_token
        assert with_it["nats_per_token"] == pytest.approx(expected, rel=1e-5)


def test_a_sweep_and_a_saved_control(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    words = ("inspect", "steer", trained, "def gate", "--max-tokens", "6")
    saved = tmp_path / "c.json"
    flags = ("--do", "set", "--name", "f", "--sweep", "0,0.5,1", "--save", saved)
    called = gatewise(*words, *flags)
    assert called.status == 0, called.err
    for label in ("as it is", "set f 0,", "set f 0.5,", "set f 1,"):
        assert f"--- {label}" in called.out
    kept = gatewise(*words, "--do", "keep", "--units", "0:8", "--time", "4:")
    assert "--- memory keep (units 0:8, time 4:), the prompt costs" in kept.out
    assert Control.from_json(saved.read_text()).to_json() == Control.set("f", 1.0).to_json()
    by_file = texts(gatewise(*words, "--control", saved, "--json"))
    by_flags = texts(gatewise(*words, "--do", "set", "--name", "f", "--value", "1", "--json"))
    assert by_file[1]["text"] == by_flags[1]["text"]
    drawn = texts(gatewise(*words, "--do", "off", "--name", "o", "--temperature", "1", "--json"))
    again = texts(gatewise(*words, "--do", "off", "--name", "o", "--temperature", "1", "--json"))
    assert drawn == again


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--do: expected one of on, off,"),
        (["--do", "close"], "--do: expected one of on, off,"),
        (["--do", "off"], "--name: expected the gate or state for off, such as o"),
        (["--do", "keep", "--name", "f"], "--name: keep is of the whole memory"),
        (["--do", "off", "--name", "o", "--value", "1"], "off takes none"),
        (["--do", "set", "--name", "f"], "--value or --sweep: expected one of the two"),
        (["--do", "set", "--name", "f", "--value", "1", "--sweep", "1"], "one of the two"),
        (["--do", "set", "--name", "f", "--sweep", "a"], "--sweep: expected numbers"),
        (["--do", "off", "--name", "z"], "unknown"),
        (["--do", "off", "--name", "o", "--units", "x"], "--units: expected numbers"),
        (["--do", "off", "--name", "o", "--units", "64"], "64"),
        (["--do", "off", "--name", "o", "--layer", "3"], "layer"),
        (["--control", "FILE", "--do", "off"], "leave --do out"),
        (["--control", "FILE", "--units", "3"], "leave --units out"),
        (["--do", "set", "--name", "f", "--value", "nan"], "--value: expected a finite number"),
        (["--do", "set", "--name", "f", "--sweep", "0,inf"], "--sweep: expected finite numbers"),
        (["--do", "off", "--name", "o", "--units", "64:"], "selects none of 64 units of o"),
        (["--do", "off", "--name", "o", "--time", "5"], "time= is out of range: expected below 5"),
        (["--do", "off", "--name", "o", "--time", "9:"], "time= of a control selects none of 5"),
    ],
)
def test_wrong_use_is_one_clear_line(
    gatewise: Any, trained: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    file = tmp_path / "c.json"
    file.write_text(Control.off("o").to_json())
    given = [str(file) if word == "FILE" else word for word in words]
    called = gatewise("inspect", "steer", trained, "def", "--max-tokens", "2", *given)
    assert called.status == 2
    assert said in called.line
