"""Batches of examples: each once an epoch, of like length, the same whenever they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import DataError, OptionError
from gatewise.mappings.examples import BatchOptions, Order, in_order

lengths = st.lists(st.integers(0, 50), min_size=1, max_size=60)


@given(lengths, st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))
def test_every_example_once_an_epoch(found: list[int], size: int, bucket: int, epoch: int) -> None:
    order = Order(np.array(found), size, bucket, seed=3)
    again = Order(np.array(found), size, bucket, seed=3)
    rows, position = [], 0
    while position < len(order):
        batch = order.rows(epoch, position)
        assert np.array_equal(again.rows(epoch + 1, 0), order.rows(epoch + 1, 0))
        assert np.array_equal(again.rows(epoch, position), batch)  # whatever was asked before
        assert len(batch) == min(size, len(order) - position)
        rows += batch.tolist()
        position += len(batch)
    assert sorted(rows) == list(range(len(found)))


def test_batches_hold_examples_of_like_length() -> None:
    found = np.random.default_rng(0).integers(1, 100, 2000)

    def padding(order: Order) -> int:
        batches = [found[order.rows(0, at)] for at in range(0, len(order), 20)]
        return sum(int((b.max() - b).sum()) for b in batches)

    assert padding(Order(found, 20, 16)) < 0.15 * padding(Order(found, 20, 1))
    firsts = [found[Order(found, 20, 100, seed).rows(0, 0)].mean() for seed in range(8)]
    assert np.std(firsts) > 5  # not always the shortest first


def test_another_epoch_and_another_seed_are_other_orders() -> None:
    first = Order(np.ones(50, np.int64), 50, 1, seed=1)
    assert not np.array_equal(first.rows(0, 0), first.rows(1, 0))
    assert not np.array_equal(first.rows(0, 0), Order(np.ones(50, np.int64), 50, 1, 2).rows(0, 0))


@given(lengths, st.integers(1, 9))
def test_an_evaluation_sees_every_example(found: list[int], size: int) -> None:
    batches = in_order(np.array(found), size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(found)))


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="at least one example"):
        Order(np.empty(0, np.int64), 4)
    with pytest.raises(OptionError, match="position from 0 to 2"):
        Order(np.ones(3, np.int64), 4).rows(0, 3)
    with pytest.raises(OptionError, match="--eval-batch-size: expected a whole number"):
        BatchOptions(eval_batch_size=0).validate()
