"""Record and Control: what is read is what the net used, what is set is what it then uses."""

from __future__ import annotations

import errno
import gc
import json
import os
import threading
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.autograd import gradcheck

import gatewise as gw
from gatewise.cells import REGISTRY
from gatewise.errors import (
    DataError,
    FailedError,
    OptionError,
    ShapeError,
    UnknownNameError,
    UsageError,
)
from gatewise.probe import Control, Record, Records
from gatewise.stack import control_all
from parity import CELLS
from tolerances import assert_close

T, B, I, H = 6, 3, 2, 4  # noqa: E741
EVERY_NAME = [(cell, name) for cell in CELLS for name in REGISTRY[cell].law.names()]
NAMES = pytest.mark.parametrize(("cell", "name"), EVERY_NAME)
LSTMS = pytest.mark.parametrize(
    "cell", ["lstm", "lstm_layer_norm", "lstm_peephole", "lstm_coupled", "mogrifier"]
)
CANDIDATES = {
    "gru": "n",
    "gru_paper": "n",
    "janet": "g",
    "light_gru": "n",
    "minlstm": "g.pre",
    "mingru": "n.pre",
}
"""Cells whose memory is h -> the name of what may be written to it."""
GATED = pytest.mark.parametrize("cell", [c for c in CELLS if REGISTRY[c].law.controls])


def _cell(name: str, **options: Any) -> gw.cells.Cell:
    return REGISTRY[name](I, H, dtype=torch.float64, **options)


def _x(steps: int = T) -> Tensor:
    return torch.randn(steps, B, I, dtype=torch.float64)


def _run(cell: gw.cells.Cell, x: Tensor, control: Control | None = None, **options: Any) -> Records:
    """Every value of the cell over time, under a control."""
    out = gw.unroll(cell, x, record=Record(*cell.law.names()), control=control, **options)
    assert out.record is not None
    return out.record


# --- Every name ---------------------------------------------------------------------------------


@NAMES
def test_every_name_is_recorded_and_controlled(cell: str, name: str) -> None:
    """What is set is what is recorded, and everything computed later follows from it."""
    net, x = _cell(cell), _x()
    free = _run(net, x)
    value = torch.randn_like(free[name][2])
    held = _run(net, x, Control.set(name, value, time=[2]))
    assert torch.equal(held[name][2], value)
    for other in net.law.names():
        assert torch.equal(held[other][:2], free[other][:2]), "the past is as it was"
    if cell == "slstm" and name in ("m", "m.new"):  # the scale of c and n, and of nothing else
        assert_close(held["h"], free["h"])
        assert not torch.isclose(held["c"][2], free["c"][2]).any()
        return
    assert not torch.equal(held["h"][2:], free["h"][2:]), "the future is not"


@NAMES
def test_setting_a_name_to_what_it_was_changes_nothing(cell: str, name: str) -> None:
    net, x = _cell(cell), _x()
    free = _run(net, x)
    held = _run(net, x, Control.patch(name, free[name]))
    for other in net.law.names():
        assert_close(held[other], free[other], what=other)


@NAMES
def test_recording_changes_nothing(cell: str, name: str) -> None:
    net, x = _cell(cell), _x()
    plain = gw.unroll(net, x, engine="reference").h
    assert torch.equal(gw.unroll(net, x, record=Record(name)).h, plain)


@pytest.mark.parametrize("cell", CELLS)
def test_a_control_of_the_state_is_seen_by_the_next_step(cell: str) -> None:
    """Setting h at t is starting the rest from that h."""
    net, x = _cell(cell), _x()
    value = torch.randn(B, H, dtype=torch.float64)
    held = _run(net, x, Control.set("h", value, time=[2]))
    rest = {s: held[s][2] for s in net.law.states}
    state = tuple(rest.values()) if len(rest) > 1 else value
    assert_close(_run(net, x[3:], state=state)["h"], held["h"][3:])


# --- The lecture's five controls ----------------------------------------------------------------


def _output(net: gw.cells.Cell, c: Tensor) -> Tensor:
    """What the cell lets out where its output gate is 1."""
    if net.law.name == "lstm_layer_norm":
        c = torch.nn.functional.layer_norm(c, c.shape[-1:], net.scale_c, net.shift_c)  # type: ignore[arg-type]
    return torch.tanh(c)


@LSTMS
def test_output_off(cell: str) -> None:
    """h is 0 while c lives on."""
    net, x = _cell(cell), _x()
    free = _run(net, x)
    held = _run(net, x, Control.off("o", time=[2]))
    assert torch.equal(held["h"][2], torch.zeros(B, H))
    assert torch.equal(held["c"][2], free["c"][2])
    assert held["c"][2].any()
    assert not torch.equal(held["c"][3], free["c"][3])  # h[2] = 0 is what the next step read
    always = _run(net, x, Control.off("o"))
    assert not always["h"].any()
    assert always["c"].any(-1).all()


@LSTMS
def test_output_on(cell: str) -> None:
    net, x = _cell(cell), _x()
    held = _run(net, x, Control.on("o"))
    assert torch.equal(held["h"], _output(net, held["c"]))


@LSTMS
def test_memory_reset(cell: str) -> None:
    net, x = _cell(cell), _x()
    held = _run(net, x, Control.reset(time=slice(2, 4)))
    assert torch.equal(held["c"][2:4], torch.zeros(2, B, H))
    assert held["c"][4].any()
    assert not held["f"][2:4].any()
    assert not held["i"][2:4].any()


@LSTMS
def test_memory_keep(cell: str) -> None:
    net, x = _cell(cell), _x()
    held = _run(net, x, Control.keep(time=slice(2, 5)))
    for t in range(2, 5):
        assert torch.equal(held["c"][t], held["c"][1])
    assert not torch.equal(held["c"][5], held["c"][4])


@LSTMS
def test_memory_write(cell: str) -> None:
    net, x = _cell(cell), _x()
    held = _run(net, x, Control.write())
    assert torch.equal(held["c"], held["g"])


@pytest.mark.parametrize("cell", CANDIDATES)
def test_memory_controls_where_the_memory_is_h(cell: str) -> None:
    net, x = _cell(cell), _x()
    kept = _run(net, x, Control.keep(time=slice(2, 5)))
    for t in range(2, 5):
        assert torch.equal(kept["h"][t], kept["h"][1])
    assert not torch.equal(kept["h"][5], kept["h"][4])
    reset = _run(net, x, Control.reset(time=[2]))
    assert torch.equal(reset["h"][2], torch.zeros(B, H))
    written = _run(net, x, Control.write())
    assert torch.equal(written["h"], written[CANDIDATES[cell]])


def test_every_gated_cell_has_all_memory_controls() -> None:
    """So that each is in one of the tests above, or in a file of its own (slstm)."""
    assert all(
        set(c.law.controls) in ({"keep", "reset", "write"}, set()) for c in REGISTRY.values()
    )
    gated = {name for name, c in REGISTRY.items() if c.law.controls}
    assert gated == {*LSTMS.args[1], *CANDIDATES, "slstm"}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@GATED
def test_keep_is_bit_for_bit_under_zoneout(cell: str, dtype: torch.dtype, training: bool) -> None:
    net = REGISTRY[cell](I, H, zoneout=0.3, dtype=dtype).train(training)
    state = "c" if "c" in net.law.states else "h"
    x = torch.randn(50, B, I, dtype=dtype)
    held = _run(net, x, Control.keep(time=slice(10, 40)))[state]
    for t in range(10, 40):
        assert torch.equal(held[t], held[9])


def test_keep_for_some_units_of_one_layer() -> None:
    stack = gw.Stack("lstm", I, H, 2)
    x = torch.randn(T, B, I)
    free = stack(x, record=Record("c")).record
    control = Control.keep(layer=1, units=[0, 2], time=slice(1, None), batch=slice(0, 2))
    held = stack(x, record=Record("c"), control=control).record
    assert torch.equal(held["layers.0.c"], free["layers.0.c"])
    c = held["layers.1.c"]
    assert torch.equal(c[1:, :2][..., [0, 2]], c[:1, :2][..., [0, 2]].expand(T - 1, -1, -1))
    assert torch.equal(c[:, 2], free["layers.1.c"][:, 2])
    assert not torch.equal(c[2, :2][..., 1], c[1, :2][..., 1])


@pytest.mark.parametrize("control", ["keep", "reset", "write"])
@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "indrnn"])
def test_a_plain_cell_says_that_it_cannot(cell: str, control: str) -> None:
    with pytest.raises(
        OptionError, match=rf"^cell {cell} cannot express memory {control} \(it has"
    ):
        gw.unroll(_cell(cell), _x(), control=getattr(Control, control)())


# --- What a select and an affine map are --------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "build", [Control.on, Control.off, lambda n, **k: Control.set(n, 0.3, **k)]
)
def test_a_select_does_not_compute_with_what_was_there(build: Any, bad: float) -> None:
    net, x = _cell("lstm"), _x()
    x[2] = bad
    control = build("f.pre", time=[2])
    for name in ("f.pre", "i", "o", "g", "h", "c"):
        control |= build(name, time=[2])
    held = _run(net, x, control)
    for name in ("f", "i", "g", "o", "c", "h"):
        assert held[name].isfinite().all(), name


def test_a_select_of_a_part_leaves_nan_where_it_was() -> None:
    net, x = _cell("lstm"), _x()
    x[2, 1] = float("nan")
    held = _run(net, x, Control.off("f", units=[1]))
    assert torch.equal(held["f"][..., 1], torch.zeros(T, B))
    assert held["f"][2, 1, 0].isnan()
    assert held["f"][2, 0].isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@GATED
def test_a_memory_control_keeps_a_bad_input_out_of_the_memory(cell: str, bad: float) -> None:
    """0 times NaN is NaN: a gate held at 0 must close all the same."""
    net, x = _cell(cell), _x()
    state = "c" if "c" in net.law.states else "h"
    good = _run(net, x)[state]
    x[2] = bad
    kept = _run(net, x, Control.keep(time=[2]))[state]
    assert torch.equal(kept[2], kept[1])
    assert_close(kept[1], good[1])
    some = _run(net, x, Control.keep(time=[2], units=[1], batch=[0]))[state][2]
    assert some[0, 1] == kept[1, 0, 1]
    assert bad == float("inf") or int(some.isnan().sum()) == B * H - 1  # and nowhere else
    reset = _run(net, x, Control.reset(time=[2]))[state]
    assert torch.equal(reset[2], torch.zeros(B, H))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_is_not_held_still_computes(cell: str) -> None:
    """A learned 0, or one that is there by chance, is a factor like any other: it has a gradient."""
    net, x = _cell(cell), _x(1)
    zero = torch.zeros(H, dtype=torch.float64, requires_grad=True)
    name = "i" if cell == "lstm" else "z"
    state = torch.ones(B, H, dtype=torch.float64)
    given = (state, state) if cell == "lstm" else state
    h = gw.unroll(net, x, given, control=Control.set(name, zero)).h
    (gradient,) = torch.autograd.grad(h.sum(), zero)
    assert gradient.all()


def test_output_off_closes_over_a_broken_memory() -> None:
    net, x = _cell("lstm"), _x()
    held = _run(net, x, Control.set("c", float("nan"), time=[2]) | Control.off("o", time=[2]))
    assert held["c"][2].isnan().all()
    assert torch.equal(held["h"][2], torch.zeros(B, H))


@pytest.mark.parametrize("op", ["set", "scale", "add", "patch"])
@pytest.mark.parametrize("name", ["f.pre", "f", "c.new", "c", "h"])
def test_gradients_follow_the_map(op: str, name: str) -> None:
    """To the input, to the weights and into the value, against finite differences."""
    net, x = _cell("lstm"), _x(3).requires_grad_()
    value = torch.randn(B, 2, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, value: Tensor, weight: Tensor) -> Tensor:
        control = getattr(Control, op)(name, value, units=[0, 3], time=[1, 2])
        weights = {"weight_hh": weight}
        with torch.nn.utils.stateless._reparametrize_module(net, weights):
            return gw.unroll(net, x, control=control).h

    assert gradcheck(run, (x, value, net.weight_hh), fast_mode=True)


def test_a_number_scales_the_gradient() -> None:
    """Scaling h of the last step by 3 scales its gradient by 3."""
    net, x = _cell("gru"), _x(1).requires_grad_()
    (plain,) = torch.autograd.grad(gw.unroll(net, x).h.sum(), x)
    out = gw.unroll(net, x, control=Control.scale("h", 3.0) | Control.add("h", 5.0))
    (scaled,) = torch.autograd.grad(out.h.sum(), x)
    assert_close(scaled, 3 * plain)
    (cut,) = torch.autograd.grad(gw.unroll(net, x, control=Control.set("h", x.sum())).h.sum(), x)
    assert_close(cut, torch.full_like(x, B * H))


# --- Where --------------------------------------------------------------------------------------

UNITS: dict[str, Any] = {
    "number": 1,
    "list": [1, 3],
    "slice": slice(1, None, 2),
    "range": range(1, 4, 2),
    "mask list": [False, True, False, True],
    "mask tensor": torch.tensor([False, True, False, True]),
    "mask array": np.array([False, True, False, True]),
    "tensor": torch.tensor([3, 1]),
    "array": np.array([1, 3]),
}


@pytest.mark.parametrize("kind", UNITS)
def test_selections_of_every_kind(kind: str) -> None:
    net, x = _cell("lstm"), _x()
    where = UNITS[kind]
    held = _run(net, x, Control.off("g", units=where, time=where, batch=[0, 2]))
    expected = torch.zeros(T, B, H, dtype=torch.bool)
    places = [1] if kind == "number" else [1, 3]
    times = [t for t in range(T) if t in places or (kind == "slice" and t % 2)]
    for t in times:
        for b in (0, 2):
            expected[t, b, places] = True
    assert torch.equal(held["g"] == 0, expected)


def test_a_layer_and_a_direction() -> None:
    stack = gw.Stack("gru", I, H, 2, bidirectional=True)
    x = torch.randn(T, B, I)
    paths = [f"layers.{k}{r}.z" for k in range(2) for r in ("", ".reverse")]
    for control, hit in (
        (Control.on("z"), paths),
        (Control.on("z", layer=1), paths[2:]),
        (Control.on("layers.1.z"), paths[2:3]),
        (Control.on("layers.0.reverse.z"), paths[1:2]),
        (Control.on("layers.0.reverse.z", layer=0), paths[1:2]),
    ):
        record = stack(x, record=Record("z"), control=control).record
        assert [p for p in paths if bool((record[p] == 1).all())] == hit


SHAPES: list[tuple[tuple[int, ...], dict[str, Any], tuple[int, ...]]] = [
    ((), {}, ()),
    ((H,), {}, (H,)),
    ((1,), {}, (1,)),
    ((B, H), {}, (B, H)),
    ((B, 1), {}, (B, 1)),
    ((1, H), {}, (1, H)),
    ((T, B, H), {}, (T, B, H)),
    ((T, 1, 1), {}, (T, 1, 1)),
    ((T, 1, H), {}, (T, 1, H)),
]


@pytest.mark.parametrize(("shape", "options", "_"), SHAPES, ids=str)
def test_values_of_every_shape(shape: tuple[int, ...], options: dict, _: Any) -> None:
    net, x, value = _cell("lstm"), _x(), torch.randn(shape, dtype=torch.float64)
    held = _run(net, x, Control.set("g", value, **options))
    assert torch.equal(held["g"], value.expand(T, B, H))


def test_values_for_what_is_selected() -> None:
    net, x = _cell("lstm"), _x()
    where = {"units": [3, 0], "batch": [2, 0], "time": [4, 1]}
    value = torch.randn(2, 2, 2, dtype=torch.float64)
    held = _run(net, x, Control.set("g", value, **where))["g"]
    free = _run(net, x)["g"]
    for k, t in enumerate(where["time"]):
        for m, b in enumerate(where["batch"]):
            for n, u in enumerate(where["units"]):
                assert held[t, b, u] == value[k, m, n]
    assert torch.equal(held[1, 1], free[1, 1])
    assert torch.equal(held[1, 0, 1:3], free[1, 0, 1:3])


def test_values_for_all_units_in_an_order_of_ones_own() -> None:
    net, x = _cell("lstm"), _x()
    held = _run(net, x, Control.set("g", torch.arange(4.0), units=[3, 2, 1, 0]))
    assert held["g"][0, 0].tolist() == [3, 2, 1, 0]


def test_values_of_another_dtype_are_taken() -> None:
    net = gw.cells.LSTM(I, H)
    out = gw.unroll(
        net,
        torch.randn(T, B, I),
        control=Control.set("g", torch.arange(4)) | Control.add("g", np.float64(0.5)),
        record=Record("g"),
    )
    assert out.record["g"][0, 0].tolist() == [0.5, 1.5, 2.5, 3.5]


def test_composition_goes_left_to_right() -> None:
    net, x = _cell("lstm"), _x()
    free = _run(net, x)["f"]
    double_then_add = _run(net, x, Control.scale("f", 2.0) | Control.add("f", 1.0))["f"]
    add_then_double = _run(net, x, Control.add("f", 1.0) | Control.scale("f", 2.0))["f"]
    assert torch.equal(double_then_add[0], 2 * free[0] + 1)
    assert torch.equal(add_then_double[0], 2 * (free[0] + 1))
    kept = _run(net, x, Control.keep() | Control.set("f", 0.5))
    assert (kept["f"] == 0.5).all()
    assert not kept["i"].any()
    assert torch.equal(kept["c"][1:], kept["c"][:-1] * 0.5)
    three = (Control.off("f") | Control.off("i")) | Control.off("o")
    assert [r.name for r in three.rules] == ["f", "i", "o"]


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_an_empty_control_is_none(engine: str) -> None:
    net, x = _cell("lstm"), _x()
    plain = gw.unroll(net, x, engine=engine)
    empty = gw.unroll(net, x, engine=engine, control=Control(), record=Record())
    assert (empty.engine, empty.record) == (plain.engine, None)
    assert torch.equal(empty.h, plain.h)
    nowhere = gw.unroll(net, x, engine="reference", control=Control.off("o", time=[99]))
    assert torch.equal(nowhere.h, gw.unroll(net, x, engine="reference").h)


# --- Time ---------------------------------------------------------------------------------------

TIMED = (
    Control.keep(time=slice(10, 20))
    | Control.scale("o", 0.5, time=range(12, 30, 3))
    | Control.patch("g", torch.linspace(-1, 1, 10).view(10, 1, 1), time=slice(10, 20))
)


@pytest.mark.parametrize("chunk", [1, 4, 7, 25])
def test_time_counts_from_the_start_of_the_sequence(chunk: int) -> None:
    net, x = _cell("lstm"), _x(25)
    whole = gw.unroll(net, x, control=TIMED, record=Record("c", "g"))
    state, hs, cs, times = None, [], [], []
    for start in range(0, 25, chunk):
        out = gw.unroll(
            net, x[start : start + chunk], state, start=start, control=TIMED, record=Record("c")
        )
        state = out.state
        hs.append(out.h)
        cs.append(out.record["c"])
        times.append(out.record.times)
    assert_close(torch.cat(hs), whole.h)
    assert_close(torch.cat(cs), whole.record["c"])
    assert torch.equal(torch.cat(times), whole.record.times)
    for t in range(10, 20):
        assert torch.equal(whole.record["c"][t], whole.record["c"][9])
        assert (whole.record["g"][t] == torch.linspace(-1, 1, 10)[t - 10]).all()


def test_each_column_may_have_its_own_start() -> None:
    net, x = _cell("lstm"), _x(12)
    starts = [0, 5, 11]
    record = Record("g", "c", time=slice(8, 16), every=2)
    out = gw.unroll(net, x, start=torch.tensor(starts), control=TIMED, record=record)
    assert out.record.times.shape == (len(out.record["g"]), B)
    for column, start in enumerate(starts):
        one = gw.unroll(net, x[:, column : column + 1], start=start, control=TIMED, record=record)
        assert_close(out.h[:, column], one.h[:, 0])
        mine = out.record.times[:, column].tolist()
        rows = [k for k, t in enumerate(mine) if 8 <= t < 16 and t % 2 == 0]
        assert [mine[k] for k in rows] == one.record.times.tolist()
        for name in ("g", "c"):
            values = out.record[name][:, column]
            assert_close(values[rows], one.record[name][:, 0])
            others = [k for k in range(len(mine)) if k not in rows]
            assert not values[others].any(), "times that were not asked for are 0"


def test_real_time_in_the_reverse_direction() -> None:
    stack = gw.Stack("lstm", I, H, bidirectional=True)
    x = torch.randn(25, B, I)
    control = Control.keep(time=slice(10, 20))
    out = stack(x, start=3, control=control, record=Record("c", "f"))
    c, f = out.record["layers.0.reverse.c"], out.record["layers.0.reverse.f"]
    assert out.record.times.tolist() == list(range(3, 28))
    assert [t + 3 for t in range(25) if bool((f[t] == 1).all())] == list(range(10, 20))
    for t in range(10 - 3, 20 - 3):
        assert torch.equal(c[t], c[20 - 3])


# --- Recording ----------------------------------------------------------------------------------


def test_every_time_units_and_their_times() -> None:
    net, x = _cell("lstm"), _x(12)
    whole = _run(net, x)
    out = gw.unroll(net, x, start=5, record=Record("f", every=3, time=slice(6, 14), units=[2, 0]))
    assert out.record.times.tolist() == [6, 9, 12]
    assert torch.equal(out.record["f"], whole["f"][[1, 4, 7]][..., [2, 0]])
    none = gw.unroll(net, x, record=Record("f", "h", time=[99], units=[1]))
    assert none.record["f"].shape == (0, B, 1)
    assert none.record["f"].dtype == torch.float64
    assert none.record.times.tolist() == []


def test_chunks_join_where_some_hold_no_recorded_time() -> None:
    stack = gw.Stack("lstm", I, H, 2, bidirectional=True, proj_size=2)
    record = Record("c", "h", "proj", time=slice(3, 5))
    x = torch.randn(6, B, I)
    parts = [stack(x[k : k + 2], start=k, record=record).record for k in (0, 2, 4)]
    for name in parts[0]:
        joined = torch.cat([p[name] for p in parts])
        assert joined.shape[0] == 2
    assert torch.cat([p.times for p in parts]).tolist() == [3, 4]


@pytest.mark.parametrize("kind", ["function", "folder"])
@pytest.mark.parametrize("steps", [5, 600])
def test_to_streams_all_of_it_away(kind: str, steps: int, tmp_path: Path) -> None:
    """The union of the chunks is the whole record, in both directions."""
    stack = gw.Stack("gru", I, H, bidirectional=True)
    x = torch.randn(steps, B, I)
    whole = stack(x, start=7, record=Record("z", "h", every=2)).record
    chunks: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def sink(path: str, values: Tensor, times: Tensor) -> None:
        chunks.setdefault(path, []).append((values, times))

    to = sink if kind == "function" else tmp_path / "out"
    out = stack(x, start=7, record=Record("z", "h", every=2, to=to))
    assert dict(out.record) == {}
    assert torch.equal(out.record.times, whole.times)
    for path in whole:
        if kind == "function":
            parts = sorted(chunks[path], key=lambda part: int(part[1].min()))
            assert torch.equal(torch.cat([t for _, t in parts]), whole.times)
            values = torch.cat([v for v, _ in parts])
        else:
            files = sorted((tmp_path / "out" / path).iterdir())
            assert files[0].name == "000000008-0.npz"
            read = [np.load(f) for f in files]
            values = torch.cat([torch.from_numpy(chunk["values"]) for chunk in read])
            times = torch.cat([torch.from_numpy(chunk["times"]) for chunk in read])
            assert torch.equal(times, whole.times)
        assert torch.equal(values, whole[path]), path


def test_a_folder_keeps_the_chunks_of_every_call(tmp_path: Path) -> None:
    """Calls over the same times, and columns with times of their own."""
    stack, record = gw.Stack("gru", I, H), Record("z", to=tmp_path)
    for seed in (0, 1):
        torch.manual_seed(seed)
        stack(torch.randn(3, B, I), record=record)
    stack(torch.randn(3, B, I), start=torch.arange(B) + 5, record=record)
    names = ["000000000-0.npz", "000000000-1.npz", "000000005-0.npz"]
    folder = tmp_path / "layers.0.z"
    assert sorted(f.name for f in folder.iterdir()) == names
    first, second, third = (np.load(folder / name) for name in names)
    assert not np.array_equal(first["values"], second["values"])
    assert first["times"].tolist() == second["times"].tolist() == [0, 1, 2]
    assert third["times"].tolist() == [[5 + t + b for b in range(B)] for t in range(3)]


def test_a_folder_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(FailedError, match="cannot write what is recorded") as caught:
        gw.Stack("gru", I, H)(torch.randn(3, B, I), record=Record("z", to=file))
    assert len(str(caught.value).splitlines()) == 1


def test_a_chunk_that_does_not_fit_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(file: Any, **_: Any) -> None:
        file.write(b"half a chunk")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stack = gw.Stack("gru", I, H)
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", fill)
        with pytest.raises(FailedError, match="No space left"):
            stack(torch.randn(3, B, I), record=Record("z", to=tmp_path))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    stack(torch.randn(3, B, I), record=Record("z", to=tmp_path))
    assert len(list(tmp_path.rglob("*.npz"))) == 1


def test_no_recorded_time_gives_empty_rows_for_every_name() -> None:
    stack = gw.Stack("lstm", I, H, 2, bidirectional=True)
    for asked in (
        Record("f", "layers.1.reverse.c", time=99),
        Record("f", "layers.1.reverse.c", every=7),
    ):
        found = stack(torch.randn(3, B, I), start=1, record=asked).record
        assert set(found) == {f"layers.{n}.{d}f" for n in (0, 1) for d in ("", "reverse.")} | {
            "layers.1.reverse.c"
        }
        assert all(value.shape == (0, B, H) for value in found.values())
        assert found.times.shape == (0,)
    none = stack(torch.zeros(0, B, I), record=Record("f", "h")).record
    assert len(none) == 8
    assert all(value.shape == (0, B, H) for value in none.values())


def test_records_are_detached_unless_their_graph_is_asked_for() -> None:
    net, x = _cell("lstm"), _x().requires_grad_()
    assert not _run(net, x)["f"].requires_grad
    record = gw.unroll(net, x, record=Record("f", grad=True)).record
    (gradient,) = torch.autograd.grad(record["f"].sum(), x)
    assert gradient.any()


@pytest.mark.parametrize("grad", [True, False])
def test_records_are_no_buffers_that_backward_needs(grad: bool) -> None:
    """Writing to what was recorded changes neither output nor gradient."""
    net, x = _cell("lstm"), _x(1).requires_grad_()
    (expected,) = torch.autograd.grad(gw.unroll(net, x).h.sum(), x)
    out = gw.unroll(net, x, record=Record(*net.law.names(), grad=grad))
    for value in out.record.values():
        value.detach().fill_(float("nan"))
    assert out.h.isfinite().all()
    (gradient,) = torch.autograd.grad(out.h.sum(), x)
    assert_close(gradient, expected)


def test_ragged_records_are_zero_in_the_padding() -> None:
    stack = gw.Stack("lstm", I, H, 2, bidirectional=True)
    x = torch.full((T, B, I), float("nan"))
    lengths = [2, 0, T]
    for column, length in enumerate(lengths):
        x[:length, column] = torch.randn(length, I)
    control = Control.set("c", 7.0)
    record = stack(x, lengths=lengths, control=control, record=Record("c", "f.pre")).record
    padding = torch.arange(T)[:, None] >= torch.tensor(lengths)
    for value in record.values():
        assert not value[padding].any()
        assert value[~padding].any(-1).all()
        assert value.isfinite().all()
    assert (record["layers.1.c"][~padding] == 7).all()


def test_the_order_and_keys_of_a_record() -> None:
    stack = gw.Stack("lstm", I, H, 2)
    x = torch.randn(T, B, I)
    record = stack(x, record=Record("o", "layers.1.c", "c", "o")).record
    assert list(record) == ["layers.0.o", "layers.0.c", "layers.1.o", "layers.1.c"]
    with pytest.raises(UsageError, match=r"'layers\.0\.f' was not recorded: there is layers\.0\.o"):
        record["layers.0.f"]
    assert set(stack.names()) == {f"layers.{k}.{n}" for k in (0, 1) for n in stack._law.names()}
    for name in stack.names():
        assert list(stack(x, record=Record(name)).record) == [name]


# --- Controls of code that cannot be changed ----------------------------------------------------


def test_a_block_controls_every_call_of_its_module_and_ends() -> None:
    first, second = gw.nn.LSTM(I, H), gw.nn.LSTM(I, H)
    x = torch.randn(T, B, I)
    with first.controlled(Control.off("o")):
        assert not first(x)[0].any()
        assert second(x)[0].any()
        with first.controlled(Control.on("o", time=[0])):
            y = first(x)[0]
            assert y[0].all()
            assert not y[1:].any()
        assert not first(x)[0].any()
        own = first(x, control=Control.on("o"))[0]
        assert own.all(), "a call's own control comes after the block's"
    assert first(x)[0].any()
    with pytest.raises(ZeroDivisionError), first.controlled(Control.off("o")):
        _ = 1 / 0
    assert first(x)[0].any()


def test_a_block_belongs_to_its_thread() -> None:
    lstm = gw.nn.LSTM(I, H)
    x = torch.randn(T, B, I)
    seen: list[bool] = []
    with lstm.controlled(Control.off("o")):
        thread = threading.Thread(target=lambda: seen.append(bool(lstm(x)[0].any())))
        thread.start()
        thread.join()
    assert seen == [True]


def test_a_block_does_not_pass_to_who_comes_after_its_module() -> None:
    """An id is given again once its owner is gone."""
    lstm = gw.nn.LSTM(I, H)
    with lstm.controlled(Control.off("o")):
        del lstm
        gc.collect()
        later = [gw.nn.LSTM(I, H) for _ in range(20)]
        assert all(other(torch.randn(T, B, I))[0].any() for other in later)


def test_control_all_reaches_everything_inside() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack, self.lstm = gw.Stack("lstm", I, H), gw.nn.LSTM(I, H)
            self.cell, self.step = gw.cells.LSTM(I, H), gw.nn.LSTMCell(I, H)

        def forward(self, x: Tensor) -> list[Tensor]:
            cell = gw.unroll(self.cell, x).h
            return [self.stack(x).h, self.lstm(x)[0], cell, self.step(x[0])[0]]

    net, x = Net(), torch.randn(T, B, I)
    with control_all(net, Control.off("o")):
        assert not any(h.any() for h in net(x))
    assert all(h.any() for h in net(x))
    with pytest.raises(OptionError, match="controlled takes a Control: found str"):
        control_all(net, "off").__enter__()


# --- Wrong use ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["on", "off", "set", "scale", "add", "patch", "keep", "reset"])
def test_a_constructor_on_an_instance_would_drop_the_first(name: str) -> None:
    with pytest.raises(UsageError, match=rf"write `control \| Control\.{name}\(\.\.\.\)`"):
        getattr(Control.off("o"), name)


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: Control.off("q"), UnknownNameError, "unknown name to record or control 'q': expected"),
    (lambda: Control.off("layers.7.f"), UnknownNameError, "'layers.7.f'"),
    (lambda: Control.off("f", layer=1), OptionError, "layer= is out of range: expected below 1"),
    (lambda: Control.off("f", layer=[0, 3]), OptionError, "expected below 1, found 3"),
    (lambda: Control.off("f", layer=slice(2, 5)), OptionError, "selects none of 1 layers"),
    (lambda: Control.off("f", units=[H]), OptionError, "units= is out of range: expected below 4"),
    (lambda: Control.off("f", units=slice(H, 9)), OptionError, "selects none of 4 units of f"),
    (lambda: Control.off("f", units=range(9), time=[99]), OptionError, "found 8"),
    (lambda: Control.off("f", batch=[B]), OptionError, "batch= is out of range: expected below 3"),
    (lambda: Control.off("f", units=-1), OptionError, "units= counts from 0: found -1"),
    (lambda: Control.off("f", time=slice(-5, None)), OptionError, "time= counts from 0"),
    (lambda: Control.off("f", time=slice(0, 5, 0)), OptionError, "steps of 1 or more"),
    (lambda: Control.off("f", time="12"), OptionError, "time= should be a number, a slice"),
    (lambda: Control.off("f", units=1.5), OptionError, "found 1.5"),
    (lambda: Control.off("f", units=[0.5]), OptionError, "units= should be"),
    (lambda: Control.off("f", units=torch.tensor([0.5])), OptionError, "units= should be"),
    (lambda: Control.off("f", units=[1, 1]), OptionError, "each place once: found 1 twice"),
    (lambda: Control.off(None), OptionError, "takes a name such as 'f': found None"),
    (lambda: Control.off(3), OptionError, "takes a name such as 'f': found 3"),
    (lambda: Control.set("f", "1"), OptionError, "takes a number or a tensor: found '1'"),
    (lambda: Control.set("f", True), OptionError, "takes a number or a tensor: found True"),
    (lambda: Control.set("f", None), OptionError, "takes a number or a tensor: found None"),
    (lambda: Control.patch("f", 0.5), OptionError, "Control.patch takes a tensor: found float"),
    (lambda: Control.set("f", torch.zeros(9)), ShapeError, "units of f: expected 4, found 9"),
    (lambda: Control.set("f", torch.zeros(9, H)), ShapeError, "columns of f: expected 3, found 9"),
    (
        lambda: Control.set("f", torch.zeros(3), units=[0, 1]),
        ShapeError,
        "units of f: expected 2, found 3",
    ),
    (lambda: Control.set("f", torch.zeros(1, 1, 1, 1)), ShapeError, "at most .time, batch, units."),
    (
        lambda: Control.patch("f", torch.zeros(3, B, H), time=slice(10, 20)),
        ShapeError,
        "time= selects 10, found",
    ),
]


@pytest.mark.parametrize(("build", "error", "message"), WRONG)
def test_wrong_controls_are_one_line(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        gw.unroll(_cell("lstm"), _x(), control=build())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Record("q"), UnknownNameError, "unknown name to record or control 'q'"),
        (lambda: Record(3), OptionError, "Record takes names"),
        (lambda: Record("f", every=0), OptionError, "every= should be 1 or more, found 0"),
        (lambda: Record("f", every=True), OptionError, "every= should be 1 or more"),
        (lambda: Record("f", units=[H]), OptionError, "units= is out of range"),
        (lambda: Record("f", units=[H], time=[99]), OptionError, "units= is out of range"),
        (lambda: Record("f", grad=True, to=print), OptionError, "cannot go with to="),
    ],
)
def test_wrong_records_are_one_line(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        gw.unroll(_cell("lstm"), _x(), record=build())
    assert "\n" not in str(caught.value)


def test_composing_with_something_else() -> None:
    with pytest.raises(TypeError):
        Control.off("f") | None


# --- JSON ---------------------------------------------------------------------------------------

places = st.one_of(
    st.none(),
    st.integers(0, 50),
    st.lists(st.integers(0, 50), max_size=5, unique=True),
    st.builds(slice, st.none() | st.integers(0, 9), st.none() | st.integers(0, 99), st.integers(1, 4)),
)  # fmt: skip
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
tensors = st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=1, max_size=3).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64)
)


@st.composite
def controls(draw: st.DrawFn) -> Control:
    control = Control()
    for _ in range(draw(st.integers(0, 3))):
        where = {key: draw(places) for key in ("layer", "units", "time", "batch")}
        op = draw(st.sampled_from(["on", "off", "set", "scale", "add", "patch", "keep", "reset"]))
        build = getattr(Control, op)
        name = draw(st.sampled_from(["f", "layers.0.c.new", "n.pre"]))
        if op in ("keep", "reset"):
            control |= build(**where)
        elif op in ("on", "off"):
            control |= build(name, **where)
        else:
            value = draw(tensors if op == "patch" else st.one_of(numbers, tensors))
            control |= build(name, value, **where)
    return control


@given(controls())
def test_a_control_survives_json(control: Control) -> None:
    text = control.to_json()
    again = Control.from_json(text)
    assert again.to_json() == text
    for a, b in zip(again.rules, control.rules, strict=True):
        assert (a.op, a.name, a.layer, a.units, a.time, a.batch) == (
            (b.op, b.name, b.layer, b.units, b.time, b.batch)
        )
        if isinstance(b.value, Tensor) and b.value.ndim:
            assert torch.equal(a.value, b.value)
    assert eval(repr(control), {"Control": Control}).to_json() == text  # noqa: S307


@given(st.lists(st.sampled_from(["f", "layers.1.c"])), places, places, st.integers(1, 9))
def test_a_request_survives_json(names: list[str], time: Any, units: Any, every: int) -> None:
    record = Record(*names, every=every, time=time, units=units, grad=every > 5)
    again = Record.from_json(record.to_json())
    for field in ("names", "every", "time", "units", "grad", "to"):
        assert getattr(again, field) == getattr(record, field)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_records_survive_json(dtype: torch.dtype) -> None:
    net, x = REGISTRY["lstm"](I, H, dtype=dtype), torch.randn(T, B, I, dtype=dtype)
    for record in (Record("f", "c"), Record("f", time=[99])):
        kept = gw.unroll(net, x, record=record).record
        again = Records.from_json(kept.to_json())
        assert torch.equal(again.times, kept.times)
        assert list(again) == list(kept)
        for name in kept:
            assert torch.equal(again[name], kept[name])
            assert again[name].dtype == dtype


def test_a_control_read_back_acts_the_same() -> None:
    net, x = _cell("lstm"), _x()
    control = Control.patch("g", torch.randn(B, H, dtype=torch.float64)) | Control.keep(time=[3])
    again = Control.from_json(control.to_json())
    assert torch.equal(gw.unroll(net, x, control=again).h, gw.unroll(net, x, control=control).h)


MALFORMED: list[Any] = ["", "{", "null", "3", "{}", '["off"]', '[{"op": "off"}]', b"\xff", None]
MALFORMED += [
    json.dumps([rule])
    for rule in (
        {"op": "open", "name": "f"},
        {"op": "off", "name": "f", "value": 1},
        {"op": "off", "name": 3},
        {"op": "keep", "name": "f"},
        {"op": "set", "name": "f"},
        {"op": "set", "name": "f", "value": "1"},
        {"op": "set", "name": "f", "value": True},
        {"op": "set", "name": "f", "value": {"a": 1}},
        {"op": "set", "name": "f", "value": [[1], [1, 2]]},
        {"op": "set", "name": "f", "value": ["a"]},
        {"op": "set", "name": "f", "value": float("nan")},
        {"op": "patch", "name": "f", "value": [[0.5, float("inf")]]},
        {"op": "set", "name": "f", "value": [[[[1]]]]},
        {"op": "off", "name": "f", "units": -1},
        {"op": "off", "name": "f", "units": [0.5]},
        {"op": "off", "name": "f", "units": ["a"]},
        {"op": "off", "name": "f", "units": True},
        {"op": "off", "name": "f", "units": "1"},
        {"op": "off", "name": "f", "time": {"slice": [0, 1]}},
        {"op": "off", "name": "f", "time": {"slice": [0.5, None, None]}},
        {"op": "off", "name": "f", "time": {"from": 3}},
        {"op": "off", "name": "f", "when": 3},
        {"op": ["off"], "name": "f"},
    )
]
MALFORMED += ['[{"op": "set", "name": "f", "value": 1' + "0" * 400 + "}]", "[" * 100_000]
MALFORMED += ['[{"op": "set", "name": "f", "value": ' + "1" * 5000 + "}]"]
MALFORMED += ['[{"op": "set", "name": "f", "value": [1' + "0" * 400 + "]}]"]


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: str(text)[:60])
def test_a_malformed_control_is_a_data_error(text: Any) -> None:
    with pytest.raises(DataError) as caught:
        Control.from_json(text)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"names": "f"},
        {"names": [3]},
        {"names": ["f"], "every": 0},
        {"names": ["f"], "every": "2"},
        {"names": ["f"], "grad": "yes"},
        {"names": ["f"], "time": -3},
        {"names": ["f"], "to": "/tmp"},
    ],
    ids=str,
)
def test_a_malformed_request_is_a_data_error(data: Any) -> None:
    with pytest.raises(DataError):
        Record.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "change",
    [
        {"times": "x"},
        {"values": 3},
        {"shapes": {}},
        {"dtypes": {"f": "int4"}},
        {"dtypes": {"f": ["float32"]}},
        {"shapes": {"f": [7]}},
        {"values": {"f": [[1], [1, 2]]}},
        {"more": 1},
    ],
    ids=str,
)
def test_malformed_records_are_a_data_error(change: dict[str, Any]) -> None:
    good = {"times": [0], "values": {"f": [[[1.0]]]}, "shapes": {"f": [1, 1, 1]}}
    good["dtypes"] = {"f": "float32"}
    assert Records.from_json(json.dumps(good))["f"].item() == 1
    with pytest.raises(DataError):
        Records.from_json(json.dumps({**good, **change}))
