"""The profile of a memory task's net, against the whole matrix of its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise import gradients
from gatewise.cli import main
from gatewise.errors import OptionError
from gatewise.insight import task_sensitivity, untrained
from gatewise.insight.task_sensitivity import same_length, step_costs


@pytest.fixture(scope="module", params=["temporal-order:easy", "adding:12", "copy:3"])
def run(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    name, _, length = request.param.partition(":")
    out = tmp_path_factory.mktemp("task") / "run"
    words = ["train", "task", name, "--length", length, "--hidden-size", "5", "--steps", "2"]
    assert main([*words, "--dtype", "float64", "--out", str(out)]) == 0
    return gw.load(out, dtype="float64")


@pytest.mark.parametrize("wrt", ["state", "h"])
def test_it_is_the_last_row_of_the_flow(run: Any, wrt: str) -> None:
    batch = same_length(run.task, 7, run.seed)
    assert batch.x.shape[1] == 7
    assert batch.mask[-1].all()

    def cost(h: Any) -> Any:
        return step_costs(run.task, run.model.decoder(h), batch.targets[-1])

    flow = gradients.flow(run.model.stack, batch.x.double(), cost, wrt=wrt)
    found = task_sensitivity(run, windows=7, wrt=wrt)
    torch.testing.assert_close(found.profile.norms.flip(0), flow[-1])
    assert found.windows == 7
    short = task_sensitivity(run, windows=7, wrt=wrt, lags=3)
    assert torch.equal(short.profile.norms, found.profile.norms[:4])


def test_the_cost_is_that_of_the_task(run: Any) -> None:
    from gatewise.metrics.memory import MemoryTally

    batch = same_length(run.task, 9, run.seed)
    with torch.no_grad():
        outputs = run.model.decoder(run.model.stack(batch.x.double()).h)
    last = batch._replace(
        mask=torch.zeros_like(batch.mask).index_fill(0, torch.tensor(len(outputs) - 1), True)
    )
    tally = MemoryTally(run.task)
    tally.add(outputs, last)
    found = task_sensitivity(run, windows=9)
    assert found.nats == pytest.approx(tally.cost, rel=1e-6)
    assert found.unit == ("nats" if run.task.classes else "squared errors")


def test_the_net_before_training(run: Any) -> None:
    model = untrained(run)
    again = {name: one.shape for name, one in model.state_dict().items()}
    assert again == {name: one.shape for name, one in run.model.state_dict().items()}
    found = task_sensitivity(run, model=model, windows=2, exponents=1, spectrum=2)
    assert found.exponents is not None
    assert found.spectrum is not None
    for name in ("windows", "lags", "exponents"):
        with pytest.raises(OptionError, match=name):
            task_sensitivity(run, **{name: -1})
