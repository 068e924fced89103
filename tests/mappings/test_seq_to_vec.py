"""Sequence to vector: padding and missing numbers, readouts, prefixes, engines, learning."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gatewise as gw
from gatewise.errors import DataError, OptionError, ShapeError
from gatewise.mappings.labelled import balanced, scales
from gatewise.mappings.readout import READOUTS
from gatewise.mappings.seq_to_vec import SequenceToVector, VectorConfig, VectorOptions
from gatewise.text.ragged import Ragged

EACH = pytest.mark.parametrize("readout", READOUTS)
BOTH = pytest.mark.parametrize("bidirectional", [False, True])


def build(sizes: dict[str, Any] | None = None, **options: Any) -> SequenceToVector:
    torch.manual_seed(0)
    chosen = VectorOptions(**{"embedding_size": 4, "hidden_size": 5, **options})
    return SequenceToVector(
        VectorConfig.from_options(chosen, **(sizes or {"vocab_size": 9, "outputs": 3}))
    ).double()


@EACH
@BOTH
def test_padding_and_other_columns_change_nothing(readout: str, bidirectional: bool) -> None:
    model = build(readout=readout, bidirectional=bidirectional, num_layers=2)
    x, lengths = torch.randint(9, (6, 4)), [6, 1, 4, 0]
    whole = model(x, lengths)
    for column, length in enumerate(lengths[:3]):
        alone = model(x[:length, column : column + 1])
        torch.testing.assert_close(whole.scores[column], alone.scores[0])
        if whole.weights is not None:
            torch.testing.assert_close(whole.weights[:length, column], alone.weights[:, 0])
    assert not whole.scores.isnan().any()


@EACH
@BOTH
def test_a_prediction_after_every_step_is_that_of_each_prefix(
    readout: str, bidirectional: bool
) -> None:
    model = build(readout=readout, bidirectional=bidirectional)
    x = torch.randint(9, (5, 2))
    found = model.over_time(x)
    for steps in range(1, 6):
        torch.testing.assert_close(found[steps - 1], model(x[:steps]).scores)


@EACH
def test_engines_agree_on_every_gradient(readout: str) -> None:
    model = build(readout=readout, bidirectional=True, smoothing=0.1)
    x, lengths, targets = torch.randint(9, (6, 4)), torch.tensor([6, 1, 4, 2]), torch.arange(4) % 3
    found = []
    for engine in ("reference", "auto"):
        model.zero_grad()
        model.loss(x, lengths, targets, engine=engine)[0].backward()
        found.append([p.grad for p in model.parameters()])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_last_is_where_each_direction_ends() -> None:
    model = build(bidirectional=True)
    x, lengths = torch.randint(9, (6, 2)), [6, 3]
    out = model(x, lengths)
    h = out.h
    ends = torch.stack([torch.cat((h[e - 1, k, :5], h[0, k, 5:])) for k, e in enumerate(lengths)])
    torch.testing.assert_close(out.scores, model.decoder(ends))


def test_missing_numbers_are_marked_and_scaled_away() -> None:
    sizes = {"channels": 2, "marks": 1, "outputs": 2, "target": "number"}
    model = build(sizes)
    model.shift, model.scale = torch.tensor([[1.0, 2.0], [2.0, 4.0]]).double()
    x = torch.tensor([[[1.0, math.nan]], [[3.0, 6.0]]]).double()
    inputs = model._inputs(x)
    assert inputs.tolist() == [[[0, 0, 0, 1]], [[1, 1, 0, 0]]]
    model.target_shift, model.target_scale = torch.tensor([[5.0, 0.0], [2.0, 3.0]]).double()
    scores = model(x).scores
    targets = torch.tensor([[math.nan, 1.0]])
    loss, _ = model.loss(x, None, targets)
    torch.testing.assert_close(loss, ((scores[0, 1] - 1) / 3) ** 2)
    with torch.no_grad():
        model.decoder.bias.fill_(math.inf)
    assert not model.loss(x, None, targets)[0].isfinite(), "a model that has diverged shows it"


def test_scales_ignore_what_is_missing() -> None:
    nan = math.nan
    mean, spread, missing = scales(
        Ragged.of([np.array([[1.0, nan, 7.0]]), np.array([[3.0, nan, 7.0], [nan, nan, 7.0]])])
    )
    assert mean.tolist() == [2, 0, 7]
    assert spread.tolist() == [1, 1, 1]
    assert missing
    assert not scales(Ragged.of([np.ones((3, 1))]))[2]


def test_balanced_classes_count_alike() -> None:
    weights = balanced(np.array([0, 0, 0, 2]), 3)
    assert weights == pytest.approx([4 / 6, 0, 2])
    model, x = build().eval(), torch.randint(9, (3, 4))
    targets = torch.tensor([0, 0, 0, 2])
    found, _ = model.loss(x, None, targets, torch.tensor(weights))
    nats = torch.nn.functional.cross_entropy(model(x).scores, targets, reduction="none")
    torch.testing.assert_close(found, (nats[:3].mean() + nats[3]) / 2)


def test_what_is_inside_can_be_read_and_set() -> None:
    model = build(cell="lstm")
    x = torch.randint(9, (4, 2))
    out = model(x, record=gw.Record("layers.0.f", "h"), control=gw.Control.on("f"))
    assert set(out.record) == {"layers.0.f", "layers.0.h"}
    assert bool((out.record["layers.0.f"] == 1).all())


def test_it_learns_which_symbol_came_first() -> None:
    """A task that a bag of symbols cannot do, in a second or so."""
    torch.manual_seed(1)
    model = build({"vocab_size": 3, "outputs": 2}, hidden_size=16).float()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        x = torch.full((12, count), 2)
        first, second = torch.randint(0, 5, (count,)), torch.randint(6, 12, (count,))
        target = torch.randint(2, (count,))
        x[first, torch.arange(count)], x[second, torch.arange(count)] = target, 1 - target
        return x, target

    for _ in range(150):
        x, target = draw(64)
        optimizer.zero_grad()
        model.loss(x, None, target)[0].backward()
        optimizer.step()
    x, target = draw(500)
    assert (model(x).scores.argmax(-1) == target).float().mean() > 0.97


@pytest.mark.parametrize(
    ("x", "error", "said"),
    [
        (torch.zeros(3, 2), ShapeError, "tokens"),
        (torch.tensor([[9]]), DataError, "found 9"),
        (torch.zeros(3, 2, 4, dtype=torch.int64), ShapeError, "tokens"),
    ],
)
def test_inputs_that_do_not_fit(x: Tensor, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        build()(x)
    with pytest.raises(ShapeError, match=r"numbers \(T, B, 2\)"):
        build({"channels": 2, "outputs": 2})(torch.zeros(3, 2, 1))


def test_options_outside_their_range() -> None:
    with pytest.raises(OptionError, match="--readout: expected one of last, mean"):
        build(readout="first")
    with pytest.raises(OptionError, match="--outputs: expected a whole number from 2"):
        build({"vocab_size": 3, "outputs": 1})
    with pytest.raises(OptionError, match="tokens or numbers"):
        build({"outputs": 2})
    config = build(bidirectional=True).config
    assert VectorConfig.from_dict(config.to_dict()) == config
