"""`gatewise.Stream` on the step engine."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.errors import EngineError, ShapeError
from gatewise.step.model import StepStack
from gatewise.stream import Stream
from tolerances import assert_close


def test_the_engine_that_ran_is_named() -> None:
    stack = gw.Stack("gru", 3, 5)
    for engine, ran in (("auto", "step"), ("step", "step"), ("reference", "reference")):
        stream = Stream(stack, engine=engine)
        stream.push(torch.randn(2, 1, 3))
        assert stream.ran == ran


def test_what_it_cannot_run_goes_the_other_way() -> None:
    stack, x = gw.Stack("lstm_layer_norm", 3, 5), torch.randn(4, 1, 3)
    stream = Stream(stack)
    assert_close(stream.push(x), stack(x).h.detach())
    assert stream.ran != "step"
    with pytest.raises(EngineError, match="layer_norm"):
        Stream(stack, engine="step")
    with pytest.raises(EngineError, match="layer_norm"):
        Stream(stack, dtype="int8")
    with pytest.raises(EngineError, match="reference"):
        Stream(gw.Stack("lstm", 3, 5), engine="reference", dtype="int8")
    endless = gw.Control.set("c", float("inf"))
    with pytest.raises(EngineError, match="not finite"):
        StepStack(gw.Stack("lstm", 3, 5)).start(control=endless)
    assert Stream(gw.Stack("lstm", 3, 5), control=endless).push(x).shape == (4, 1, 5)


@pytest.mark.parametrize(
    "asked", [{}, {"time": slice(0, 3)}, {"every": 2, "units": [0, 3]}, {"time": 99}]
)
def test_a_record_of_several_steps_at_once(asked: dict[str, Any]) -> None:
    stack, x = gw.Stack("lstm", 3, 5, 2), torch.randn(6, 2, 3)
    record = gw.Record("f", "layers.1.c", **asked)
    one, two = Stream(stack, 2, record=record), Stream(stack, 2, record=record, engine="reference")
    for stream in (one, two):
        stream.push(x[:2])
        stream.reset([1])  # so that the columns are at different times
    for chunk in (x[2:4], x[4:]):
        one.push(chunk)
        two.push(chunk)
        assert one.record is not None
        assert two.record is not None
        assert torch.equal(one.record.times, two.record.times)
        assert one.record.keys() == two.record.keys()
        for path, value in two.record.items():
            assert_close(one.record[path], value)


def test_inputs_elsewhere_or_of_more_digits_are_refused() -> None:
    stack = gw.Stack("lstm", 3, 5)
    for x in (torch.empty(2, 1, 3, device="meta"), torch.zeros(2, 1, 3, dtype=torch.float64)):
        with pytest.raises(ShapeError, match=r"torch.float32 on the CPU"):
            StepStack(stack).start(1).push(x)


def test_streams_do_not_keep_their_stacks_alive() -> None:
    stack = gw.Stack("lstm", 3, 5)
    watched = weakref.ref(stack)
    Stream(stack).push(torch.zeros(1, 1, 3))
    del stack
    gc.collect()
    assert watched() is None


def test_a_controls_tensor_that_changes_in_place_acts_as_it_is_now() -> None:
    stack, x, value = gw.Stack("lstm", 3, 5), torch.randn(4, 1, 3), torch.zeros(5)
    control = gw.Control.patch("c", value)
    one, two = Stream(stack, control=control), Stream(stack, control=control, engine="reference")
    for number in (0.0, 0.5):
        value.fill_(number)
        assert_close(one.push(x), two.push(x))


def test_states_with_a_graph_and_of_other_batches() -> None:
    stack, x = gw.Stack("lstm", 3, 5), torch.randn(4, 2, 3)
    packed = StepStack(stack)
    session = packed.start(2)
    packed.load_state(session, stack(x).state)  # it has a graph
    assert not session.memory.requires_grad
    session.fork([0]).push(x[:, :1])
    with pytest.raises(ShapeError, match=r"expected a state h of shape \(2, 5\), found \(1, 5\)"):
        packed.load_state(session, stack(x[:, :1]).state)


def test_states_pass_between_engines() -> None:
    stack, x = gw.Stack("lstm", 3, 5, 2), torch.randn(6, 2, 3)
    one, two = Stream(stack, 2), Stream(stack, 2, engine="reference")
    one.push(x[:3])
    two.state = one.state
    assert_close(two.push(x[3:]), stack(x).h[3:].detach())
    one.state = two.state
    assert one.time == 6


def test_a_block_of_controls_and_new_weights_act_from_the_next_push_on() -> None:
    stack, x = gw.Stack("lstm", 3, 5), torch.randn(6, 1, 3)
    stream, plain = Stream(stack), Stream(stack, engine="reference")
    off = gw.Control.off("o", units=[0, 1])
    for both in (stream, plain):
        both.push(x[:2])
    with stack.controlled(off):
        assert_close(stream.push(x[2:4]), plain.push(x[2:4]))
    with torch.no_grad():
        stack.weight_hh_l0.mul_(2)
    assert_close(stream.push(x[4:]), plain.push(x[4:]))


def test_eight_bits_on_a_stream() -> None:
    stack, x = gw.Stack("lstm", 30, 60), torch.randn(5, 1, 30)
    found = Stream(stack, dtype="int8").push(x)
    expected = stack(x).h.detach()
    assert not torch.equal(found, expected)
    assert float((found - expected).abs().max()) < 0.02
