"""An exported model beside its original: both are run, and their results compared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import FailedError
from gatewise.mappings import LanguageModel
from gatewise.modes import evaluating
from gatewise.types import State, state_tensors


def compare(model: LanguageModel, path: Path | str, tolerance: float = 1e-3) -> float:
    """The largest difference between the model and the file run by onnxruntime.

    Args:
        model: the original.
        path: of the ONNX file.
        tolerance: largest difference accepted.
    Raises:
        FailedError: if it is exceeded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    worst = 0.0
    for steps, batch in ((1, 1), (7, 3), (20, 2)):
        worst = max(worst, _difference(model, session, steps, batch))
    if not worst <= tolerance:
        raise FailedError(
            f"the exported model differs by {worst:.2g} from the original (expected at most "
            f"{tolerance:.0e}): please report it with the run's config.json"
        )
    return worst


def _difference(model: LanguageModel, session: Any, steps: int, batch: int) -> float:
    generator = torch.Generator().manual_seed(steps)
    tokens = torch.randint(model.vocab_size, (steps, batch), generator=generator)
    given = [
        torch.rand(s.shape, generator=generator) - 0.5
        for s in state_tensors(model.zero_state(batch))
    ]
    with evaluating(model), torch.inference_mode():
        out = model(tokens, state_like(model.zero_state(batch), given))
    assert out.logits is not None
    expected = [out.logits, *state_tensors(out.state)]
    names = [i.name for i in session.get_inputs()]
    feed = dict(zip(names, [tokens.numpy(), *(g.numpy() for g in given)], strict=True))
    found = session.run(None, feed)
    pairs = zip(expected, found, strict=True)
    return max(float((e - torch.from_numpy(f)).abs().max()) for e, f in pairs)


def state_like(zero: State, flat: Sequence[Tensor]) -> State:
    """The tensors `flat` in the form of the state `zero`."""
    rest = list(flat)

    def fill(state: State) -> State:
        if isinstance(state, Tensor):
            return rest.pop(0)
        return None if state is None else tuple(fill(part) for part in state)

    return fill(zero)
