"""The lens: what the decoder would say from each layer's h[t], and from its c[t] if the output gate were open.

    y~_l[t] = Dec(h_l[t]),   y~_l,c[t] = Dec(h_l[t] with o = 1)

The decoder learnt to read the last layer; what it says of a lower one is how far the answer is there already
(for transformers: the logit lens, nostalgebraist 2020). Recurrent layers have no shortcut around them, so that a lower
one has a basis of its own: `fit` finds the linear map from it into the last one's (as the tuned lens does, Belrose et
al. 2023, arXiv 2303.08112), by ridge regression over a text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError, unknown
from gatewise.insight.reading import read_long
from gatewise.mappings import LanguageModel
from gatewise.modes import evaluating
from gatewise.probe import Control, Record
from gatewise.run import LanguageRun
from gatewise.types import State, state_tensors

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

LONGEST = 20_000
"""Tokens; each takes a state of its own."""
_CHUNK = 128


@dataclass(frozen=True, eq=False)
class Said:
    """What the decoder says from one value.

    Args:
        ids: (T, K), the most probable tokens after each token was read, the most probable first.
        probabilities: (T, K), theirs.
        nats: (T,), the cost of the token that stands there next; NaN for the last.
        agrees: (T,), whether the most probable one is that of the whole model.
    """

    ids: Array
    probabilities: Array
    nats: Array
    agrees: Array


@dataclass(frozen=True, eq=False)
class Lens:
    """What the decoder says from each value; the last is what the model itself says.

    Args:
        ids: the tokens that were read, (T,).
        said: "layers.0.h", "layers.0.h, o open", ... -> what is said from it.
        notes: layers that the decoder cannot read, a line each.
    """

    ids: Array
    said: dict[str, Said]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Linear maps from the outputs of lower layers into those of the last.

    Args:
        weights: path -> (units + 1, H); the last row is what is added.
        explained: path -> the share of the last layer's variance that the map gives, on the text's last tenth,
            which it was not fitted on.
    """

    weights: dict[str, Tensor]
    explained: dict[str, float]

    def map(self, path: str, h: Tensor) -> Tensor:
        """Outputs of a layer (..., units) in the basis of the last layer, (..., H)."""
        weight = self.weights[path].to(h)
        return h @ weight[:-1] + weight[-1]


def fit(run: LanguageRun, text: str, *, ridge: float = 1e-3, engine: str = "auto") -> Fitted:
    """Fit the maps for `lens` on a text.

    Args:
        run: of a language model.
        text: of more tokens than the last layer has units, best of many times as many.
        ridge: what is added to the squares, as a share of their mean: against overfitting.
        engine: of the recurrent layers.
    Raises:
        DataError: the text is too short.
        OptionError: ridge is not a number from 0.
    """
    if not 0 <= ridge < float("inf"):
        raise OptionError(f"ridge: expected a number from 0, found {ridge!r}")
    count = run.model.stack.num_layers
    paths = [_output(run.model, layer) for layer in range(count)]
    record = read_long(run, text, record=paths, engine=engine).record
    last = torch.from_numpy(np.asarray(record[paths[-1]], np.float64))
    held = len(last) // 10
    if held < 2 or len(last) - held <= last.shape[1]:
        raise DataError(
            f"expected a text of more than {max(20, last.shape[1] * 10 // 9 + 1):,} tokens to fit the lens on, found "
            f"{len(last):,}"
        )
    weights, explained = {}, {}
    for path in paths[:-1]:
        h = torch.from_numpy(np.asarray(record[path], np.float64))
        x = torch.cat((h, h.new_ones(len(h), 1)), 1)
        known, squares = x[:-held], x[:-held].T @ x[:-held]
        squares.diagonal().add_(ridge * float(squares.diagonal().mean()) + 1e-12)
        weights[path] = torch.linalg.solve(squares, known.T @ last[:-held])
        missed = (x[-held:] @ weights[path] - last[-held:]).square().sum()
        around = (last[-held:] - last[-held:].mean(0)).square().sum()
        explained[path] = float(1 - missed / around)
    return Fitted(weights, explained)


def lens(
    run: LanguageRun,
    text: str,
    *,
    top: int = 3,
    control: Control | None = None,
    gate: str = "o",
    fitted: Fitted | None = None,
    engine: str = "auto",
) -> Lens:
    """A text, read by the decoder from each layer.

    Args:
        run: of a language model.
        text: at least one token.
        top: how many tokens are named at each step.
        control: what to set while the text is read.
        gate: the output gate, which is opened to see what the memory behind it says. A cell without it is
            read from h alone.
        fitted: of `fit`, to read lower layers in the last one's basis; then layers of any width are read.
        engine: of the recurrent layers.
    Raises:
        DataError: the text has no token, or more than `LONGEST`.
        OptionError: `top` is outside its range; the control is for some columns only.
        UnknownNameError: the cell has not that gate ("o" may be asked for of any).
    """
    if control is not None and any(rule.batch is not None for rule in control.rules):
        raise OptionError(
            "control: expected one for all columns, found one with batch=: leave it out"
        )
    model = run.model
    ids: Array = np.asarray(run.tokenizer.encode(text), np.int64)
    if not 1 <= len(ids) <= LONGEST:
        raise DataError(f"expected a text of 1 to {LONGEST:,} tokens, found {len(ids):,}")
    if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= model.vocab_size:
        raise OptionError(
            f"top: expected a whole number from 1 to {model.vocab_size:,}, found {top!r}"
        )
    tokens = torch.from_numpy(ids).to(model.device)
    layers, notes = _readable(model, fitted)
    gates = tuple(model.stack.directions()[0].law.graph.gates)
    gated = gate in gates
    if not gated and gate != "o":
        raise unknown("gate", gate, gates)
    if not gated:
        notes.append(f"{model.config.cell} has no gate {gate}: read from h alone")
    with evaluating(model), torch.no_grad():
        values = _values(model, tokens, layers, gate if gated else None, control, engine)
        said = {
            name: _decoded(model, _in_basis(name, value, fitted), tokens, top)
            for name, value in values.items()
        }
    final = said[_output(model, model.stack.num_layers - 1)].ids[:, 0]
    for name, one in said.items():
        said[name] = replace(one, agrees=one.ids[:, 0] == final)
    return Lens(ids, said, tuple(notes))


def _output(model: LanguageModel, layer: int) -> str:
    """The path of what a layer gives to the next."""
    return f"layers.{layer}.{'proj' if model.stack.proj_size else 'h'}"


def _in_basis(name: str, value: Tensor, fitted: Fitted | None) -> Tensor:
    """A value in the basis that the decoder reads."""
    path = name.partition(",")[0]
    return value if fitted is None or path not in fitted.weights else fitted.map(path, value)


def _readable(model: LanguageModel, fitted: Fitted | None) -> tuple[list[int], list[str]]:
    """The layers that the decoder can read, and a note for each other."""
    if fitted is not None:
        return list(range(model.stack.num_layers)), []
    width, sizes = model.stack.output_size, model.config.layer_sizes
    given = [model.stack.proj_size or size for size in sizes]
    notes = [
        f"layer {layer}: its {size} numbers do not fit the decoder, which reads {width}: left out"
        for layer, size in enumerate(given)
        if size != width
    ]
    return [layer for layer, size in enumerate(given) if size == width], notes


def _values(
    model: LanguageModel,
    tokens: Tensor,
    layers: list[int],
    gate: str | None,
    control: Control | None,
    engine: str,
) -> dict[str, Tensor]:
    """Name -> what the decoder is to read, (T, 1, H): h of each layer, as it is and with the gate open."""
    states = tuple(model.stack.directions()[0].law.states)
    count = model.stack.num_layers
    kept = [[_stored(model, layer, name) for name in states] for layer in range(count)]
    paths = {path for layer in kept for path in layer} | {_output(model, layer) for layer in layers}
    record = Record(*sorted(paths))
    out = model(tokens[:, None], logits="none", record=record, control=control, engine=engine)
    assert out.record is not None
    before = _states_before(model, kept, out.record, len(tokens)) if gate else None
    values = {}
    for layer in layers:
        path = _output(model, layer)
        values[path] = out.record[path]
        if gate is not None:
            opened = Control.on(f"layers.{layer}.{gate}")
            acting = opened if control is None else control | opened
            values[f"{path}, {gate} open"] = _step(model, tokens, before, path, acting, engine)
    last = _output(model, count - 1)
    values[last] = values.pop(last)  # what the model itself says stands last
    return values


def _stored(model: LanguageModel, layer: int, state: str) -> str:
    return _output(model, layer) if state == "h" else f"layers.{layer}.{state}"


def _states_before(model: LanguageModel, kept: list[list[str]], record: Any, steps: int) -> State:
    """The state before each step as one state of T columns."""
    begin = model.stack.state_form.split(model.zero_state(1))
    parts: list[State] = []
    for paths, first in zip(kept, begin, strict=True):
        shifted = [
            torch.cat((one.reshape(1, -1).to(record[path].dtype), record[path][: steps - 1, 0]))
            for path, one in zip(paths, state_tensors(first), strict=True)
        ]
        parts.append(tuple(shifted) if len(shifted) > 1 else shifted[0])
    return model.stack.state_form.whole(parts)


def _step(
    model: LanguageModel,
    tokens: Tensor,
    state: State,
    path: str,
    control: Control,
    engine: str,
) -> Tensor:
    """One step from every time at once: the columns are the times."""
    times = torch.arange(len(tokens))
    out = model(
        tokens[None],
        state,
        logits="none",
        start=times,
        record=Record(path),
        control=control,
        engine=engine,
    )
    assert out.record is not None
    value: Tensor = out.record[path][0, :, None]
    return value


def _decoded(model: LanguageModel, h: Tensor, tokens: Tensor, top: int) -> Said:
    """What the decoder says from h (T, 1, H); it agrees with itself."""
    ids: list[Array] = []
    probabilities: list[Array] = []
    nats: list[Array] = []
    follows = torch.cat((tokens[1:], tokens[:1]))
    for begin in range(0, len(h), _CHUNK):
        scores = model.scores(h[begin : begin + _CHUNK])[:, 0].double().log_softmax(-1)
        best = scores.topk(top, dim=-1)
        cost = -scores.gather(1, follows[begin : begin + _CHUNK, None]).squeeze(1)
        ids.append(best.indices.cpu().numpy())
        probabilities.append(best.values.exp().cpu().numpy())
        nats.append(cost.cpu().numpy())
    nats[-1][-1] = np.nan
    return Said(
        np.concatenate(ids),
        np.concatenate(probabilities),
        np.concatenate(nats),
        np.ones(len(h), bool),
    )
