"""The drop-ins against torch.nn: results, states, gradients, weights, and manners."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import gatewise as gw
from gatewise.errors import EngineError, OptionError, ShapeError, UsageError
from parity import flat
from tolerances import assert_close

KINDS: dict[str, tuple[type[nn.RNNBase], type[nn.Module], dict[str, Any]]] = {
    "tanh": (nn.RNN, gw.nn.RNN, {"nonlinearity": "tanh"}),
    "relu": (nn.RNN, gw.nn.RNN, {"nonlinearity": "relu"}),
    "LSTM": (nn.LSTM, gw.nn.LSTM, {}),
    "GRU": (nn.GRU, gw.nn.GRU, {}),
}
CELLS: dict[str, tuple[type[nn.RNNCellBase], type[nn.Module], dict[str, Any]]] = {
    "tanh": (nn.RNNCell, gw.nn.RNNCell, {"nonlinearity": "tanh"}),
    "relu": (nn.RNNCell, gw.nn.RNNCell, {"nonlinearity": "relu"}),
    "LSTM": (nn.LSTMCell, gw.nn.LSTMCell, {}),
    "GRU": (nn.GRUCell, gw.nn.GRUCell, {}),
}
ENGINES = ("reference", "closed")

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def _pair(kind: str, *args: Any, **options: Any) -> tuple[nn.RNNBase, Any]:
    """torch's module and ours with the same weights."""
    theirs_class, mine_class, extra = KINDS[kind]
    theirs, mine = theirs_class(*args, **extra, **options), mine_class(*args, **extra, **options)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, mine


def _state(kind: str, module: nn.RNNBase, batch: int, dtype: torch.dtype) -> Any:
    count = module.num_layers * (2 if module.bidirectional else 1)
    h = torch.randn(count, batch, module.proj_size or module.hidden_size, dtype=dtype)
    if kind != "LSTM":
        return h
    return h, torch.randn(count, batch, module.hidden_size, dtype=dtype)


def _same(theirs: nn.RNNBase, mine: Any, x: Any, hx: Any, engine: str) -> None:
    """Outputs, states and all gradients (of input, state, every weight) are torch's."""
    results = []
    for module, options in ((theirs, {}), (mine, {"engine": engine})):
        module.zero_grad()
        given = _leaf(x)
        state = None if hx is None else _map(lambda s: s.clone().requires_grad_(), hx)
        y, last = module(given, state, **options)
        out = y.data if isinstance(y, PackedSequence) else y
        parts = flat(last)
        weights = [
            torch.linspace(-1, 1, p.numel(), dtype=p.dtype).view_as(p) for p in [out, *parts]
        ]
        cost = sum((p * w).sum() for p, w in zip([out, *parts], weights, strict=True))
        leaf = given.data if isinstance(given, PackedSequence) else given
        leaves = [leaf, *([] if state is None else flat(state)), *module.parameters()]
        grads = torch.autograd.grad(cost, leaves)
        results.append(([out, *parts], grads))
    (values, grads), (my_values, my_grads) = results
    for k, (a, b) in enumerate(zip(my_values, values, strict=True)):
        assert_close(a, b, what=f"value {k}")
    for k, (a, b) in enumerate(zip(my_grads, grads, strict=True)):
        assert_close(a, b, gradient=True, what=f"gradient {k}")


def _map(fn: Any, state: Any) -> Any:
    return tuple(map(fn, state)) if isinstance(state, tuple) else fn(state)


def _leaf(x: Any) -> Any:
    if isinstance(x, PackedSequence):
        return x._replace(data=x.data.detach().clone().requires_grad_())
    return x.detach().clone().requires_grad_()


GRID = [
    {"num_layers": layers, "bidirectional": both, "bias": bias}
    for layers, both, bias in itertools.product((1, 2, 3), (False, True), (True, False))
]


DTYPES = {torch.float32: GRID, torch.float64: GRID[::5]}


@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_layers_directions_and_biases(kind: str, engine: str, dtype: torch.dtype) -> None:
    for options in DTYPES[dtype]:
        theirs, mine = _pair(kind, 3, 5, dtype=dtype, **options)
        x = torch.randn(3, 2, 3, dtype=dtype)
        _same(theirs, mine, x, _state(kind, theirs, 2, dtype), engine)


@pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
@pytest.mark.parametrize("engine", ENGINES)
def test_projections(engine: str, dtype: torch.dtype) -> None:
    for options in GRID[::5]:
        theirs, mine = _pair("LSTM", 3, 5, proj_size=2, dtype=dtype, **options)
        x = torch.randn(3, 2, 3, dtype=dtype)
        _same(theirs, mine, x, _state("LSTM", theirs, 2, dtype), engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1), (1, 3, 7, 13), (31, 1, 5, 17), (2, 5, 1, 3)], ids=str
)
def test_odd_sizes_and_no_state(sizes: tuple[int, ...], kind: str, engine: str) -> None:
    steps, batch, inputs, units = sizes
    theirs, mine = _pair(kind, inputs, units, 2, bidirectional=True)
    _same(theirs, mine, torch.randn(steps, batch, inputs), None, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(kind: str, engine: str) -> None:
    for lengths, is_sorted in ([4, 2, 2, 1], True), ([2, 4, 1], False):
        theirs, mine = _pair(kind, 3, 4, 2, bidirectional=True)
        x = torch.randn(max(lengths), len(lengths), 3)
        packed = pack_padded_sequence(x, lengths, enforce_sorted=is_sorted)
        state = _state(kind, theirs, len(lengths), torch.float32)
        _same(theirs, mine, packed, state, engine)
        y, _ = mine(packed, engine=engine)
        for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            mine_field, other = getattr(y, field), getattr(packed, field)
            assert (mine_field is None) == (other is None)
            assert mine_field is None or torch.equal(mine_field, other)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_lengths_are_what_packing_does(kind: str, engine: str) -> None:
    """Padded input with lengths= against torch's packing, the padding full of NaN."""
    theirs, mine = _pair(kind, 3, 4, 2, bidirectional=True)
    lengths = torch.tensor([2, 5, 1])
    x = torch.randn(5, 3, 3)
    h0 = _state(kind, theirs, 3, torch.float32)
    y, state = theirs(pack_padded_sequence(x, lengths, enforce_sorted=False), h0)
    expected = nn.utils.rnn.pad_packed_sequence(y)[0]
    padding = torch.arange(5)[:, None] >= lengths
    x = x.masked_fill(padding.unsqueeze(-1), float("nan")).requires_grad_()
    h, last = mine(x, h0, lengths=lengths, engine=engine)
    assert_close(h, expected)
    assert torch.equal(h[padding], torch.zeros_like(h[padding]))
    for a, b in zip(flat(last), flat(state), strict=True):
        assert_close(a, b)
    h.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad[padding], torch.zeros_like(x.grad[padding]))
    assert all(bool(p.grad.isfinite().all()) for p in mine.parameters())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_length_of_zero_leaves_the_state(kind: str, engine: str) -> None:
    """torch's packing refuses it."""
    theirs, mine = _pair(kind, 3, 4, 2, bidirectional=True)
    x, h0 = torch.randn(5, 3, 3), _state(kind, theirs, 3, torch.float32)
    h, last = mine(x, h0, lengths=[3, 0, 5], engine=engine)
    assert torch.equal(h[:, 1], torch.zeros(5, 8))
    for a, b in zip(flat(last), flat(h0), strict=True):
        assert torch.equal(a[:, 1], b[:, 1])
    others = _map(lambda s: s[:, [0, 2]], h0)
    y, state = mine(x[:, [0, 2]], others, lengths=[3, 5], engine=engine)
    assert_close(h[:, [0, 2]], y)
    for a, b in zip(flat(last), flat(state), strict=True):
        assert_close(a[:, [0, 2]], b)


def test_every_length_zero_and_no_step_at_all() -> None:
    lstm = gw.nn.LSTM(3, 4)
    hx = (torch.randn(1, 2, 4), torch.randn(1, 2, 4))
    for x, lengths in (torch.randn(5, 2, 3), [0, 0]), (torch.randn(0, 2, 3), None):
        y, state = lstm(x, hx, lengths=lengths)
        assert y.shape == (x.shape[0], 2, 4)
        assert not y.any()
        assert all(torch.equal(a, b) for a, b in zip(state, hx, strict=True))
    y, (h, _) = lstm(torch.randn(5, 0, 3))
    assert y.shape == (5, 0, 4)
    assert h.shape == (1, 0, 4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_unbatched_and_batch_first(kind: str, engine: str) -> None:
    theirs, mine = _pair(kind, 3, 4, 2, batch_first=True, bidirectional=True)
    x, state = torch.randn(2, 5, 3), _state(kind, theirs, 2, torch.float32)
    _same(theirs, mine, x, state, engine)
    _same(theirs, mine, x[0], _map(lambda s: s[:, 0], state), engine)
    _same(theirs, mine, x[0], None, engine)
    packed = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    _same(theirs, mine, packed, None, engine)


@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind: str) -> None:
    theirs_class, mine_class, extra = CELLS[kind]
    for bias in (True, False):
        theirs, mine = theirs_class(3, 4, bias, **extra), mine_class(3, 4, bias, **extra)
        mine.load_state_dict(theirs.state_dict(), strict=True)
        theirs.load_state_dict(mine.state_dict(), strict=True)
        assert repr(mine) == repr(theirs)
        x = torch.randn(2, 3)
        h = torch.randn(2, 4)
        hx = (h, torch.randn(2, 4)) if kind == "LSTM" else h
        for given, state in (x, hx), (x, None), (x[0], _map(lambda s: s[0], hx)), (x[0], None):
            for a, b in zip(flat(mine(given, state)), flat(theirs(given, state)), strict=True):
                assert_close(a, b)
                assert a.shape == b.shape


def test_a_cell_records_and_is_controlled() -> None:
    cell = gw.nn.LSTMCell(3, 4)
    x = torch.randn(2, 3)
    (h, c), record = cell(x, record=gw.Record("f", "c"), control=gw.Control.on("o"))
    assert record["f"].shape == (1, 2, 4)
    assert torch.equal(record["c"][0], c)
    assert torch.equal(h, torch.tanh(c))
    with cell.controlled(gw.Control.off("o")):
        assert not cell(x)[0].any()
    late = gw.Control.off("o", time=[7])
    assert cell(x, control=late)[0].any()
    assert not cell(x, start=7, control=late)[0].any()


# --- Weights, and what one does with a module ----------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [GRID[0], GRID[3], GRID[10]], ids=str)
def test_same_seed_same_weights_and_keys_both_ways(kind: str, options: dict[str, Any]) -> None:
    theirs_class, mine_class, extra = KINDS[kind]
    torch.manual_seed(5)
    theirs = theirs_class(3, 4, **extra, **options)
    torch.manual_seed(5)
    mine = mine_class(3, 4, **extra, **options)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[name], value), name
    theirs.load_state_dict(mine.state_dict(), strict=True)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    assert repr(mine) == repr(theirs)
    assert mine.mode == theirs.mode
    assert [[p.shape for p in layer] for layer in mine.all_weights] == [
        [p.shape for p in layer] for layer in theirs.all_weights
    ]


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_starts_as_torchs(kind: str) -> None:
    theirs_class, mine_class, extra = CELLS[kind]
    torch.manual_seed(5)
    theirs = theirs_class(3, 4, **extra)
    torch.manual_seed(5)
    for a, b in zip(mine_class(3, 4, **extra).parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_repr_is_torchs_for_every_option() -> None:
    options = {"num_layers": 2, "bias": False, "batch_first": True, "bidirectional": True}
    options |= {"dropout": 0.2, "proj_size": 2}
    assert repr(gw.nn.LSTM(3, 4, **options)) == repr(nn.LSTM(3, 4, **options))


@pytest.mark.parametrize("kind", KINDS)
def test_copies(kind: str) -> None:
    mine = KINDS[kind][1](3, 4, 2, **KINDS[kind][2])
    x = torch.randn(5, 2, 3)
    y = mine(x)[0]
    buffer = io.BytesIO()
    torch.save(mine.state_dict(), buffer)
    buffer.seek(0)
    loaded = KINDS[kind][1](3, 4, 2, **KINDS[kind][2])
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    whole = io.BytesIO()
    torch.save(mine, whole)
    whole.seek(0)
    unpickled = pickle.loads(pickle.dumps(mine))
    for other in (copy.deepcopy(mine), unpickled, loaded, torch.load(whole, weights_only=False)):
        other.flatten_parameters()
        assert torch.equal(other(x)[0], y)
        other(x, engine="closed")  # which is found by the law itself: a copy must keep it
        assert repr(other) == repr(mine)
    copied = copy.deepcopy(mine)
    with torch.no_grad():
        copied.weight_hh_l0.zero_()
    assert torch.equal(mine(x)[0], y)


@pytest.mark.parametrize("kind", CELLS)
def test_cells_pickle(kind: str) -> None:
    cell = CELLS[kind][1](3, 4, **CELLS[kind][2])
    x = torch.randn(2, 3)
    again = pickle.loads(pickle.dumps(copy.deepcopy(cell)))
    for a, b in zip(flat(again(x)), flat(cell(x)), strict=True):
        assert torch.equal(a, b)


def test_devices_and_dtypes() -> None:
    lstm = gw.nn.LSTM(3, 4, 2, device="cpu", dtype=torch.float64)
    assert lstm(torch.zeros(1, 1, 3, dtype=torch.float64))[0].dtype == torch.float64
    assert gw.nn.LSTM(3, 4).to(torch.float64).weight_hh_l0.dtype == torch.float64
    assert gw.nn.LSTM(3, 4).double()(torch.zeros(1, 1, 3, dtype=torch.float64))[1][1].dtype == (
        torch.float64
    )
    meta = gw.nn.LSTM(3, 4, 2, dropout=0.5, device="meta")
    for engine in ENGINES:
        y, (h, _) = meta(torch.zeros(5, 2, 3, device="meta"), engine=engine)
        assert (y.shape, y.device.type, h.shape) == ((5, 2, 4), "meta", (2, 2, 4))
    empty = meta.to_empty(device="cpu")
    empty.reset_parameters()
    assert empty(torch.zeros(5, 2, 3))[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_weights(kind: str, engine: str, dtype: torch.dtype) -> None:
    theirs, mine = _pair(kind, 3, 4, 2, dtype=dtype)
    x = torch.randn(4, 2, 3, dtype=dtype)
    y, state = mine(x, engine=engine)
    expected, their_state = theirs(x)
    for a, b in zip([y, *flat(state)], [expected, *flat(their_state)], strict=True):
        assert_close(a, b)


class _Double(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


@pytest.mark.parametrize("engine", ENGINES)
def test_parametrized_and_tied_weights(engine: str) -> None:
    x = torch.randn(5, 2, 3)
    plain, mine = gw.nn.LSTM(3, 4), gw.nn.LSTM(3, 4)
    mine.load_state_dict(plain.state_dict())
    with torch.no_grad():
        plain.weight_hh_l0.mul_(2)
    nn.utils.parametrize.register_parametrization(mine, "weight_hh_l0", _Double())
    assert_close(mine(x, engine=engine)[0], plain(x)[0])
    normed = nn.utils.parametrizations.weight_norm(gw.nn.GRU(3, 4), "weight_hh_l0")
    normed(x, engine=engine)[0].sum().backward()
    assert normed.parametrizations.weight_hh_l0.original1.grad is not None
    tied = gw.nn.GRU(4, 4, 2)
    tied.weight_hh_l1 = tied.weight_hh_l0
    tied(torch.randn(5, 2, 4), engine=engine)[0].sum().backward()
    assert len(list(tied.parameters())) == 7
    assert tied.weight_hh_l0.grad is not None


def test_functional_call_and_shared_memory() -> None:
    lstm = gw.nn.LSTM(3, 4).share_memory()
    x = torch.randn(5, 2, 3)
    zeros = {name: torch.zeros_like(p) for name, p in lstm.named_parameters()}
    assert not functional_call(lstm, zeros, (x,))[0].any()
    assert lstm.weight_hh_l0.is_shared()
    assert lstm(x)[0].any()


def test_training_and_eval() -> None:
    lstm = gw.nn.LSTM(3, 16, 2, dropout=0.5)
    x = torch.randn(5, 2, 3)
    torch.manual_seed(1)
    first = lstm(x)[0]
    assert not torch.equal(lstm(x)[0], first)
    torch.manual_seed(1)
    assert torch.equal(lstm(x)[0], first)
    lstm.eval()
    assert torch.equal(lstm(x)[0], lstm(x)[0])
    x.requires_grad_()
    lstm(x)[0].sum().backward()
    assert x.grad is not None


def test_dropout_drops_what_torch_drops_on_average() -> None:
    """The mean of the second layer's input is kept; with p=1 nothing is left, as in torch."""
    with pytest.warns(UserWarning, match="dropout expects num_layers greater than 1"):
        gw.nn.LSTM(3, 4, dropout=0.5)
    mine, theirs = gw.nn.GRU(3, 4, 2, dropout=1.0), nn.GRU(3, 4, 2, dropout=1.0)
    theirs.load_state_dict(mine.state_dict())
    x = torch.randn(5, 2, 3)
    assert_close(mine(x)[0], theirs(x)[0])


# torch's own code reads .grad of what crosses a graph break.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_torch_compile() -> None:
    """Graph breaks are allowed; results and gradients are not to change."""
    mine = gw.nn.LSTM(3, 4, 2)
    compiled = torch.compile(mine, dynamic=False, backend="eager")
    x = torch.randn(5, 2, 3)
    grads = []
    for module in (mine, compiled):
        y, _ = module(x)
        grads.append([y, *torch.autograd.grad(y.pow(2).sum(), list(mine.parameters()))])
    for a, b in zip(*grads, strict=True):
        assert_close(a, b)


def test_isinstance_and_signature() -> None:
    assert isinstance(gw.nn.LSTM(3, 4), nn.Module)
    y, _ = gw.nn.LSTM(3, 4)(input=torch.zeros(1, 1, 3), hx=None)
    assert y.shape == (1, 1, 4)
    relu = gw.nn.RNN(3, 4, 2, "relu", False, True)
    assert (relu.nonlinearity, relu.bias, relu.batch_first) == ("relu", False, True)
    y, _ = gw.nn.LSTM(3, 4)(torch.zeros(2, 1, 3), [torch.zeros(1, 1, 4)] * 2)
    assert y.shape == (2, 1, 4)


# --- Records through the edge -------------------------------------------------------------------


def test_records_through_packed_unbatched_and_batch_first() -> None:
    lstm = gw.nn.LSTM(3, 4, bidirectional=True)
    x = torch.randn(5, 3, 3)
    lengths = [2, 5, 1]
    _, _, padded = lstm(x, lengths=torch.tensor(lengths), record=gw.Record("f", "h"))
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, _, record = lstm(packed, record=gw.Record("f", "h"))
    assert list(record) == [f"layers.0{r}.{n}" for r in ("", ".reverse") for n in "fh"]
    for name in record:
        assert torch.equal(record[name], padded[name])
        assert torch.equal(record[name][2:, 0], torch.zeros(3, 4))  # padding
        assert record[name][1, 0].any()
    unpacked = nn.utils.rnn.pad_packed_sequence(y)[0]
    both = torch.cat([record["layers.0.h"], record["layers.0.reverse.h"]], -1)
    assert torch.equal(unpacked, both)
    _, _, single = lstm(x[:, 1], record=gw.Record("f"))
    assert single["layers.0.f"].shape == (5, 4)
    assert_close(single["layers.0.f"], record["layers.0.f"][:, 1])
    first = gw.nn.LSTM(3, 4, batch_first=True)
    _, _, record = first(torch.randn(2, 5, 3), record=gw.Record("c"))
    assert record["layers.0.c"].shape == (5, 2, 4)


def test_an_empty_record_is_a_third_result_still() -> None:
    y, _, record = gw.nn.LSTM(3, 4)(torch.zeros(2, 1, 3), record=gw.Record())
    assert dict(record) == {}
    assert y.shape == (2, 1, 4)


# --- Wrong use ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((torch.zeros(5, 2, 7),), {}, ShapeError, r"expected x of shape \(T, B, 3\), found \(5, 2, 7\)"),
        ((torch.zeros(3),), {}, ShapeError, "expected input to be 2D or 3D, got 1D"),
        (([[1.0]],), {}, ShapeError, "expected a tensor or a PackedSequence, found list"),
        ((torch.zeros(5, 2, 3, dtype=torch.int64),), {}, ShapeError, "of a floating-point dtype"),
        ((torch.zeros(5, 2, 3, dtype=torch.float64),), {}, ShapeError, "expected x of torch.float32"),
        ((torch.zeros(5, 2, 3, device="meta"),), {}, ShapeError, "expected x on cpu"),
        ((torch.zeros(5, 2, 3), torch.zeros(1, 2, 4)), {}, ShapeError, r"state of lstm as \(h, c\)"),
        (
            (torch.zeros(5, 2, 3), (torch.zeros(1, 9, 4), torch.zeros(1, 2, 4))),
            {},
            ShapeError,
            r"expected state h of shape \(2, 4\), found \(9, 4\)",
        ),
        (
            (torch.zeros(5, 2, 3), (torch.zeros(2, 2, 4), torch.zeros(2, 2, 4))),
            {},
            ShapeError,
            r"expected state h of shape \(1, B, 4\), found \(2, 2, 4\)",
        ),
        (
            (torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4).double(), torch.zeros(1, 2, 4))),
            {},
            ShapeError,
            "expected state h of torch.float32, as x; found torch.float64",
        ),
        (
            (torch.zeros(5, 3), (torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))),
            {},
            ShapeError,
            r"without a batch expected a state \(L D, H\)",
        ),
        ((torch.zeros(5, 2, 3),), {"lengths": [1]}, ShapeError, r"lengths of shape \(2,\)"),
        ((torch.zeros(5, 2, 3),), {"lengths": [1, 6]}, OptionError, "lengths from 0 to T = 5"),
        ((torch.zeros(5, 2, 3),), {"lengths": [-1, 5]}, OptionError, "found -1 to 5"),
        ((torch.zeros(5, 2, 3),), {"lengths": [1.5, 5]}, ShapeError, "whole numbers"),
        ((torch.zeros(5, 2, 3),), {"reset": [True]}, ShapeError, "bool tensor .* found list"),
        ((torch.zeros(5, 2, 3),), {"reset": torch.zeros(5, 2)}, ShapeError, "found torch.float32"),
        ((torch.zeros(5, 2, 3),), {"start": -1}, OptionError, "whole number from 0 on: found -1"),
        ((torch.zeros(5, 2, 3),), {"start": 1.5}, OptionError, "whole number from 0 on: found 1.5"),
        ((torch.zeros(5, 2, 3),), {"start": torch.tensor([-1, 0])}, OptionError, "found -1"),
        ((torch.zeros(5, 2, 3),), {"start": torch.tensor([0.5, 0])}, ShapeError, "whole number"),
        ((torch.zeros(5, 2, 3),), {"record": "f"}, OptionError, 'gw.Record.*found str'),
        ((torch.zeros(5, 2, 3),), {"control": "f"}, OptionError, 'gw.Control.*found str'),
        ((torch.zeros(5, 2, 3),), {"engine": "fast"}, UsageError, "unknown engine 'fast'"),
        (
            (torch.zeros(5, 2, 3),),
            {"engine": "closed", "record": gw.Record("f")},
            EngineError,
            "engine closed cannot run this: something is recorded; use engine='auto'",
        ),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line(
    arguments: tuple, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        gw.nn.LSTM(3, 4)(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: gw.nn.LSTM(3, 4, 0), OptionError),
        (lambda: gw.nn.LSTM(3, 4, 2, dropout=1.5), OptionError),
        (lambda: gw.nn.LSTM(3, 4, 2, dropout=True), OptionError),
        (lambda: gw.nn.LSTM(3, "4"), TypeError),
        (lambda: gw.nn.RNN(3, 4, nonlinearity="sin"), OptionError),
        (lambda: gw.nn.RNN(3), TypeError),
        (lambda: gw.nn.RNN(3, 4, hidden_size=4), TypeError),
        (lambda: gw.nn.RNN(3, 4, colour=1), TypeError),
        (lambda: gw.nn.RNNCell(3, 4, nonlinearity="sin"), OptionError),
        (lambda: gw.nn.LSTM(3, 4)(torch.zeros(2, 3), record=None, lengths=[9]), OptionError),
        (
            lambda: gw.nn.LSTM(3, 4)(pack_sequence([torch.zeros(2, 3)]), lengths=[2]),
            OptionError,
        ),
        (lambda: gw.nn.LSTMCell(3, 4)(torch.zeros(5)), ShapeError),
        (lambda: gw.nn.LSTMCell(3, 4)(None), ShapeError),
    ],
)
def test_wrong_construction(build: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        build()
