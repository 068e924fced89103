"""The order of blocks goes with the weights."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

import gatewise as gw


@gw.cell
def forget_first(a: Any, s: Any) -> Any:
    f, g = gw.sigmoid(a.f), gw.tanh(a.g)
    return {"h": f * s.h + (1 - f) * g}, {"f": f, "g": g}


@gw.cell
def input_first(a: Any, s: Any) -> Any:
    g, f = gw.tanh(a.g), gw.sigmoid(a.f)
    return {"h": f * s.h + (1 - f) * g}, {"f": f, "g": g}


@pytest.mark.parametrize("make", [lambda c: c(2, 3), lambda c: gw.Stack(c, 2, 3, 2)])
def test_weights_in_another_order_are_refused(make: Any) -> None:
    one, other = make(forget_first), make(input_first)
    file = io.BytesIO()
    torch.save(torch.nn.Sequential(one).state_dict(), file)
    file.seek(0)
    saved = torch.load(file)
    torch.nn.Sequential(make(forget_first)).load_state_dict(saved)
    with pytest.raises(
        RuntimeError, match="0: expected weights with the blocks g, f, in this order"
    ):
        torch.nn.Sequential(other).load_state_dict(saved)


def test_keys_are_torch_s_and_its_weights_are_taken() -> None:
    mine, theirs = gw.nn.LSTM(2, 3), torch.nn.LSTM(2, 3)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    mine.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(mine.state_dict())
