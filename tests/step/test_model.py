"""The step engine beside the reference: scores, states, records and controls, at every width of weights."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gatewise as gw
from gatewise.errors import EngineError, OptionError, ShapeError, UnknownNameError
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.step.choose import DTYPES, refusal
from gatewise.step.model import StepModel, StepStack
from gatewise.types import State, state_tensors
from tolerances import assert_close

CELLS = [
    name
    for name, cell in gw.cells.REGISTRY.items()
    if refusal(gw.Stack(name, 2, 2)) is None and cell.law.states
]
# Rounding of weights and vectors: rms of the scores' error relative to the rms of the scores.
ROUNDING = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.04, "int4": 0.4}


def _model(cell: str = "lstm", **options: Any) -> LanguageModel:
    sizes = {"vocab_size": 41, "embedding_size": 19, "hidden_size": 21, "num_layers": 2}
    config = LanguageModelConfig(**{**sizes, **options}, cell=cell)
    return LanguageModel(config).eval()


def _tokens(steps: int, batch: int, vocab: int = 41) -> Tensor:
    return torch.randint(vocab, (steps, batch))


@torch.no_grad()
def _expected(model: Any, x: Tensor, **more: Any) -> Any:
    return model(x, engine="reference", **more)


def _same_states(found: State, expected: State) -> None:
    for a, b in zip(state_tensors(found), state_tensors(expected), strict=True):
        assert_close(a, b.detach())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("table", [False, True])
def test_scores_and_states_are_those_of_the_reference(cell: str, table: bool) -> None:
    model, x = _model(cell), _tokens(7, 3)
    packed = StepModel(model, table=table)
    session = packed.start(3)
    out = _expected(model, x)
    assert_close(session.push(x), out.logits)
    _same_states(packed.state(session), out.state)


@pytest.mark.parametrize("cell", CELLS)
def test_a_bare_stack_takes_real_inputs(cell: str) -> None:
    stack, x = gw.Stack(cell, 5, 18, 2), torch.randn(6, 2, 5)
    session = StepStack(stack).start(2)
    out = _expected(stack, x)
    assert_close(session.push(x[:4]), out.h[:4])
    assert_close(torch.stack([session.step(x[4]), session.step(x[5])]), out.h[4:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("table", [False, True])
def test_what_is_lost_is_rounding(dtype: str, table: bool) -> None:
    model, x = _model(hidden_size=150, embedding_size=70), _tokens(7, 3)
    found = StepModel(model, dtype, table=table).start(3).push(x)
    expected = _expected(model, x).logits
    error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < ROUNDING[dtype]


@pytest.mark.parametrize(
    "options",
    [
        {"tied": True},
        {"tied": True, "embedding_size": 21},
        {"decoder": "tanh"},
        {"hidden_sizes": (33, 18, 5)},
        {"num_layers": 1},
        {"learned_state": True},
        {"zoneout": 0.3},
        {"vocab_size": 200},
    ],
    ids=str,
)
def test_every_kind_of_language_model(options: dict[str, Any]) -> None:
    model = _model(**options)
    for name, weight in model.named_parameters():
        if "start_" in name:
            torch.nn.init.normal_(weight)
    x = _tokens(5, 2)
    packed = StepModel(model)
    session = packed.start(2)
    out = _expected(model, x)
    assert_close(session.push(x), out.logits)
    _same_states(packed.state(session), out.state)
    _same_states(packed.state(packed.start(2)), model.zero_state(2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(dtype: str) -> None:
    model = StepModel(_model(hidden_size=35), dtype)
    x = _tokens(4, 64)
    whole = model.start(64).push(x)
    for width in (1, 2, 3, 5, 7, 16):
        assert torch.equal(model.start(width).push(x[:, :width]), whole[:, :width])
        assert torch.equal(model.start(width).push(x[:, -width:]), whole[:, -width:])


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_threads_give_the_same_bits_as_one(dtype: str) -> None:
    model, x = _model(hidden_size=50, vocab_size=300), _tokens(40, 3, 300)
    torch.set_num_threads(2)
    one, two = (StepModel(model, dtype, threads=n).start(3) for n in (1, 2))
    assert torch.equal(one.push(x), two.push(x))
    drawn = [s.run(x[0], 40)[0] for s in (one, two)]
    assert torch.equal(*drawn)


@given(
    cuts=st.lists(st.integers(0, 9), max_size=4),
    columns=st.lists(st.integers(0, 2), min_size=1, max_size=5),
)
def test_cut_forked_and_restored_it_goes_on_as_it_was(cuts: list[int], columns: list[int]) -> None:
    model, x = StepModel(_GRU), _tokens(9, 3)
    whole = model.start(3).push(x)
    session, places = model.start(3), sorted({0, *cuts, 9})
    for first, end in itertools.pairwise(places):
        saved = session.save()
        session.push(_tokens(2, 3))
        session.restore(saved)
        assert torch.equal(session.push(x[first:end]), whole[first:end])
    half = model.start(3)
    half.feed(x[:5])
    twin = half.fork(columns)
    assert torch.equal(twin.push(x[5:, columns]), whole[5:, columns])
    assert torch.equal(half.push(x[5:]), whole[5:])
    assert twin.times.tolist() == [9] * len(columns)


_GRU = _model("gru")


def test_a_state_goes_to_the_model_and_back() -> None:
    model, x = _model(), _tokens(8, 2)
    packed = StepModel(model)
    session = packed.start(2)
    session.feed(x[:3])
    middle = _expected(model, x[3:5], state=packed.state(session))
    packed.load_state(session, middle.state)
    assert_close(session.push(x[5:]), _expected(model, x).logits[5:])
    packed.load_state(session, None)
    assert torch.equal(session.push(x), packed.start(2).push(x))


def test_columns_begin_anew() -> None:
    packed, x = StepModel(_model()), _tokens(6, 2)
    session = packed.start(2)
    session.feed(x)
    session.reset([1])
    assert session.times.tolist() == [6, 0]
    assert torch.equal(session.push(x)[:, 1], packed.start(2).push(x)[:, 1])


def test_feeding_gives_the_last_scores() -> None:
    packed, x = StepModel(_model(num_layers=1)), _tokens(6, 2)
    assert torch.equal(packed.start(2).feed(x), packed.start(2).push(x)[-1])


# --- read and set -----------------------------------------------------------------------------------

CONTROLS = {
    "off": gw.Control.off("o", layer=0, units=slice(2, 9)),
    "set": gw.Control.set("f", 0.9, time=slice(2, 4)),
    "scale and add": gw.Control.scale("g", 2.0) | gw.Control.add("layers.1.c", 0.5, batch=[1]),
    "keep": gw.Control.keep(layer=1, time=slice(1, 3)),
    "patch": gw.Control.patch("layers.0.h", torch.arange(21.0), time=slice(3, 5)),
}


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("name", CONTROLS)
def test_controls_and_records_are_those_of_the_reference(name: str, dtype: str) -> None:
    model, x = _model(), _tokens(7, 2)
    names = StepModel(model, dtype).names
    session = StepModel(model, dtype).start(2, record=gw.Record(*names), control=CONTROLS[name])
    out = _expected(model, x, record=gw.Record(*names), control=CONTROLS[name])
    scores = [session.push(x[:3])]
    records = [session.record]
    scores.append(session.push(x[3:]))
    records.append(session.record)
    assert session.names == names
    exact = dtype == "float32"
    for path in names:
        parts = [r[path] for r in records if r is not None]
        found, expected = torch.cat(parts), out.record[path]
        if exact:
            assert_close(found, expected, what=path)
        else:
            assert (found - expected).abs().mean() < 0.03, path
    if exact:
        assert_close(torch.cat(scores), out.logits)


def test_a_closed_gate_lets_no_nan_through() -> None:
    model = _model(num_layers=1)
    with torch.no_grad():
        model.embedding.weight[5] = float("nan")
    x = torch.tensor([[5], [3]])
    keep = gw.Control.keep(time=0) | gw.Control.set("o", 0.0, time=0)
    out = _expected(model, x, control=keep)
    assert out.logits.isfinite().all()
    for table in (False, True):
        session = StepModel(model, table=table).start(1, control=keep)
        assert_close(session.push(x), out.logits)


def test_only_what_is_asked_for_is_recorded() -> None:
    model, x = _model(), _tokens(9, 2)
    asked = gw.Record("layers.1.f", "c", every=2, units=[3, 1], time=slice(2, None))
    session = StepModel(model).start(2, record=asked)
    out = _expected(model, x, record=asked)
    session.push(x)
    assert session.record is not None
    assert set(session.record) == set(out.record)
    assert torch.equal(session.record.times, out.record.times)
    for path, value in out.record.items():
        assert_close(session.record[path], value, what=path)


def test_columns_at_times_of_their_own_are_controlled_at_those() -> None:
    model, x = _model(), _tokens(6, 2)
    control, asked = gw.Control.set("f", 0.0, time=slice(4, 6)), gw.Record("f")
    session = StepModel(model).start(2, record=asked, control=control)
    session.feed(x)
    session.reset([0])
    session.push(x)
    assert session.record is not None
    closed = (session.record["layers.0.f"] == 0).all(-1)
    assert closed.tolist() == [[t in (4, 5), False] for t in range(6)]


def test_names_that_are_not_there_are_refused() -> None:
    packed = StepModel(_model())
    with pytest.raises(UnknownNameError, match="z"):
        packed.start(record=gw.Record("z"))
    with pytest.raises(UnknownNameError, match="z"):
        packed.start(control=gw.Control.off("z"))


# --- many at once, and what is refused ----------------------------------------------------------------


def test_many_models_run_at_once_in_many_threads() -> None:
    models = [StepModel(_model(cell), dtype) for cell in ("lstm", "gru") for dtype in DTYPES]
    x = _tokens(30, 2)
    alone = [m.start(2).push(x) for m in models]

    def one(number: int) -> bool:
        model = models[number % len(models)]
        return torch.equal(model.start(2).push(x), alone[number % len(models)])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(64)))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (gw.Stack("lstm", 3, 4, bidirectional=True), "backwards"),
        (gw.Stack("lstm", 3, 4, proj_size=2), "projection"),
        (gw.Stack("lstm_layer_norm", 3, 4), "layer_norm"),
        (gw.Stack("lstm", 3, 4, dtype=torch.float64), "float64"),
    ],
)
def test_what_cannot_be_packed_is_refused_with_a_reason(model: Any, why: str) -> None:
    with pytest.raises(EngineError, match=why):
        StepStack(model)


def test_an_adaptive_softmax_is_refused() -> None:
    with pytest.raises(EngineError, match="adaptive"):
        StepModel(_model(softmax="adaptive", vocab_size=50, cutoffs=(10, 20)))


def test_wrong_use_is_said() -> None:
    packed = StepModel(_model())
    with pytest.raises(UnknownNameError, match="int3"):
        StepModel(_model(), "int3")
    with pytest.raises(OptionError, match="batch"):
        packed.start(0)
    session = packed.start(2)
    with pytest.raises(ShapeError, match="tokens"):
        session.push(_tokens(3, 3))
    with pytest.raises(ShapeError, match="from 0 to 40"):
        session.push(torch.full((1, 2), 41))
    with pytest.raises(OptionError, match="columns"):
        session.fork([2])
    with pytest.raises(OptionError, match="steps"):
        session.run(torch.zeros(2, dtype=torch.int64), 0)
    with pytest.raises(ShapeError, match="state of shape"):
        session.restore(packed.start(3).save())
    real = StepStack(gw.Stack("lstm", 3, 4)).start(2)
    with pytest.raises(ShapeError, match="expected x"):
        real.push(torch.zeros(1, 2, 4))
