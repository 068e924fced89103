from __future__ import annotations

import pytest
from torch import nn

from gatewise.modes import evaluating


def test_each_module_has_its_own_mode_back_even_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    model[0].eval()
    seen: list[bool] = []

    def fail() -> None:
        with evaluating(model):
            seen.extend(part.training for part in model.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [False] * 3
    assert [part.training for part in model.modules()] == [True, False, True]


def test_a_part_that_trains_inside_a_model_that_does_not() -> None:
    model = nn.Sequential(nn.Dropout(0.5)).eval()
    model[0].train()
    with evaluating(model):
        assert not model[0].training
    assert model[0].training
    with evaluating(len):  # any callable may stand for a model
        pass
