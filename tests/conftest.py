"""What every test starts from: fixed seeds, one thread, and no uninitialised memory."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from torch import Tensor

import emulation

ROOT = Path(__file__).parents[1]

hypothesis.settings.register_profile(
    "ci",
    max_examples=25,
    deadline=None,
    derandomize=True,
    # Each example compiles, trains or unrolls something: slow is not a fault here.
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("ci"), max_examples=1000, derandomize=False
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


class _TorchRandom:
    """Torch's global generator, as hypothesis wants to see it: seeded before each example."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


_torch_random = _TorchRandom()  # hypothesis holds it weakly
hypothesis.register_random(_torch_random)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _seeds() -> Iterator[None]:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    # The nets are tiny: a second thread only waits, for milliseconds a call on a busy machine.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)


def _poison(tensor: Tensor) -> Tensor:
    """`tensor` filled with what nobody can take for a result: NaN, or the largest integer."""
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        value: float | int = float("nan")
    elif tensor.dtype == torch.bool:
        value = 1
    else:
        value = torch.iinfo(tensor.dtype).max
    with torch.no_grad():
        return tensor.fill_(value)


def _poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*args: Any, **kwargs: Any) -> Tensor:
        return _poison(make(*args, **kwargs))

    return call


@pytest.fixture(autouse=True)
def _no_uninitialised_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python code that reads a torch.empty before it has written it sees NaN.

    torch.utils.deterministic.fill_uninitialized_memory would do the same, but only together with
    torch.use_deterministic_algorithms, which changes the kernels under test.
    """
    for owner, names in {
        torch: ("empty", "empty_like", "empty_strided"),
        torch.Tensor: ("new_empty", "new_empty_strided"),
    }.items():
        for name in names:
            monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))


@pytest.fixture(autouse=True)
def _needs_gpu(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _stand_in_for_a_card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is asked to run the engine "cuda" runs it on the CPU, one marked gpu on a card."""
    asked = getattr(request.node, "callspec", None)
    if request.node.get_closest_marker("gpu") or asked is None:
        return
    if asked.params.get("engine") == "cuda":
        emulation.emulate(monkeypatch)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The local folder of data, which $GATEWISE_DATA names."""
    folder = Path(os.environ.get("GATEWISE_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}: set GATEWISE_DATA to run the tests that read it")
    return folder
