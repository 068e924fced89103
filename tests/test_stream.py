from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fakes import FakeModel, FakeTokenizer
from gatewise.cells import REGISTRY
from gatewise.errors import CheckpointError, OptionError, ShapeError
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.probe import Control, Record
from gatewise.stack import Stack
from gatewise.stream import Stream
from gatewise.types import state_tensors
from tolerances import assert_close

CONTROLS: dict[str, Control | None] = {
    "none": None,
    "off": Control.off("h", time=slice(3, 7), layer=0),
    "scaled": Control.scale("h", 0.5, units=[0, 2], time=range(4, 9), batch=1),
    "added": Control.add("h", 0.3, time=5) | Control.set("h", -0.2, time=6, units=1),
}


def stack_of(cell: str, **options: Any) -> Stack:
    torch.manual_seed(3)
    sizes = options.pop("sizes", 4)
    return Stack(cell, 3, sizes, 1 if isinstance(sizes, list) else 2, **options).double().eval()


def language_model(cell: str = "lstm") -> LanguageModel:
    torch.manual_seed(4)
    config = LanguageModelConfig(
        vocab_size=7, cell=cell, embedding_size=3, hidden_size=4, num_layers=2, dropout=0.3
    )
    return LanguageModel(config).double()


def cut(draw: Any, steps: int) -> list[int]:
    """Sizes that add up to `steps`; zeros among them."""
    cuts = sorted(draw(st.lists(st.integers(0, steps), max_size=5), "cuts"))
    return [end - begin for begin, end in zip([0, *cuts], [*cuts, steps], strict=True)]


def whole_and_parts(
    net: Any, x: Tensor, sizes: list[int], **options: Any
) -> tuple[Any, Tensor, list[Any], Stream]:
    whole = net(x, **options)
    stream = Stream(net, x.shape[1], **options)
    outs, records = [], []
    for part in x.split(sizes):
        outs.append(stream.push(part))
        records.append(stream.record)
    return whole, torch.cat(outs), records, stream


def check_records(whole: Any, parts: list[Any]) -> None:
    if whole is None:
        assert parts == [None] * len(parts)
        return
    for name, values in whole.items():
        assert_close(torch.cat([part[name] for part in parts if name in part]), values, what=name)
    assert torch.equal(torch.cat([part.times for part in parts]), whole.times)


@pytest.mark.parametrize("cell", sorted(REGISTRY))
@settings(max_examples=settings().max_examples // 2)
@given(data=st.data())
def test_random_chunks_equal_the_whole(cell: str, data: Any) -> None:
    sizes = data.draw(st.sampled_from([4, [5, 3]]), "sizes")
    net = stack_of(cell, sizes=sizes, learned_state=data.draw(st.booleans(), "learned"))
    steps, batch = data.draw(st.integers(1, 9), "T"), 2
    x = torch.randn(steps, batch, 3, dtype=torch.float64)
    control = CONTROLS[data.draw(st.sampled_from(sorted(CONTROLS)), "control")]
    record = data.draw(st.sampled_from([None, Record("h"), Record("h", every=3)]), "record")
    whole, out, records, stream = whole_and_parts(
        net, x, cut(data.draw, steps), record=record, control=control
    )
    assert_close(out, whole.h)
    check_records(whole.record, records)
    for found, expected in zip(
        state_tensors(stream._state), state_tensors(whole.state), strict=True
    ):
        assert_close(found, expected)
    assert stream.time == steps


@pytest.mark.parametrize("cell", sorted(REGISTRY))
def test_one_step_at_a_time_of_a_language_model(cell: str) -> None:
    model = language_model(cell)
    tokens = torch.randint(7, (9, 3))
    control = Control.keep(time=slice(4, 7)) if cell in ("lstm", "gru") else None
    record = Record("h")
    whole = model.eval()(tokens, record=record, control=control)
    model.train()  # the stream must not draw dropout, nor change the mode
    stream = Stream(model, 3, record=record, control=control)
    outs, records = [], []
    for row in tokens:
        outs.append(stream.push(row))
        records.append(stream.record)
    assert model.training
    assert_close(torch.cat(outs), whole.logits)
    check_records(whole.record, records)


def test_a_fork_goes_its_own_way() -> None:
    net = stack_of("lstm")
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    stream = Stream(net, 2)
    stream.push(x[:3])
    twin, turned = stream.fork(), stream.fork([1, 1, 0])
    expected = net(x).h[3:]
    stream.push(torch.randn(4, 2, 3))
    assert_close(twin.push(x[3:]), expected)
    assert_close(turned.push(x[3:, [1, 1, 0]]), expected[:, [1, 1, 0]])
    assert (stream.time, twin.time, turned.batch) == (7, 6, 3)
    with pytest.raises(OptionError, match="at least one"):
        stream.fork([])


@pytest.mark.parametrize("columns", [[2], [-1], [0.5], [True]])
def test_only_columns_that_are_there_are_forked_and_reset(columns: list[int]) -> None:
    stream = Stream(stack_of("lstm"), 2)
    stream.push(torch.randn(4, 2, 3))
    with pytest.raises(OptionError, match="from 0 to 1"):
        stream.fork(columns)
    with pytest.raises(OptionError, match="from 0 to 1"):
        stream.reset(columns)
    assert stream.time == 4


def test_a_state_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot write"):
        Stream(stack_of("lstm")).save(tmp_path / "missing" / "state")


def test_the_state_is_a_copy() -> None:
    stream = Stream(stack_of("lstm"))
    stream.push(torch.randn(2, 1, 3))
    before = stream.state
    stream.push(torch.randn(2, 1, 3))
    after = stream.state
    for part in before.values():
        part.zero_()
    assert all(torch.equal(after[name], part) for name, part in stream.state.items())


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "slstm"])
@pytest.mark.parametrize("sizes", [4, [5, 3]])
@pytest.mark.parametrize("steps", [0, 3])
def test_saved_and_restored(cell: str, sizes: Any, steps: int, tmp_path: Path) -> None:
    net = stack_of(cell, sizes=sizes, learned_state=True)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    control = Control.off("h", time=4)
    first = Stream(net, 2, control=control)
    first.push(x[:steps])
    expected = net(x, control=control).h[steps:]

    def fresh() -> Stream:
        stream = Stream(net, 2, control=control)
        stream.push(torch.randn(1, 2, 3))
        return stream

    first.save(tmp_path / "state")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    restored = [fresh(), fresh(), fresh()]
    restored[0].state = first.state
    restored[1].from_bytes(first.to_bytes())
    restored[2].load(tmp_path / "state")
    for stream in restored:
        assert stream.time == steps
        assert_close(stream.push(x[steps:]), expected)


def test_a_state_from_elsewhere_is_refused(tmp_path: Path) -> None:
    net = stack_of("lstm")
    stream, other = Stream(net, 2), Stream(stack_of("gru"), 2)
    for each in (stream, other):
        each.push(torch.randn(2, 2, 3))
    good = stream.state
    for wrong in (
        {},
        {"time": good["time"]},
        {"time": good["time"], "fresh": good["fresh"]},
        good | {"time": torch.zeros(3, dtype=torch.int64)},
        good | {"state.0": good["state.0"].float()},
        good | {"state.1": good["state.1"][:, :1]},
        {name: part for name, part in good.items() if name != "state.1"},
        good | {"state.7.x": good["state.1"]},
        other.state,
    ):
        with pytest.raises(ShapeError, match="expected"):
            stream.state = wrong
    assert all(torch.equal(good[name], part) for name, part in stream.state.items())
    for data in (b"", b"nonsense", stream.to_bytes()[:-1]):
        with pytest.raises(CheckpointError):
            stream.from_bytes(data)
    with pytest.raises(CheckpointError):
        stream.load(tmp_path / "missing")


@pytest.mark.parametrize("learned", [False, True])
def test_columns_can_begin_anew_by_themselves(learned: bool) -> None:
    net = stack_of("lstm", learned_state=learned)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    control = Control.off("h", time=1)
    stream = Stream(net, 2, control=control, record=Record("h"))
    stream.push(x[:2])
    stream.reset([1])
    kept = Stream(net, 2, control=control)
    kept.state = stream.state  # what is still to be reset is part of the state
    out = stream.push(x[2:])
    assert_close(out[:, 0], net(x, control=control).h[2:, 0])
    assert_close(out[:, 1], net(x[2:], control=control).h[:, 1])
    assert_close(kept.push(x[2:]), out)
    assert stream.record is not None
    assert stream.record.times.tolist() == [[2, 0], [3, 1], [4, 2]]
    stream.reset()
    assert stream.time == 0
    assert_close(stream.push(x), net(x, control=control).h)


def test_what_can_be_pushed() -> None:
    net, model = stack_of("gru"), language_model().eval()
    x = torch.randn(2, 1, 3)
    one = Stream(net).push(x)
    assert torch.equal(Stream(net).push(x[:, 0]), one)
    assert torch.equal(Stream(net).push(x.numpy()), one)
    assert torch.equal(Stream(net).push(x.tolist()), one)
    assert torch.equal(Stream(net).push(x[0, 0]), one[:1])
    assert Stream(net, 4).push(torch.randn(4, 3)).shape == (1, 4, 4)
    assert Stream(model).push(5).shape == (1, 1, 7)
    assert Stream(model).push([5, 1]).shape == (2, 1, 7)
    assert Stream(model).push(np.array([5, 1], dtype=np.uint16)).shape == (2, 1, 7)
    assert Stream(model, 3).push([5, 1, 2]).shape == (1, 3, 7)
    assert Stream(model, 3).push([[5, 1, 2], [0, 0, 0]]).shape == (2, 3, 7)
    assert Stream(model).push([]).shape == (0, 1, 7)
    for stream, wrong in (
        (Stream(net), torch.randn(2, 4)),
        (Stream(net, 2), torch.randn(2, 3, 3)),
        (Stream(model, 2), [1, 2, 3]),
        (Stream(model, 2), 1),
        (Stream(model), [[1], [2, 3]]),
        (Stream(model), [0.5]),
    ):
        with pytest.raises(ShapeError, match="expected"):
            stream.push(wrong)


def test_texts_can_be_pushed_and_unknown_characters_are_told() -> None:
    letters = FakeTokenizer(["a", "b", "?"], unknown_id=2)
    stream = Stream(FakeModel(3), tokenizer=letters)  # type: ignore[arg-type]
    with pytest.raises(TypeError):  # the fake knows no reset and no record: a stream hands them on
        stream.push("a")
    config = LanguageModelConfig(vocab_size=3, embedding_size=2, hidden_size=2)
    stream = Stream(LanguageModel(config), tokenizer=letters)  # type: ignore[arg-type]
    assert stream.push("axby").shape == (4, 1, 3)
    stream.push("xz")
    assert stream.unknowns == ["x", "y", "z"]
    with pytest.raises(OptionError, match="tokenizer"):
        Stream(LanguageModel(config)).push("a")
    wide = Stream(LanguageModel(config), 2, tokenizer=letters)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="a text goes into a stream of one column"):
        wide.push("az")
    assert wide.unknowns == []


def test_what_cannot_be_a_stream() -> None:
    with pytest.raises(OptionError, match="bidirectional"):
        Stream(stack_of("lstm", bidirectional=True))
    with pytest.raises(OptionError, match="grad"):
        Stream(stack_of("lstm"), record=Record("h", grad=True))
    with pytest.raises(OptionError, match="batch"):
        Stream(stack_of("lstm"), 0)


def test_memory_does_not_grow() -> None:
    stream = Stream(stack_of("lstm"), record=Record("f"))
    sizes = set()
    for _ in range(20):
        stream.push(torch.randn(3, 1, 3))
        assert stream._state is not None
        parts = list(state_tensors(stream._state))
        assert all(part.grad_fn is None for part in parts)
        sizes.add(sum(part.untyped_storage().nbytes() for part in parts))
    assert len(sizes) == 1
