"""Ablation of many units at once against one control at a time, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bare import BareRun
from gatewise.errors import DataError, OptionError, UnknownNameError
from gatewise.insight import ablate
from gatewise.probe import Control


@pytest.fixture(scope="module")
def run() -> Any:
    return BareRun()


TEXT = "".join(chr(97 + k * k * 7 % 26) for k in range(150))


def costs(run: Any, control: Control | None) -> Any:
    ids = torch.from_numpy(run.encode(TEXT)).unsqueeze(1)
    with torch.no_grad():
        out = run.model(ids[:-1], logits="none", control=control, engine="reference")
        return run.model.token_nats(out.h, ids[1:])[:, 0].numpy()


@pytest.mark.parametrize("value", [0.0, 0.7])
@pytest.mark.parametrize("path", ["layers.0.h", "layers.1.c", "layers.0.f"])
def test_it_is_what_one_control_at_a_time_gives(run: Any, path: str, value: float) -> None:
    where = np.arange(150) % 3 == 0
    found = ablate(run, TEXT, path, value=value, where=where, batch=4)
    plain = costs(run, None)
    assert found.before == pytest.approx(plain.mean(), rel=1e-12)
    assert sorted(found.units.tolist()) == list(range(6))
    assert (np.diff(found.change) <= 0).all()
    for k, unit in enumerate(found.units.tolist()):
        change = costs(run, Control.set(path, value, units=unit)) - plain
        assert found.change[k] == pytest.approx(change.mean(), abs=1e-12)
        assert found.inside is not None
        assert found.outside is not None
        assert found.inside[k] == pytest.approx(change[where[:-1]].mean(), abs=1e-12)
        assert found.outside[k] == pytest.approx(change[~where[:-1]].mean(), abs=1e-12)


def test_some_units_alone(run: Any) -> None:
    told: list[int] = []
    whole = ablate(run, TEXT, "layers.0.h")
    some = ablate(run, TEXT, "layers.0.h", units=[4, 1, 2], batch=2, told=told.append)
    assert told == [2, 3]
    expected = dict(zip(whole.units.tolist(), whole.change.tolist(), strict=True))
    for unit, change in zip(some.units.tolist(), some.change.tolist(), strict=True):
        assert change == pytest.approx(expected[unit], abs=1e-12)
    assert some.inside is None
    assert len(ablate(run, TEXT, "layers.0.h", units=[]).units) == 0


def test_what_is_wrong_is_said(run: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown path 'layers\.2\.h'"):
        ablate(run, TEXT, "layers.2.h")
    with pytest.raises(UnknownNameError, match="unknown path 'h'"):
        ablate(run, TEXT, "h")
    with pytest.raises(OptionError, match=r"units: expected numbers from 0 to 5 of layers\.0\.h"):
        ablate(run, TEXT, "layers.0.h", units=[6])
    with pytest.raises(OptionError, match="batch: expected"):
        ablate(run, TEXT, "layers.0.h", batch=0)
    with pytest.raises(OptionError, match="value: expected a finite number, found nan"):
        ablate(run, TEXT, "layers.0.h", value=float("nan"))
    with pytest.raises(DataError, match="at least two tokens, found 1"):
        ablate(run, "a", "layers.0.h")
    with pytest.raises(DataError, match="with the mark and without, found 0 of 149"):
        ablate(run, TEXT, "layers.0.h", where=np.zeros(150, bool))
    with pytest.raises(DataError, match="a mark for each of 150 tokens, found 3"):
        ablate(run, TEXT, "layers.0.h", where=np.zeros(3, bool))
