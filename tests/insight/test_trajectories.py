"""Paths of whole states against one step after another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gatewise.errors import OptionError, ShapeError
from gatewise.gradients.nets import flatten
from gatewise.insight import as_states, states_along
from gatewise.stack import Stack


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "lstm", "hidden_size": 4, "num_layers": 2},
        {"cell": "lstm", "hidden_size": [4, 3]},
        {"cell": "lstm", "hidden_size": 4, "proj_size": 2, "num_layers": 2},
        {"cell": "rnn_tanh", "hidden_size": 5},
        {"cell": "gru", "hidden_size": [3, 4]},
    ],
    ids=str,
)
def test_they_are_the_states_of_each_step(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    stack = Stack(options.pop("cell"), 3, options.pop("hidden_size"), **options).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    found = states_along(stack, x)
    state = None
    for t in range(5):
        state = stack(x[t : t + 1], state, engine="reference").state
        torch.testing.assert_close(found[t], flatten(state, 2))
    back = as_states(stack, found[3])
    again = stack(x[4:], back, engine="reference").state
    torch.testing.assert_close(flatten(again, 2), found[4])


def test_what_is_refused() -> None:
    with pytest.raises(OptionError, match="one direction"):
        states_along(Stack("gru", 3, 4, bidirectional=True), torch.zeros(2, 1, 3))
    with pytest.raises(ShapeError, match="a step or more"):
        states_along(Stack("gru", 3, 4), torch.zeros(0, 1, 3))
