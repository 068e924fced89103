"""How far back a trained language model looks: its gradients through time along a text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise.errors import DataError, OptionError
from gatewise.gradients import Exponents, Profile, Spectrum, lag_profile, lyapunov, spectra
from gatewise.mappings import LanguageModel
from gatewise.modes import evaluating
from gatewise.run import LanguageRun, Run
from gatewise.stack import Stack
from gatewise.types import State, state_tensors

_LARGEST = 2048
"""Numbers in a state up to which its Jacobian is formed."""


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What the gradients through time of one model on one text are.

    Args:
        profile: of the last cost of each window, by lag.
        windows: how many were read.
        nats: mean cost of the tokens in them, from the state that a window began with.
        exponents: Lyapunov exponents, or None.
        spectrum: singular values of the steps, or None.
        unit: of the costs: "nats", or "squared errors" of a task whose answers are numbers.
    """

    profile: Profile
    windows: int
    nats: float
    exponents: Exponents | None = None
    spectrum: Spectrum | None = None
    unit: str = "nats"


def sensitivity(
    run: LanguageRun,
    text: str,
    *,
    model: LanguageModel | None = None,
    lags: int = 200,
    windows: int = 16,
    layer: int = -1,
    wrt: str = "state",
    exponents: int = 0,
    spectrum: int = 0,
) -> Sensitivity:
    """How the cost of a token depends on the state so many tokens before.

    Windows are taken evenly from the text. Each begins with as many tokens again, read without a gradient,
    so that the state is one that the model is in.

    Args:
        run: of a language model.
        text: at least twice as many tokens as lags, and two.
        model: another of the same form, such as the untrained one. Default: the run's.
        lags: how far back.
        windows: how many, fewer where the text has fewer.
        layer, wrt: whose state, as for `gatewise.gradients.flow`.
        exponents: so many Lyapunov exponents along the first window (from the start state; its first quarter is
            for the frame to turn), at most as many as the state has numbers; 0: none.
        spectrum: singular values of so many steps of the first window, at most lags + 1; 0: none.
    Raises:
        DataError: the text is too short.
        OptionError: an option is outside its range; the state is too large for exponents.
    """
    given = {"lags": lags, "windows": windows, "exponents": exponents, "spectrum": spectrum}
    for name, value in given.items():
        least = 1 if name in ("lags", "windows") else 0
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise OptionError(
                f"{name}: expected a whole number of {least} or more, found {value!r}"
            )
    model = run.model if model is None else model
    ids: np.ndarray[Any, np.dtype[np.int64]] = np.asarray(run.tokenizer.encode(text), np.int64)
    tokens = windows_of(ids, lags, windows).to(model.device)
    found, x = profile_of(model, tokens, layer=layer, wrt=wrt)
    if not exponents and not spectrum:
        return found
    with evaluating(model):
        return with_dynamics(found, model.stack, x, exponents, spectrum)


def profile_of(
    model: LanguageModel, tokens: Tensor, *, layer: int = -1, wrt: str = "state"
) -> tuple[Sensitivity, Tensor]:
    """The sensitivity along windows of tokens, and what the stack read in their later halves.

    Args:
        model: whose; its mode, its gradients and the random numbers stay as they are.
        tokens: (2 lags + 2, windows); the first `lags` are only read.
        layer, wrt: whose state.
    """
    lags = (len(tokens) - 2) // 2
    before, inside, targets = tokens[:lags], tokens[lags:-1], tokens[lags + 1 :]
    with evaluating(model):
        with torch.no_grad():
            state: State = model(before, logits="none").state
            x = model.inputs(inside)
            out = model.stack(x, state)
            nats = float(model.token_nats(out.h, targets).mean())
        profile = lag_profile(
            model.stack,
            x,
            lambda h: model.token_nats(h, targets),
            layer=layer,
            wrt=wrt,
            state=state,
        )
    return Sensitivity(profile, tokens.shape[1], nats), x


def with_dynamics(
    found: Sensitivity, stack: Stack, x: Tensor, exponents: int, spectrum: int
) -> Sensitivity:
    """Exponents and singular values along the first column of x, from the start state."""
    size = sum(part.numel() for part in state_tensors(stack.zero_state(1)))
    if size > _LARGEST:
        raise OptionError(
            f"exponents and spectrum: expected a state of at most {_LARGEST:,} numbers, whose Jacobian fits, "
            f"found {size:,}"
        )
    first = x[:, :1]
    skip = len(first) // 4
    return replace(
        found,
        exponents=lyapunov(stack, first, count=min(exponents, size), skip=skip)
        if exponents
        else None,
        spectrum=spectra(stack, first[:spectrum]) if spectrum else None,
    )


def windows_of(ids: np.ndarray[Any, np.dtype[Any]], lags: int, count: int) -> Tensor:
    """(2 lags + 2, windows) of tokens, evenly from all.

    Raises:
        DataError: there are fewer tokens than one window takes.
    """
    size = 2 * lags + 2
    if len(ids) < size:
        raise DataError(
            f"expected a text of at least {size:,} tokens for {lags:,} lags (as many are read before), found "
            f"{len(ids):,}: give a longer text, or fewer lags"
        )
    starts = np.unique(np.linspace(0, len(ids) - size, count).astype(np.int64))
    columns = [np.asarray(ids[k : k + size], np.int64) for k in starts]
    return torch.from_numpy(np.stack(columns, axis=1))


def untrained(run: Run) -> Any:
    """The model as it was before training: its own sizes, drawn from the seed that the run began with.

    A model with an adaptive softmax or learned clusters has the same sizes, but no counts of tokens.

    Args:
        run: of a language model or a memory task.
    """
    training = run.config.get("training")
    seed = training.get("seed", 0) if isinstance(training, dict) else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        model = type(run.model)(run.model.config)
    weight = next(run.model.parameters())
    return model.to(device=weight.device, dtype=weight.dtype).eval()
