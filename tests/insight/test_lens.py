"""The lens, against the decoder called by hand, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bare import BareRun
from gatewise.errors import DataError, OptionError
from gatewise.insight import fit, lens
from gatewise.probe import Control, Record

TEXT = "".join(chr(97 + k * k * 7 % 26) for k in range(40))


@pytest.fixture(scope="module")
def run() -> Any:
    return BareRun()


def read(run: Any, *paths: str, control: Control | None = None) -> Any:
    ids = torch.from_numpy(run.encode(TEXT)).unsqueeze(1)
    with torch.no_grad():
        return ids, run.model(ids, record=Record(*paths), control=control, engine="reference")


@pytest.mark.parametrize(
    "control", [None, Control.reset(layer=0, time=7) | Control.set("layers.1.f", 0.3)]
)
def test_each_value_is_what_the_decoder_says_of_it(run: Any, control: Control | None) -> None:
    ids, out = read(run, "layers.0.h", "layers.0.c", "layers.1.c", control=control)
    found = lens(run, TEXT, top=2, control=control)
    # of an LSTM h = o tanh(c), so that with o = 1 it is tanh(c)
    values = {
        "layers.0.h": out.record["layers.0.h"],
        "layers.0.h, o open": out.record["layers.0.c"].tanh(),
        "layers.1.h, o open": out.record["layers.1.c"].tanh(),
        "layers.1.h": out.h,
    }
    assert list(found.said) == list(values)
    for name, h in values.items():
        scores = run.model.scores(h)[:, 0].detach().log_softmax(-1)
        nats = -scores[:-1].gather(1, ids[1:]).squeeze(1)
        said = found.said[name]
        assert said.nats[:-1] == pytest.approx(nats.numpy(), abs=1e-9)
        assert np.isnan(said.nats[-1])
        best = scores.topk(2)
        assert said.ids.tolist() == best.indices.tolist()
        assert said.probabilities == pytest.approx(best.values.exp().numpy(), abs=1e-9)
        assert said.agrees.tolist() == (scores.argmax(-1) == out.logits[:, 0].argmax(-1)).tolist()
    assert found.said["layers.1.h"].agrees.all()


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("gru", ["layers.0.h", "layers.1.h"]),
        ("lstm_peephole", ["layers.0.h", "layers.0.h, o open", "layers.1.h, o open", "layers.1.h"]),
    ],
)
def test_other_cells(cell: str, names: list[str]) -> None:
    found = lens(BareRun(cell=cell), TEXT)
    assert list(found.said) == names
    assert bool(found.notes) == (cell == "gru")


def test_layers_of_another_width_are_read_by_a_fitted_map_alone() -> None:
    run = BareRun(hidden_sizes=(4, 6))
    found = lens(run, TEXT)
    assert list(found.said) == ["layers.1.h, o open", "layers.1.h"]
    assert "layer 0" in found.notes[0]
    fitted = fit(run, TEXT * 9, ridge=0.0)
    assert fitted.explained["layers.0.h"] <= 1
    assert fitted.map("layers.0.h", torch.zeros(3, 4)).shape == (3, 6)
    assert "layers.0.h" in lens(run, TEXT, fitted=fitted).said


def test_the_map_is_that_of_least_squares(run: Any) -> None:
    from gatewise.insight import read_long

    text = TEXT * 9
    record = read_long(run, text, record=["layers.0.h", "layers.1.h"]).record
    known = len(text) - len(text) // 10
    x = np.concatenate((record["layers.0.h"], np.ones((len(text), 1))), 1)[:known]
    expected = np.linalg.lstsq(x, record["layers.1.h"][:known], rcond=None)[0]
    found = fit(run, text, ridge=0.0).weights["layers.0.h"]
    assert found.numpy() == pytest.approx(expected, abs=1e-4)


def test_what_is_refused(run: Any) -> None:
    with pytest.raises(DataError, match="expected a text of 1"):
        lens(run, "")
    for top in (0, 10_000, True):
        with pytest.raises(OptionError, match="top"):
            lens(run, TEXT, top=top)
    with pytest.raises(OptionError, match="batch="):
        lens(run, TEXT, control=Control.off("o", batch=0))
    with pytest.raises(DataError, match="to fit the lens on"):
        fit(run, "abc")
    with pytest.raises(OptionError, match="ridge"):
        fit(run, TEXT, ridge=float("nan"))
