"""A language model that writes, token by token: embedding, layers, decoder, the most probable token, and again.

Everybody carries its own state on; what is timed is several whole tokens. Before that the scores of a given text
are compared, fed step by step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from gatewise.bench.contestants import Contestant, Excluded
from gatewise.bench.language import Network, model_of
from gatewise.bench.onnx_peer import OnnxWriter
from gatewise.bench.sizes import Size, StepSize
from gatewise.cells import REGISTRY
from gatewise.errors import EngineError
from gatewise.probe import Record
from gatewise.types import State

BASE = "torch"
BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5}
"""dtype -> bytes of a weight; scales are not counted."""
_TEXT = 8  # tokens whose scores are compared


@dataclass(frozen=True, eq=False)
class Task:
    """A network in evaluation mode, and the text (T, B) to compare scores over.

    Args:
        threads: that everybody may use.
    """

    size: StepSize
    theirs: Network
    text: Tensor
    threads: int


@dataclass(frozen=True, eq=False)
class Entry:
    """Somebody who is ready.

    Args:
        restart: forgets everything.
        advance: tokens (B,) -> scores (B, V).
        write: writes so many tokens on, each the most probable after the one before.
        ran: the name of the engine.
        reads: bytes of weights that a step reads, where it is known; else those of all of them.
    """

    restart: Callable[[], object]
    advance: Callable[[Tensor], Tensor]
    write: Callable[[int], object]
    ran: list[str] = field(default_factory=list)
    reads: float | None = None


def make_task(size: StepSize, threads: int, *, seed: int = 0) -> Task:
    """A task with weights and a text drawn from a seed."""
    generator = torch.Generator().manual_seed(seed)
    theirs = Network(Size(1, size.batch, size.hidden, size.layers), size.vocabulary).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.uniform_(-(size.hidden**-0.5), size.hidden**-0.5, generator=generator)
        theirs.embedding.weight.normal_(generator=generator)
    text = torch.randint(size.vocabulary, (_TEXT, size.batch), generator=generator)
    return Task(size, theirs, text, threads)


def truth(task: Task) -> list[Tensor]:
    """The scores of the text, by torch in float64."""
    exact = Network(Size(1, 1, task.size.hidden, task.size.layers), task.size.vocabulary).double()
    exact.load_state_dict(task.theirs.state_dict())
    with torch.inference_mode():
        return [exact(task.text)]


def results(entry: Entry, task: Task) -> list[Tensor]:
    """The scores of the text, step by step from the beginning."""
    entry.restart()
    found = torch.stack([entry.advance(tokens).clone() for tokens in task.text])
    entry.restart()
    return [found]


class _Loop:
    """A function of (tokens (1, B), state) that is called at each step.

    Args:
        function: gives scores (B, V) and the next state.
        batch: B.
        around: a context to call it in.
    """

    def __init__(
        self,
        function: Callable[[Tensor, State], tuple[Tensor, State]],
        batch: int,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._function, self._around = function, around
        self._state: State = None
        self._token = torch.zeros(batch, dtype=torch.int64)

    def restart(self) -> None:
        self._state = None

    def advance(self, tokens: Tensor) -> Tensor:
        with torch.inference_mode(), self._around():
            scores, self._state = self._function(tokens[None], self._state)
            return scores

    def write(self, count: int) -> Tensor:
        with torch.inference_mode(), self._around():
            for _ in range(count):
                scores, self._state = self._function(self._token[None], self._state)
                self._token = scores.argmax(-1)
        return self._token

    def entry(self, ran: list[str] | None = None) -> Entry:
        """As an entry."""
        return Entry(self.restart, self.advance, self.write, [] if ran is None else ran)


# ---------------------------------------------------------------------------- torch


def _calls(net: nn.Module) -> Callable[[Tensor, State], tuple[Tensor, State]]:
    embedding, lstm, decoder = (getattr(net, n) for n in ("embedding", "lstm", "decoder"))

    def call(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        h, state = lstm(embedding(tokens), state)
        return decoder(h[0]), state

    return call


def with_mkldnn(task: Task) -> Entry:
    """torch as it comes: oneDNN packs the weights of nn.LSTM anew at each call."""
    return _Loop(_calls(task.theirs), task.size.batch).entry()


def without_mkldnn(task: Task) -> Entry:
    """torch with oneDNN switched off."""

    def around() -> AbstractContextManager[object]:
        off: AbstractContextManager[object] = torch.backends.mkldnn.flags(
            enabled=False, deterministic=None, allow_tf32=None, fp32_precision=None
        )
        return off

    return _Loop(_calls(task.theirs), task.size.batch, around).entry()


def dynamic_int8(task: Task) -> Entry:
    """torch's dynamic quantisation of nn.LSTM and nn.Linear."""
    quantise = getattr(getattr(torch.ao, "quantization", None), "quantize_dynamic", None)
    if quantise is None:
        raise Excluded("this torch has no torch.ao.quantization.quantize_dynamic")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will move to another package
        try:
            net = quantise(task.theirs, {nn.LSTM, nn.Linear}, dtype=torch.qint8)
        except RuntimeError as error:
            raise Excluded(f"torch cannot quantise here: {str(error).splitlines()[0]}") from None
    return _Loop(_calls(net), task.size.batch).entry()


def onnx(quantised: bool, threads: int | None = None) -> Callable[[Task], Entry]:
    """ONNX Runtime with so many threads (default: all that everybody has)."""

    def enter(task: Task) -> Entry:
        if threads == task.threads:
            raise Excluded("it is the row above: one thread was asked for")
        writer = OnnxWriter(
            model_of(task.theirs).eval(),
            task.size.batch,
            threads or task.threads,
            quantised=quantised,
        )
        return Entry(writer.restart, writer.advance, writer.write)

    return enter


# ---------------------------------------------------------------------------- gatewise


def through_model(task: Task) -> Entry:
    """The language model called step by step, as in training."""
    model = model_of(task.theirs).eval()
    ran: list[str] = []

    def call(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        out = model(tokens, state, logits="last")
        ran[:] = [out.engine]
        assert out.logits is not None
        return out.logits[0], out.state

    return _Loop(call, task.size.batch).entry(ran)


def packed(dtype: str, *, record: bool = False, each: bool = False) -> Callable[[Task], Entry]:
    """The step engine, its weights packed as `dtype`.

    Args:
        dtype: of the weights.
        record: every gate.
        each: a call for each token, its scores brought to Python; otherwise one call for all tokens.
    """

    def enter(task: Task) -> Entry:
        engine: Any = import_module("gatewise.step.model")  # llvmlite is loaded by who takes part
        drawing: Any = import_module("gatewise.step.drawing").Drawing
        try:
            model = engine.StepModel(model_of(task.theirs).eval(), dtype)
        except EngineError as error:
            raise Excluded(str(error)) from None
        gates = Record(*REGISTRY["lstm"].law.graph.gates) if record else None
        session = model.start(task.size.batch, record=gates)
        token = torch.zeros(task.size.batch, dtype=torch.int64)
        greedy = drawing(temperature=0.0, logprobs=False)

        def write(count: int) -> None:
            token.copy_(session.run(token, count, greedy)[0][-1])

        def write_each(count: int) -> None:
            for _ in range(count):
                token.copy_(session.step(token).argmax(-1))

        return Entry(
            session.reset,
            session.step,
            write_each if each else write,
            ["step"],
            float(model.read_bytes()),
        )

    return enter


CONTESTANTS: Mapping[str, Contestant[Task, Entry]] = {
    "torch": Contestant("nn.LSTM", "float32", with_mkldnn),
    "torch-plain": Contestant("nn.LSTM, no mkldnn", "float32", without_mkldnn),
    "torch-int8": Contestant("torch, dynamic", "int8", dynamic_int8),
    "onnx": Contestant("ONNX RT", "float32", onnx(False)),
    "onnx-1": Contestant("ONNX RT, 1 thread", "float32", onnx(False, 1)),
    "onnx-int8": Contestant("ONNX RT, dynamic", "int8", onnx(True)),
    "onnx-int8-1": Contestant("ONNX RT dyn., 1 thread", "int8", onnx(True, 1)),
    "gatewise-model": Contestant("gatewise's model", "float32", through_model, ours=True),
    "gatewise": Contestant("gatewise", "float32", packed("float32"), ours=True),
    "gatewise-bf16": Contestant("gatewise", "bfloat16", packed("bfloat16"), ours=True),
    "gatewise-int8": Contestant("gatewise", "int8", packed("int8"), ours=True),
    "gatewise-int8-gates": Contestant(
        "gatewise, all gates", "int8", packed("int8", record=True), ours=True
    ),
    "gatewise-int8-each": Contestant(
        "gatewise, a call a token", "int8", packed("int8", each=True), ours=True
    ),
    "gatewise-int4": Contestant("gatewise", "int4", packed("int4"), ours=True),
}
"""Name -> contestant."""
