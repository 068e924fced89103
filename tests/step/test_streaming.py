"""`gatewise.Stream` on the step engine."""

from __future__ import annotations

import pytest
import torch

import gatewise as gw
from gatewise.errors import EngineError
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
    assert Stream(gw.Stack("lstm", 3, 5), control=endless).push(x).shape == (4, 1, 5)


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
