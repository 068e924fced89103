"""Everybody who writes token by token writes the same."""

from __future__ import annotations

import copy

import pytest
import torch

from gatewise.bench import parity, stepping, suites
from gatewise.bench.contestants import Excluded
from gatewise.bench.sizes import StepSize, read_sizes, read_step_sizes
from gatewise.errors import OptionError

SIZE = StepSize(24, 13, 2, 2)


def _enter(name: str, size: StepSize = SIZE) -> tuple[stepping.Task, stepping.Entry]:
    task = stepping.make_task(size, 2)
    try:
        return task, stepping.CONTESTANTS[name].enter(task)
    except Excluded as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", stepping.CONTESTANTS)
def test_everybody_agrees(name: str) -> None:
    task, entry = _enter(name)
    contestant = stepping.CONTESTANTS[name]
    expected = stepping.truth(task)
    for _ in range(2):  # from the beginning each time
        error = parity.error(stepping.results(entry, task), expected)
        assert parity.complaint(error, contestant.dtype) == "", error
    entry.write(3)
    error = parity.error(stepping.results(entry, task), expected)
    assert parity.complaint(error, contestant.dtype) == "", error


@pytest.mark.parametrize(
    "name", [n for n, c in stepping.CONTESTANTS.items() if c.dtype == "float32"]
)
def test_what_is_written_is_the_most_probable(name: str) -> None:
    task, entry = _enter(name)
    net = copy.deepcopy(task.theirs).double().requires_grad_(False)
    entry.restart()
    tokens = torch.zeros(1, SIZE.batch, dtype=torch.int64)
    for _ in range(4):
        tokens = torch.cat([tokens, net(tokens)[-1].argmax(-1)[None]])
    entry.write(4)
    # the next scores follow from the token that was written last
    expected = net(torch.cat([tokens, torch.ones(1, SIZE.batch, dtype=torch.int64)]))[-1]
    # `write` has not fed its last token yet
    entry.advance(tokens[-1])
    found = entry.advance(torch.ones(SIZE.batch, dtype=torch.int64))
    assert parity.error([found], [expected]) < 1e-4


def test_without_onnxruntime_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewise.bench.onnx_peer.find_spec", lambda name: None)
    with pytest.raises(Excluded, match=r"gatewise\[onnx\]"):
        stepping.onnx(False)(stepping.make_task(SIZE, 2))


def test_one_thread_is_no_second_row() -> None:
    with pytest.raises(Excluded, match="one thread"):
        stepping.onnx(False, 1)(stepping.make_task(SIZE, 1))


def test_without_quantisation_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.ao.quantization, "quantize_dynamic")
    with pytest.raises(Excluded, match="quantize_dynamic"):
        stepping.dynamic_int8(stepping.make_task(SIZE, 1))


def test_mkldnn_is_only_off_while_it_writes() -> None:
    _, entry = _enter("torch-plain")
    entry.write(1)
    assert torch._C._get_mkldnn_enabled()


def test_the_bytes_of_a_step() -> None:
    pytest.importorskip("llvmlite", reason="llvmlite is not installed")
    assert SIZE.weights(4) == 2 * 4 * 24 * 48 + 13 * 24
    reads = suites.Reads(SIZE, 1)
    assert reads.bytes("int8") == SIZE.weights(4) == reads.bytes("float32") / 4
    assert reads.bytes("int8", 100.0) == 100.0
    assert reads.seconds("float32") > 0


def test_sizes_as_they_are_written() -> None:
    assert read_step_sizes("8,9;8,9,2 8,9,2,3", ()) == (
        StepSize(8, 9), StepSize(8, 9, 2), StepSize(8, 9, 2, 3),
    )  # fmt: skip
    default = (SIZE,)
    assert read_step_sizes("", default) == default
    assert [str(s) for s in read_sizes("1,2,3,4;5,6,7,8", ())] == ["1,2,3,4", "5,6,7,8"]
    for wrong in ("1", "1,2,3,4,5", "0,1", "a,b", "1,-2", "1,,2"):
        with pytest.raises(OptionError, match="--sizes"):
            read_step_sizes(wrong, ())
    with pytest.raises(OptionError, match="T,B,H,L"):
        read_sizes("1,2,3", ())
