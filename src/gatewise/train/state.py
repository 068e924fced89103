"""Everything a run must remember between two steps, and its way into a checkpoint and back.

`Counters` holds numbers, the rest is tensors: optimizer slots, the carried state, generators. Equal
runs have equal states, bit for bit; what the clock says is kept apart.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gatewise.errors import CheckpointError
from gatewise.types import State, map_state


@dataclass
class Counters:
    """Where a run is.

    Attributes:
        step: steps done, skipped ones included.
        epoch, position: where the next batch begins.
        tokens: predictions made.
        skipped, skips_in_a_row: steps without an update.
        evaluated: step of the last evaluation, -1 before the first.
        best, best_step: lowest mean nats on the validation part, and when.
        bad_evaluations: evaluations since then.
        first_nats: mean loss of the first steps.
        lowest_nats: lowest mean loss of a window of steps.
        window_nats, window_steps: sum and number in the window now open.
        high_windows: windows in a row above the limit.
        warned: whether the diverging loss has been said.
        log_nats, log_steps: sum and number since the last line of the log.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    tokens: int = 0
    skipped: int = 0
    skips_in_a_row: int = 0
    evaluated: int = -1
    best: float = math.inf
    best_step: int = -1
    bad_evaluations: int = 0
    first_nats: float = math.nan
    lowest_nats: float = math.inf
    window_nats: float = 0.0
    window_steps: int = 0
    high_windows: int = 0
    warned: bool = False
    log_nats: float = 0.0
    log_steps: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able numbers."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Counters:
        """Counters as `to_dict` gave them."""
        names = {field.name for field in dataclasses.fields(cls)}
        if set(values) != names:
            raise CheckpointError(
                f"training state: expected the counters {', '.join(sorted(names))}, "
                f"found {', '.join(sorted(values))}: written by another version"
            )
        return cls(**values)


def carry(state: State) -> State:
    """`state` cut from the graph, in memory of its own.

    A copy, so that a resumed run computes on tensors of the same layout, bit for bit, and so that
    the chunk's buffers can be freed.
    """
    return map_state(lambda s: s.detach().clone(memory_format=torch.contiguous_format), state)


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's global generators that training draws from."""
    states = {"rng.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng.cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(tensors: dict[str, Tensor], device: torch.device) -> None:
    """Set torch's global generators to what `generator_states` gave."""
    torch.set_rng_state(tensors["rng.cpu"].clone())
    if device.type == "cuda" and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"].clone(), device)


def uses_bfloat16(dtype: str, device: torch.device) -> bool:
    """Whether matrix products run in bfloat16 under the option `dtype`."""
    if dtype != "auto":
        return dtype == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def environment(bfloat16: bool, engine: str) -> dict[str, Any]:
    """What may change the last bits of a result: of the machine, and the engine asked for."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "bfloat16": bfloat16,
        "engine": engine,
    }
