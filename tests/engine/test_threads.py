"""Kernels on torch's threads: as many as asked for, after a fork, from several Python threads, on one core."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, pins")
START = """
import multiprocessing, os, threading, time, warnings
from concurrent.futures import ThreadPoolExecutor
import torch
import gatewise as gw
from gatewise.engine.cpu import threads
warnings.simplefilter("ignore")
torch.set_num_threads(2)
torch.manual_seed(1)
used = []
real = threads.run
def run(address, arguments, count):
    used.append(count)
    real(address, arguments, count)
threads.run = run
threads._processors = lambda: 2  # also where the tests have one
stack = gw.Stack("lstm", 8, 128)
x = torch.randn(8, 16, 8)
def step(x=x):
    stack.zero_grad()
    out = stack(x, engine="compiled")
    out.h.backward(torch.ones(8, 16, 128))
    return [out.h.detach(), *(p.grad for p in stack.parameters())]
def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a, b))
def close(a, b):
    return all(torch.allclose(p, q, rtol=1e-4, atol=1e-5) for p, q in zip(a, b))
"""


def script(text: str, **environment: str) -> str:
    """What a program prints; it fails or hangs: so does the test."""
    done = subprocess.run(
        [sys.executable, "-c", START + text],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_as_many_as_torch_has() -> None:
    assert script(
        """
first = step()
assert set(used) == {2}, used
used.clear()
torch.set_num_threads(1)
assert close(step(), first)
assert set(used) == {1}, used
"""
    ) == ""  # fmt: skip


def test_omp_num_threads() -> None:
    program = "import torch; print(torch.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "1"  # and torch's number is what kernels are run on


CHILD = """
torch.manual_seed(2)
torch.mm(torch.randn(256, 256), torch.randn(256, 256))  # torch's own pool runs before the fork
first = step()
def in_child():
    {child}
child = os.fork()
if child == 0:
    try:
        in_child()
        os._exit(0)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert same(step(), first)
"""


@LINUX
@pytest.mark.parametrize(
    "child",
    [
        # as data loaders do
        "torch.set_num_threads(1); assert close(step(), first); assert used[-2:] == [1, 1]",
        # torch's own operators would hang now: ours run, and the kernels on two threads
        "again = step(); torch.set_num_threads(1); assert close(again, first); "
        "assert used[-2:] == [2, 2]",
        # a new thread has a pool of its own, torch's operators included
        "assert ThreadPoolExecutor(1).submit(lambda: close(step(), first)).result(); "
        "assert used[-2:] == [2, 2]",
        # a fork of a fork
        "torch.set_num_threads(1); step(); pid = os.fork(); pid or os._exit(not close(step(), first));"
        " assert os.waitpid(pid, 0)[1] == 0",
    ],
    ids=["one thread", "two threads", "new thread", "twice"],
)
def test_after_a_fork(child: str) -> None:
    script(CHILD.format(child=child))


@LINUX
def test_the_step_engine_after_a_fork() -> None:
    """What torch computes around the kernels: packing of large weights, costs of many tokens, streams."""
    script("""
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.step.generation import StepLanguageModel
from gatewise.stream import Stream
model = LanguageModel(LanguageModelConfig(vocab_size=2000, embedding_size=256, hidden_size=256))
tokens = torch.randint(2000, (50, 64))
expected = StepLanguageModel(model)(tokens).logits  # torch's own pool runs before the fork
child = os.fork()
if child == 0:
    try:
        found = StepLanguageModel(model)(tokens).logits
        StepLanguageModel(model, "int8").loss(tokens, tokens)
        Stream(model, 64, dtype="int4").push(tokens)
        torch.set_num_threads(1)  # the comparison is torch's own
        os._exit(not torch.equal(found, expected))
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
""")


@LINUX
def test_in_the_workers_of_a_loader() -> None:
    script("""
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, k):
        return stack(x, engine="compiled").h.detach()
first = step()[0]
loader = torch.utils.data.DataLoader(Data(), num_workers=2, multiprocessing_context="fork")
for batch in loader:
    assert torch.allclose(batch[0], first, rtol=1e-4, atol=1e-5)
with multiprocessing.get_context("fork").Pool(2, torch.set_num_threads, (1,)) as pool:
    assert all(close([h], [first]) for h in pool.map(Data().__getitem__, range(4)))
""")


def test_several_python_threads_at_once() -> None:
    """Each opens a region of its own; a barrier counts the threads of its region only."""
    script("""
inputs = [torch.randn(8, 16, 8) for _ in range(4)]
expected = [stack(x, engine="compiled").h for x in inputs]
def run(x):
    with torch.no_grad():
        return stack(x, engine="compiled").h
with ThreadPoolExecutor(4) as pool:
    for k, found in enumerate(pool.map(run, inputs * 20)):
        assert torch.equal(found, expected[k % 4])
""")


@LINUX
def test_on_one_processor() -> None:
    """Two threads that share one must not wait out their time slices at every step."""
    text = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
x = torch.randn(200, 16, 8)
def seconds():
    best = 1e9
    for _ in range(3):
        begin = time.perf_counter()
        with torch.no_grad():
            stack(x, engine="compiled")
        best = min(best, time.perf_counter() - begin)
    return best
stack(x, engine="compiled")
two = seconds()
torch.set_num_threads(1)
one = seconds()
print(two / one)
"""
    assert float(script(text)) < 20
