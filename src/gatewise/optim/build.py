"""Optimizers by name, with their options checked. Knows torch.optim and named parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from gatewise.errors import OptionError, unknown
from gatewise.optim.averaged import NTASGD


class Recipe(NamedTuple):
    """An optimizer that can be asked for by name.

    Args:
        make: its class.
        known: the options that it takes beyond lr and weight_decay.
        slots: how many numbers it keeps for each weight, without momentum where that is an option.
        fused: whether torch has it in one pass over the slots instead of eight.
    """

    make: Callable[..., Optimizer]
    known: frozenset[str]
    slots: int
    fused: bool = False


OPTIMIZERS: dict[str, Recipe] = {
    "sgd": Recipe(torch.optim.SGD, frozenset({"momentum", "nesterov"}), 0),
    "adam": Recipe(torch.optim.Adam, frozenset({"betas", "eps"}), 2, fused=True),
    "adamw": Recipe(torch.optim.AdamW, frozenset({"betas", "eps"}), 2, fused=True),
    "rmsprop": Recipe(torch.optim.RMSprop, frozenset({"alpha", "momentum", "eps"}), 1),
    "ntasgd": Recipe(NTASGD, frozenset({"non_monotone"}), 1),
}
"""Optimizer name -> its recipe."""


def build_optimizer(
    name: str,
    named_params: Iterable[tuple[str, Tensor]],
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float | None = None,
    nesterov: bool | None = None,
    betas: tuple[float, float] | None = None,
    alpha: float | None = None,
    eps: float | None = None,
    non_monotone: int | None = None,
    decay_biases: bool = True,
) -> Optimizer:
    """The optimizer `name` over the parameters that ask for a gradient, each taken once.

    Args:
        name: "sgd", "ntasgd", "adam", "adamw" or "rmsprop".
        named_params: pairs (name, parameter), as `module.named_parameters()` gives them.
        lr: learning rate.
        weight_decay: L2 penalty added to the gradient (adamw: subtracted from the weights).
        momentum: sgd and rmsprop. Default: 0.
        nesterov: sgd. Default: False.
        betas: adam and adamw. Default: (0.9, 0.999).
        alpha: rmsprop's smoothing. Default: 0.99.
        eps: adam, adamw and rmsprop. Default: 1e-8.
        non_monotone: ntasgd's n. Default: 5.
        decay_biases: whether weight decay also falls on parameters of fewer than 2 dimensions.
    Returns:
        optimizer; its groups carry the parameters' names.
    Raises:
        UnknownNameError: if there is no such optimizer.
        OptionError: if an option is out of range, or the optimizer does not know it.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    recipe = OPTIMIZERS[name]
    given = {
        "momentum": momentum,
        "nesterov": nesterov,
        "betas": betas,
        "alpha": alpha,
        "eps": eps,
        "non_monotone": non_monotone,
    }
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    _check_known(name, options, recipe.known)
    _check_ranges(lr, weight_decay, options)
    groups = _groups(named_params, weight_decay, decay_biases)
    if recipe.fused and _all_fused(groups):
        options["fused"] = True
    return recipe.make(groups, lr=lr, weight_decay=weight_decay, **options)


def _groups(
    named_params: Iterable[tuple[str, Tensor]], weight_decay: float, decay_biases: bool
) -> list[dict[str, Any]]:
    """One group, or two where the parameters of fewer than 2 dimensions do not decay."""
    seen: set[int] = set()
    decaying: list[tuple[str, Tensor]] = []
    plain: list[tuple[str, Tensor]] = []
    for name, p in named_params:
        if id(p) in seen or not p.requires_grad:
            continue
        seen.add(id(p))
        (decaying if decay_biases or p.dim() >= 2 else plain).append((name, p))
    if not seen:
        raise OptionError("optimizer: expected a parameter that asks for a gradient, found none")
    groups = [(decaying, weight_decay), (plain, 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


def _all_fused(groups: list[dict[str, Any]]) -> bool:
    """Whether torch's fused kernels take every parameter."""
    tensors = [p for group in groups for _, p in group["params"]]
    devices = {"cpu", "cuda"}
    return all(p.is_floating_point() and p.device.type in devices for p in tensors)


def _check_known(name: str, options: dict[str, Any], known: frozenset[str]) -> None:
    for option in options:
        if option not in known:
            takes = ", ".join(sorted(known | {"lr", "weight_decay"}))
            raise OptionError(f"{name}: expected {takes}, found {option}; leave it out")


def _check_ranges(lr: float, weight_decay: float, options: dict[str, Any]) -> None:
    if not (math.isfinite(lr) and lr > 0):
        raise OptionError(f"lr: expected a finite number above 0, found {lr}")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise OptionError(f"weight_decay: expected a finite number >= 0, found {weight_decay}")
    betas = options.get("betas", ())
    shares = [(f"betas[{i}]", b) for i, b in enumerate(betas)]
    shares += [(k, options[k]) for k in ("momentum", "alpha") if k in options]
    for key, share in shares:
        if not 0 <= share < 1:
            raise OptionError(f"{key}: expected at least 0 and less than 1, found {share}")
    if "betas" in options and len(betas) != 2:
        raise OptionError(f"betas: expected two numbers, found {betas}")
    eps = options.get("eps", 1e-8)
    if not (math.isfinite(eps) and eps > 0):
        raise OptionError(f"eps: expected a finite number above 0, found {eps}")
    if options.get("nesterov") and not options.get("momentum"):
        raise OptionError("nesterov: expected a momentum above 0, found none; give momentum too")
