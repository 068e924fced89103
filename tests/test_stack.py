"""Layers, directions, and the noise between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.errors import OptionError, ShapeError
from gatewise.probe import Control, Record
from gatewise.types import state_tensors
from parity import CELLS
from tolerances import assert_close

T, B, I, H = 6, 3, 2, 4  # noqa: E741
EACH = pytest.mark.parametrize("cell", CELLS)
# Where a unit may be without effect: behind a relu; gru_paper's r acts through a dropped matrix alone.
MAY_BE_SILENT = ("rnn_relu", "gru_paper", "light_gru", "indrnn")


@EACH
def test_layers_are_cells_one_after_the_other(cell: str) -> None:
    stack = gw.Stack(cell, I, [4, 3], bidirectional=True)
    assert stack.output_size == 6
    x = torch.randn(T, B, I)
    out = stack(x, record=Record(*stack.names()))
    assert set(out.record) == set(stack.names())
    for layer, size in enumerate([4, 3]):
        halves = []
        for suffix, reverse in (f"_l{layer}", False), (f"_l{layer}_reverse", True):
            net = gw.cells.REGISTRY[cell](x.shape[-1], size)
            net.load_state_dict({
                n: p for n in net.state_dict() for p in [stack.state_dict()[n + suffix]]
            })  # fmt: skip
            h = gw.unroll(net, x.flip(0) if reverse else x).h
            halves.append(h.flip(0) if reverse else h)
        x = torch.cat(halves, -1)
    assert_close(out.h, x)


def test_states_of_layers_of_one_size_and_of_several() -> None:
    x = torch.randn(T, B, I)
    for sizes, expected in ([4, 4], [(2, B, 4)] * 2), ([4, 3], [(B, 4)] * 2 + [(B, 3)] * 2):
        stack = gw.Stack("lstm", I, sizes)
        out = stack(x)
        assert [tuple(s.shape) for s in state_tensors(out.state)] == expected
        again = stack(x, out.state)
        assert_close(again.h, stack(torch.cat([x, x])).h[T:])
        zero = stack.zero_state(B)
        assert [tuple(s.shape) for s in state_tensors(zero)] == expected
        assert torch.equal(stack(x, zero).h, out.h)


def test_learned_states() -> None:
    stack = gw.Stack("lstm", I, H, 2, bidirectional=True, learned_state=True)
    with torch.no_grad():
        stack.start_c_l1_reverse.fill_(0.5)
    x = torch.randn(T, B, I)
    h, c = stack.zero_state(B)
    assert not h.any()
    assert c[3].eq(0.5).all()
    assert torch.equal(stack(x, (h, c)).h, stack(x).h)
    for engine in ("closed", "reference"):
        stack.zero_grad()
        stack(x, engine=engine).h.sum().backward()
        assert all(p.grad.any() for n, p in stack.named_parameters() if n.startswith("start_"))


@pytest.mark.parametrize("locked", [False, True])
def test_dropout_between_layers_is_one_mask_or_one_for_each_step(locked: bool) -> None:
    """Seen through a second layer that gives back its input's pre-activation."""
    stack = gw.Stack("rnn_relu", I, H, 2, dropout=0.5, locked_dropout=locked)
    with torch.no_grad():
        stack.bias_ih_l0.fill_(5)
        for name in ("weight_hh_l1", "bias_ih_l1", "bias_hh_l1"):
            getattr(stack, name).zero_()
        stack.weight_ih_l1.copy_(torch.eye(H))
    record = stack(torch.randn(T, B, I), record=Record("h", "s.pre")).record
    ratio = record["layers.1.s.pre"] / record["layers.0.h"]
    near = (ratio - ratio.round()).abs().max()
    assert float(near) < 1e-5
    assert set(ratio.round().unique().tolist()) == {0.0, 2.0}
    same = bool((ratio.round() == ratio.round()[0]).all())
    assert same == locked


def test_no_dropout_after_the_last_layer_or_in_eval() -> None:
    stack = gw.Stack("lstm", I, H, 2, dropout=0.9)
    assert stack(torch.randn(T, B, I)).h.ne(0).all()
    stack.eval()
    x = torch.randn(T, B, I)
    plain = gw.Stack("lstm", I, H, 2)
    plain.load_state_dict(stack.state_dict())
    assert torch.equal(stack(x).h, plain(x).h)


@EACH
def test_weight_drop_is_one_mask_of_the_recurrent_weights(cell: str) -> None:
    stack = gw.Stack(cell, I, H, weight_drop=0.5)
    x = torch.randn(T, B, I)
    for p in stack.parameters():
        p.grad = None
    stack(x).h.sum().backward()
    recurrent = [n for n in ("weight_hh_l0", "weight_hn_l0") if hasattr(stack, n)]
    recurrent = [n for n in recurrent if stack.get_parameter(n).numel()]
    for name, p in stack.named_parameters():
        dropped = float((p.grad == 0).float().mean())
        if name in recurrent:
            assert 0.1 < dropped < 0.9, name
        elif name == "weight_ih_l0" and cell not in MAY_BE_SILENT:
            assert dropped == 0, name
    torch.manual_seed(1)
    first = stack(x).h
    torch.manual_seed(1)
    assert torch.equal(stack(x).h, first)
    # A cell without recurrent matrices has nothing to drop.
    assert torch.equal(stack(x).h, first) != bool(recurrent)
    stack.eval()
    assert torch.equal(stack(x).h, stack(x).h)


@EACH
def test_zoneout_keeps_some_units_and_their_mean(cell: str) -> None:
    stack = gw.Stack(cell, I, 32, zoneout=0.5)
    state = "c" if "c" in stack._law.states else "h"
    x = torch.randn(T, B, I)
    record = stack(x, record=Record(state, f"{state}.new")).record
    new, after = record[f"layers.0.{state}.new"], record[f"layers.0.{state}"]
    differs = new[1:] != after[:-1]  # relu may give the same 0 again
    kept = (after[1:] == after[:-1])[differs]
    assert 0.3 < float(kept.float().mean()) < 0.7
    assert torch.equal(after[1:][differs][~kept], new[1:][differs][~kept])
    stack.eval()
    record = stack(x, record=Record(state, f"{state}.new")).record
    new, after = record[f"layers.0.{state}.new"], record[f"layers.0.{state}"]
    assert_close(after[1:], 0.5 * new[1:] + 0.5 * after[:-1])


def test_zoneout_of_one_state_and_controls_around_it() -> None:
    stack = gw.Stack("lstm", I, H, zoneout={"c": 0.5})
    x = torch.randn(T, B, I)
    control = Control.set("c.new", 3.0) | Control.scale("c", 2.0, time=[T - 1])
    record = stack(x, record=Record("c.new", "c", "h.new", "h"), control=control).record
    assert (record["layers.0.c.new"] == 3).all()
    assert set(record["layers.0.c"][:-1].unique().tolist()) <= {0.0, 3.0}
    assert set(record["layers.0.c"][-1].unique().tolist()) <= {0.0, 6.0}
    assert torch.equal(record["layers.0.h.new"], record["layers.0.h"])
    with pytest.raises(OptionError, match="zoneout should be a probability"):
        gw.Stack("lstm", I, H, zoneout={"c": 1.5})


@pytest.mark.parametrize("proj_size", [0, 2])
def test_zoneout_of_a_projected_output(proj_size: int) -> None:
    stack = gw.Stack("lstm", I, H, zoneout={"h": 0.5}, proj_size=proj_size).eval()
    name = "proj" if proj_size else "h"
    out = stack(torch.randn(T, B, I), record=Record(name, f"{name}.new"))
    new, after = out.record[f"layers.0.{name}.new"], out.record[f"layers.0.{name}"]
    assert_close(after[1:], 0.5 * new[1:] + 0.5 * after[:-1])
    assert torch.equal(out.h, after)


def test_ragged_columns_under_all_the_noise() -> None:
    """Padding has no part in it: the same masks act on the steps that are there."""
    options: dict[str, Any] = {"dropout": 0.5, "weight_drop": 0.3, "zoneout": 0.2}
    stack = gw.Stack("lstm", I, H, 2, bidirectional=False, **options)
    x = torch.randn(T, B, I)
    torch.manual_seed(1)
    whole = stack(x)
    torch.manual_seed(1)
    ragged = stack(x, lengths=[2, T, 0])
    assert_close(ragged.h[:2, 0], whole.h[:2, 0])
    assert_close(ragged.h[:, 1], whole.h[:, 1])


def test_repr_says_what_differs() -> None:
    assert repr(gw.Stack("lstm", 3, 4)) == "Stack('lstm', 3, 4, num_layers=1)"
    stack = gw.Stack("gru", 3, [4, 5], dropout=0.5, locked_dropout=True, init_bias={"r": -1.0})
    assert repr(stack) == (
        "Stack('gru', 3, [4, 5], num_layers=2, dropout=0.5, locked_dropout=True, "
        "init_bias={'r': -1.0})"
    )


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: gw.Stack("lstm", 3, 4, 0), OptionError, "num_layers must be greater than zero"),
        (lambda: gw.Stack("lstm", 3, [4, 5], 3), OptionError, "has 2 sizes for 3 layers"),
        (lambda: gw.Stack("lstm", 3, []), OptionError, "has 0 sizes"),
        (lambda: gw.Stack("lstm", 3, "44"), TypeError, "hidden_size should be of type int"),
        (lambda: gw.Stack("lstm", 3, [4, 0]), OptionError, "hidden_size must be greater than zero"),
        (lambda: gw.Stack("lstm", 3, 4, dropout=-1), OptionError, "dropout should be a number in"),
        (lambda: gw.Stack("lstm", 3, 4, weight_drop=1), OptionError, "0 <= weight_drop < 1"),
        (lambda: gw.Stack("gru", 3, 4, proj_size=2), OptionError, "expected proj_size 0"),
        (lambda: gw.Stack("lstm", 3, [4, 3], proj_size=3), OptionError, "proj_size should be"),
        (
            lambda: gw.Stack("lstm", 3, [4, 5])(torch.zeros(2, 1, 3), torch.zeros(2, 1, 4)),
            ShapeError,
            "expected a tuple of 2 states",
        ),
        (
            lambda: gw.Stack("gru", 3, 4)(torch.zeros(2, 1, 3), torch.zeros(1, 4)),
            ShapeError,
            r"expected state h of shape \(1, B, 4\)",
        ),
    ],
)
def test_wrong_use(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_a_control_of_very_many_times_is_quick() -> None:
    """Nothing is searched from the start at each step."""
    cell = gw.cells.RNN(1, 1)
    control = Control.off("h", time=range(0, 20_000, 2))
    out = gw.unroll(cell, torch.zeros(300, 1, 1), control=control, start=19_000)
    assert out.h[::2].eq(0).all()
