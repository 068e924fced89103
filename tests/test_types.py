"""States as nested tuples."""

from __future__ import annotations

import torch

import gatewise as gw
from gatewise import types

NESTED = (torch.randn(2, 3, 4), (torch.randn(3, 5), None), torch.randn(1, 3, 1))


def test_a_state_is_mapped_part_by_part() -> None:
    doubled = types.map_state(lambda s: 2 * s, NESTED)
    assert torch.equal(doubled[1][0], 2 * NESTED[1][0])
    assert doubled[1][1] is None
    assert types.map_state(torch.neg, None) is None
    assert [s.shape for s in types.state_tensors(NESTED)] == [(2, 3, 4), (3, 5), (1, 3, 1)]


def test_columns_are_selected_with_repeats() -> None:
    some = types.select(NESTED, torch.tensor([2, 0, 2, 2]))
    for part, whole in zip(types.state_tensors(some), types.state_tensors(NESTED), strict=True):
        assert torch.equal(part, whole[..., [2, 0, 2, 2], :])


def test_detach_and_clone() -> None:
    state = (torch.randn(2, 3, requires_grad=True) * 2,)
    assert not types.detach(state)[0].requires_grad
    assert types.detach(state)[0].data_ptr() == state[0].data_ptr()
    copy = types.clone(state)
    assert copy[0].data_ptr() != state[0].data_ptr()
    assert torch.equal(copy[0], state[0])


def test_the_state_of_a_net_can_be_selected_and_carried_on() -> None:
    for stack in (gw.Stack("lstm", 3, 4, 2), gw.Stack("gru", 3, [4, 5])):
        x = torch.randn(6, 3, 3)
        state = stack(x[:3]).state
        index = torch.tensor([1, 1, 0])
        carried = stack(x[3:, index], types.select(types.detach(state), index)).h
        torch.testing.assert_close(carried, stack(x[:, index]).h[3:])
