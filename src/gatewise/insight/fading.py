"""How one step of the input fades in a unit, or is kept: sensitivities and gates at every step after it.

The lecture's picture (Graves 2012, Supervised Sequence Labelling with Recurrent Neural Networks, figures 4.1 and
4.4): the nodes of an unrolled net, the darker the more they depend on the input at one time; beside each its input,
forget and output gates, open or closed. Here from the values of a net.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gatewise.cells.base import Law
from gatewise.errors import DataError, OptionError
from gatewise.insight.reading import keeping
from gatewise.mappings import LanguageModel
from gatewise.modes import evaluating
from gatewise.probe import Record
from gatewise.run import LanguageRun
from gatewise.stack import Layers

LONGEST = 200
GATES = {"input": "i", "forget": "f", "output": "o"}
"""What stands below, left of and above a node: the gates that do it, where a cell's `keep` says no other."""


@dataclass(frozen=True, eq=False)
class Fading:
    """One unit along a sequence.

    Args:
        name: what was read, for a title.
        tokens: what was read at each step, (T,).
        since: the step whose input is followed.
        layer, unit: whose.
        memory: name of the state that carries: c, or h where there is no other.
        kept: (T,), the norm of d memory[t] / d input[since]; 0 before it.
        said: (T,), the same of h[t], which is all that others see.
        gates: "input", "forget", "output" -> (T,), where the cell has them.
    """

    name: str
    tokens: list[str]
    since: int
    layer: int
    unit: int
    memory: str
    kept: Tensor
    said: Tensor
    gates: dict[str, Tensor]


def fading(
    run: LanguageRun,
    text: str,
    *,
    since: int = 0,
    layer: int = -1,
    unit: int | None = None,
    model: LanguageModel | None = None,
    name: str = "",
) -> Fading:
    """How the token at `since` fades in a unit.

    Args:
        run: of a language model.
        text: at most `LONGEST` tokens.
        since: the token that is followed, from 0.
        layer: whose unit; -1: the last.
        unit: which; default: the one that depends on it most at once and at the end (the product).
        model: another of the same form, such as the untrained one. Default: the run's.
        name: for a title.
    Raises:
        DataError: the text is too long, or has no such token.
        OptionError: there is no such layer or unit.
    """
    ids = np.asarray(run.tokenizer.encode(text), np.int64)
    if not 1 <= len(ids) <= LONGEST:
        raise DataError(f"expected a text of 1 to {LONGEST} tokens, found {len(ids):,}")
    if not 0 <= since < len(ids):
        raise DataError(f"since: expected a token from 0 to {len(ids) - 1}, found {since}")
    model = run.model if model is None else model
    tokens = torch.from_numpy(ids).to(model.device)
    with evaluating(model):
        x = model.inputs(tokens[:, None]).detach()
        found = fading_of(model.stack, x, since=since, layer=layer, unit=unit)
    shown = [run.tokenizer.tokens[one] for one in ids.tolist()]
    layer, unit, memory, kept, said, gates = found
    return Fading(name, shown, since, layer, unit, memory, kept, said, gates)


def fading_of(
    stack: Layers, x: Tensor, *, since: int = 0, layer: int = -1, unit: int | None = None
) -> tuple[int, int, str, Tensor, Tensor, dict[str, Tensor]]:
    """The fields of `Fading` from `layer` on, of inputs x (T, 1, I)."""
    count = stack.num_layers
    if isinstance(layer, bool) or not -count <= layer < count:
        raise OptionError(f"layer: expected {-count} to {count - 1}, found {layer}")
    path = f"layers.{layer % count}."
    law = stack.directions()[0].law
    memory = "c" if "c" in law.states else "h"
    gates = _gates(law)
    paths = [path + one for one in {memory, "h", *(name for name, _ in gates.values())}]
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        record = stack(x, engine="reference", record=Record(*paths, grad=True)).record
    assert record is not None
    units = record[path + memory].shape[-1]
    if unit is not None and not 0 <= unit < units:
        raise OptionError(f"unit: expected 0 to {units - 1}, found {unit}")
    if unit is None:
        first, last = (_norms(record[path + memory][k, 0], x, since) for k in (since, -1))
        unit = int((first * last).argmax())
    kept = _norms(record[path + memory][:, 0, unit], x, since)
    said = kept if memory == "h" else _norms(record[path + "h"][:, 0, unit], x, since)
    opened = {}
    for part, (name, opens) in gates.items():
        values = record[path + name][:, 0, unit].detach()
        opened[part] = values if opens else 1 - values
    return layer % count, unit, memory, kept, said, opened


def _gates(law: Law) -> dict[str, tuple[str, bool]]:
    """Part -> the gate that does it, and whether it does where it is open."""
    found = {part: (name, True) for part, name in GATES.items() if name in law.names(False)}
    kept = keeping(law)
    if kept is not None:
        found["forget"] = kept
        if not kept[1]:  # what it does not keep it writes
            found["input"] = (kept[0], True)
    return {part: found[part] for part in GATES if part in found}


def _norms(values: Tensor, x: Tensor, since: int) -> Tensor:
    """The norm of d value / d x[since] for each value, all at once."""
    each = torch.eye(len(values), dtype=values.dtype, device=values.device)
    (found,) = torch.autograd.grad(values, x, each, retain_graph=True, is_grads_batched=True)
    norms: Tensor = found[:, since, 0].double().norm(dim=-1).cpu()
    return norms
