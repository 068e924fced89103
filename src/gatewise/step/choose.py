"""Whether a model can be packed for the step engine. Knows models; loads no compiler."""

from __future__ import annotations

import torch
from torch import Tensor

from gatewise.engine.cpu.engine import CompiledEngine
from gatewise.mappings.seq_to_seq import LanguageModel
from gatewise.probe import Control
from gatewise.stack import Layers

DTYPES = ("float32", "bfloat16", "int8", "int4")
"""Kinds of numbers that weights can be packed as, the most exact first."""


def refusal(model: LanguageModel | Layers) -> str | None:
    """Why the model cannot be packed, or None."""
    if (why := CompiledEngine().available()) is not None:
        return why
    stack = model.stack if isinstance(model, LanguageModel) else model
    if stack.bidirectional:
        return "it reads backwards too"
    if stack.proj_size:
        return "its layers have projections"
    weight = next(stack.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return f"its weights are {weight.dtype} on {weight.device.type}, not float32 on a CPU"
    from gatewise.engine.cpu.layout import refusal as of_equations

    if why := of_equations(stack._law):
        return f"in the cell {stack._law.name} {why}"
    if isinstance(model, LanguageModel) and model.softmax is not None:
        return "its softmax is adaptive"
    return None


def refusal_of_control(control: Control | None) -> str | None:
    """Why a control cannot be honoured, or None: tables mark with NaN and infinity what is selected."""
    for rule in () if control is None else control.rules:
        value = rule.value
        if value is not None and not bool(torch.as_tensor(value).isfinite().all()):
            return "a control sets what is not finite"
        if isinstance(value, Tensor) and value.requires_grad:
            return "a control's value asks for a gradient"
    return None
