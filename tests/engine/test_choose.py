"""Which engine runs, and how that is seen."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.engine import closed
from gatewise.errors import EngineError, EngineWarning, UnknownNameError
from parity import ENGINES


def test_every_engine_has_a_row_and_says_what_it_is() -> None:
    assert {e.name for e in gw.engines()} == set(ENGINES)
    for engine in gw.engines():
        assert engine.summary
        assert engine.available == (not engine.reason)
        assert str(engine).startswith(f"{engine.name}: ")


def test_the_fastest_that_can_is_chosen() -> None:
    assert gw.Stack("lstm", 3, 4)(torch.zeros(5, 2, 3)).engine == "closed"
    assert gw.Stack("mogrifier", 3, 4)(torch.zeros(5, 2, 3)).engine == "reference"


def test_the_compiled_engine_runs_what_the_closed_one_cannot(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["gatewise.engine.choose"], "_SAID", set())
    stack, x = gw.Stack("lstm", 3, 64), torch.zeros(16, 4, 3)
    with caplog.at_level(logging.INFO, logger="gatewise.engine"):
        assert stack(x, record=gw.Record("f")).engine == "compiled"
    assert [r.getMessage() for r in caplog.records] == [
        "engine compiled: not closed, because something is recorded"
    ]
    assert stack(x[:2], record=gw.Record("f")).engine == "reference"  # not worth compiling for


REASONS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "record": ({}, {"record": gw.Record("c")}, "something is recorded"),
    "control": ({}, {"control": gw.Control.off("o")}, "something is controlled"),
    "reset": ({}, {"reset": torch.zeros(5, 2, dtype=torch.bool)}, "there is a reset mask"),
    "zoneout": ({"zoneout": 0.1}, {}, "there is zoneout"),
    "empty": ({}, {"lengths": [0, 0]}, "every column is empty"),
    "cell": ({"cell": "lstm_layer_norm"}, {}, "torch has no kernel for the cell lstm_layer_norm"),
}


@pytest.mark.parametrize("case", REASONS)
def test_the_choice_is_logged_once_with_its_reason(
    case: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, call, reason = REASONS[case]
    stack = gw.Stack(**{"cell": "lstm", "input_size": 3, "hidden_size": 4, **build})
    x = torch.zeros(5, 2, 3)
    monkeypatch.setattr(sys.modules["gatewise.engine.choose"], "_SAID", set())
    with caplog.at_level(logging.INFO, logger="gatewise.engine"):
        assert stack(x, **call).engine == "reference"
        stack(x, **call)
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith(f"engine reference: not closed, because {reason}; not compiled, because")
    with pytest.raises(EngineError) as caught:
        stack(x, engine="closed", **call)
    assert str(caught.value) == f"engine closed cannot run this: {reason}; use engine='auto'"


def test_a_named_engine_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="gatewise.engine"):
        gw.Stack("lstm", 3, 4)(torch.zeros(5, 2, 3), engine="reference")
    assert not caplog.records


def test_an_unknown_engine() -> None:
    with pytest.raises(
        UnknownNameError, match="expected one of auto, closed, compiled, cuda, reference"
    ):
        gw.Stack("lstm", 3, 4)(torch.zeros(5, 2, 3), engine="close")


# torch's own, when forward-mode AD loads its decompositions.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("transform", ["vmap", "jvp", "vjp", "dual"])
def test_transforms_go_to_the_reference_and_say_so(transform: str) -> None:
    stack = gw.Stack("lstm", 3, 4)
    seen = []

    def run(x: torch.Tensor) -> torch.Tensor:
        out = stack(x)
        seen.append(out.engine)
        return out.h

    x = torch.randn(5, 2, 3)
    if transform == "vmap":
        torch.vmap(run)(x.unsqueeze(0))
    elif transform == "jvp":
        torch.func.jvp(run, (x,), (x,))
    elif transform == "vjp":
        torch.func.vjp(run, x)
    else:
        with torch.autograd.forward_ad.dual_level():
            run(torch.autograd.forward_ad.make_dual(x, x))
    assert seen == ["reference"]
    assert stack(x).engine == "closed"


def test_a_kernel_that_the_machine_lacks_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's LSTM refuses bfloat16 autocast on CPUs without AVX512; its GRU does not."""
    monkeypatch.setattr(closed, "_lstm_autocasts", lambda dtype: False)
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gw.Stack("lstm", 3, 4)(x).engine == "reference"
        assert gw.Stack("gru", 3, 4)(x).engine == "closed"
        with pytest.raises(EngineError, match="does not run on this CPU"):
            gw.Stack("lstm", 3, 4)(x, engine="closed")
    assert gw.Stack("lstm", 3, 4)(x).engine == "closed"


def test_a_large_run_that_falls_back_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    choosing = sys.modules["gatewise.engine.choose"]
    monkeypatch.setattr(choosing, "_WARNED", set())
    monkeypatch.setattr(choosing, "_LARGE", 64)
    stack, x = gw.Stack("mogrifier", 3, 4), torch.zeros(8, 2, 3)
    with pytest.warns(EngineWarning, match="because in the cell mogrifier") as caught:
        assert stack(x).engine == "reference"
    (warning,) = caught
    assert warning.filename == __file__
    stack(x)  # once
    gw.Stack("mogrifier", 3, 4)(x[:2])  # too small for a word
    stack(x, engine="reference")  # asked for
    torch.vmap(lambda x: stack(x).h)(x.unsqueeze(0))  # nothing else could


@pytest.mark.parametrize("wide", [True, False])
def test_a_large_net_is_trained_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, wide: bool
) -> None:
    monkeypatch.setattr(closed, "has_wide_registers", lambda: wide)
    stack, x = gw.Stack("gru", 8, 200), torch.zeros(35, 20, 8)
    faster = "compiled" if wide else "closed"
    assert stack(x).engine == faster
    assert gw.Stack("lstm", 8, 400)(x).engine == faster
    assert gw.Stack("lstm", 8, 200)(x).engine == "closed"
    assert gw.Stack("rnn_tanh", 8, 400)(x).engine == "closed"
    assert stack(x[:3]).engine == "closed"
    with torch.no_grad():
        assert stack(x).engine == "closed"
